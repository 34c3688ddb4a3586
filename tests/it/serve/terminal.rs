//! `pearl chat` as a newcomer types it: what a command did is said, and a wrong line is named.

use pearlpoint::organism;

use super::steering::folder;
use crate::cli::pearl;

/// Exit code, answers and talk of a dialogue through a pipe.
fn talk(arguments: &[&str], lines: &[u8]) -> (Option<i32>, String, String) {
    let arguments = [&["chat", "--greedy", "--max-tokens", "8"], arguments].concat();
    let output = pearl(&arguments).write_stdin(lines).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn commands_say_what_they_did_and_answers_are_alone_on_stdout() {
    let folder = folder(&organism::model().unwrap());
    let path = folder.path().display().to_string();
    let lines = b"/help\ni see .\n\n/steer all\n/steer\t\n/probe mood kind:b\n/probe\n/system be kind\n/system\n/reset\r\ni see .\n/quit\nnever\n";
    let (code, answers, said) = talk(&["--vectors", &path], lines);
    assert_eq!(code, Some(0), "{said}");
    let answers: Vec<&str> = answers.lines().collect();
    // A new dialogue under the same settings has the same answer; nothing is said after the end.
    assert!(answers.len() == 2 && answers[0] == answers[1] && !answers[0].is_empty(), "{answers:?}");
    for line in [
        "/steer PLAN [FACTOR]",
        "vectors: east, west",
        "probes: kind, mood",
        "steered by all",
        "not steered",
        "read: mood kind:b",
        "nothing is read",
        "the system message is set",
        "no system message",
        "a new dialogue",
    ] {
        assert!(said.lines().any(|own| own.starts_with(line)), "{line}: {said}");
    }
    let (_, quiet, said) = talk(&["--vectors", &path, "--quiet"], lines);
    assert_eq!((quiet.lines().collect::<Vec<_>>(), said.as_str()), (answers, ""));
    // Without a line break at the end, and with nothing at all.
    assert_eq!(talk(&[], b"i see .").1.lines().count(), 1);
    assert_eq!(talk(&[], b""), (Some(0), String::new(), String::new()));
}

#[test]
fn a_wrong_line_ends_a_pipe_with_one_line() {
    let long = [&b"i see . ".repeat(300)[..], b"\n"].concat();
    for (lines, parts) in [
        (&b"/foo\n"[..], &["/foo: no such command", "/steer"][..]),
        (b"/steer\x1b[2J\n", &["no such command"]),
        (b"/steer nope\n", &["no plan \"nope\"", "--vectors DIR"]),
        (b"/steer nope:1\n", &["no vector \"nope\""]),
        (b"/probe x\n", &["no probe \"x\""]),
        (b"\xff\xfe\n", &["the message: bytes that are no UTF-8", "a text"]),
        (&long, &["the dialogue: ", " tokens; expected at most 512", "a shorter message, or a new dialogue"]),
    ] {
        let (code, answers, said) = talk(&["--quiet"], lines);
        assert_eq!((code, answers.as_str(), said.lines().count()), (Some(2), "", 1), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)) && !said.contains('\x1b'), "{said}");
        assert!(!said.contains("--too-long"), "{said}");
    }
}
