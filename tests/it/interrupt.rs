//! Ctrl-C: a real child process, a real SIGINT.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program, as a process that can be signalled.
fn pearl(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("pearl"));
    command.args(arguments);
    command
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

/// Waits for the end, in at most so many seconds.
fn end(child: &mut Child, seconds: f64) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begin.elapsed() > Duration::from_secs_f64(seconds) {
            child.kill().unwrap();
            panic!("still running after {seconds} s");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rest(child: &mut Child) -> (String, String) {
    let (mut out, mut said) = (String::new(), String::new());
    child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut out));
    child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut said));
    (out, said)
}

#[test]
fn an_answer_stops_at_the_next_token_and_is_printed() {
    // A random model that never ends its answer.
    let mut child =
        pearl(&["generate", "--model", "tests/fixtures/qwen3", "--prompt", "how", "--max-tokens", "1000000"])
            .args(["--stream", "--greedy"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut first = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    interrupt(&child);
    // Whatever is in the pipe is read, so that the child can write on.
    let (out, said) = rest(&mut child);
    assert_eq!(end(&mut child, 2.0), Some(130), "{said}");
    assert!(out.ends_with('\n'), "{out:?}");
    assert!(said.contains("0 of 1 answers are whole, and 1 end early"), "{said}");
}

#[test]
fn transcripts_say_that_they_were_stopped() {
    let mut child =
        pearl(&["generate", "--model", "tests/fixtures/qwen3", "--prompt", "how", "--max-tokens", "1000000"])
            .args(["--json", "--seed", "5"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    // Some tokens in.
    std::thread::sleep(Duration::from_millis(1500));
    interrupt(&child);
    assert_eq!(end(&mut child, 4.0), Some(130));
    let (out, said) = rest(&mut child);
    let line: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out:?} {said}"));
    assert_eq!(line["finish"], "stopped");
    assert!(!line["tokens"].as_array().unwrap().is_empty());
    assert_eq!((&line["seed"], &line["plan"]), (&5.into(), &serde_json::Value::Null));
    assert!(line["model"].as_str().unwrap().ends_with("qwen3"), "{line}");
}

#[test]
fn any_command_ends_within_seconds_and_claims_nothing_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.safetensors").display().to_string();
    // Training has no safe place to stop at for a long time.
    let mut child = pearl(&["organism", "train", "--out", &out])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(800));
    interrupt(&child);
    assert_eq!(end(&mut child, 5.0), Some(130));
    let (_, said) = rest(&mut child);
    assert!(said.contains("pearl: stopped") && !said.contains("kept"), "{said}");
}

#[test]
fn an_extraction_says_which_shards_it_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl").display().to_string();
    assert!(pearl(&["organism", "sample", "--count", "60000", "--out", &data]).status().unwrap().success());
    let store = folder.path().join("store");
    let arguments = ["extract", "--data", &data, "--sites", "all", "--tokens", "all", "--out"];
    let mut child = pearl(&arguments).arg(&store).stderr(Stdio::piped()).spawn().unwrap();
    let shards = || {
        let files =
            std::fs::read_dir(&store).map(|files| files.flatten().collect::<Vec<_>>()).unwrap_or_default();
        let name = |file: &std::fs::DirEntry| file.file_name().to_string_lossy().into_owned();
        files
            .iter()
            .filter(|file| name(file).starts_with("shard-") && name(file).ends_with(".safetensors"))
            .count()
    };
    let begin = Instant::now();
    while shards() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&child);
    assert_eq!(end(&mut child, 5.0), Some(130));
    let said = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(said.contains("finished shards in") && said.contains("the same command resumes"), "{said}");
}
