//! What users bring and attackers send to the program: names, texts and files that reach for the terminal, for other files,
//! or for more time and memory than they are worth.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cli::{one_line, pearl};

fn at(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn lines(folder: &tempfile::TempDir, name: &str, records: &[serde_json::Value]) -> String {
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(folder.path().join(name), text).unwrap();
    at(folder, name)
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

const CONTROLS: [char; 8] = ['\u{1b}', '\u{7}', '\r', '\u{9b}', '\u{9d}', '\u{202e}', '\u{2066}', '\u{7f}'];

#[test]
fn nothing_of_a_file_commands_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = "a\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\r\u{202e}\u{2066}\u{7f}z";
    let name = format!("{hostile}\n{}", "n".repeat(10_000));
    let record = serde_json::json!({"id": name, "prompt": format!("i see {hostile} ."), "level": name});
    let data = lines(&folder, "d.jsonl", &[record.clone(), record]);
    let odd = lines(&folder, "odd\u{1b}[31m\n\u{9b}.jsonl", &[serde_json::json!({"words": 1})]);
    let long = "x".repeat(3000);
    let vector = folder.path().join("v.safetensors").display().to_string();
    let cases: Vec<Vec<&str>> = vec![
        vec!["tokens", "--data", &data],
        vec!["tokens", "--data", &data, "--brief"],
        vec!["generate", "--data", &data, "--max-tokens", "2"],
        vec!["generate", "--prompt", &name, "--max-tokens", "2", "--stream"],
        vec!["tokens", "--data", &odd],
        vec!["tokens", "--data", &data, "--where", "level=\u{1b}[31m"],
        vec!["tokens", "--data", &data, "--map", "prompt=\u{1b}[31m\u{9b}"],
        vec!["tokens", "--data", &data, "--tokens", hostile],
        vec!["tokens", "--prompt", "a", "--model", &name],
        vec!["inspect", hostile],
        vec!["generate", "--prompt", "a", "--vector", &name],
        vec!["generate", "--prompt", "a", hostile],
        vec!["generate", "--prompt", "a", "--seed", &name],
        vec!["run", hostile, "--out", &vector],
        vec!["run", &long, "--out", &vector],
    ];
    for arguments in cases {
        let output = pearl(&arguments).output().unwrap();
        let (said, printed) =
            (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
        for text in [&said, &printed] {
            assert!(!text.contains(CONTROLS), "{arguments:?}: {text:?}");
        }
        if !output.status.success() {
            assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{arguments:?}: {said}");
        }
        assert!(said.lines().all(|line| line.chars().count() < 4100), "{arguments:?}: {} bytes", said.len());
    }
    // JSON is exact: a program reads it.
    let output = pearl(&["tokens", "--data", &data, "--limit", "1", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["id"], serde_json::json!(name));
}

#[test]
fn a_full_or_closed_output_is_no_panic() {
    let to = |path: &str| Stdio::from(std::fs::OpenOptions::new().write(true).open(path).unwrap());
    let run = |arguments: &[&str], out: Stdio, err: Stdio| {
        let program = assert_cmd::cargo::cargo_bin("pearl");
        let mut child = Command::new(program).args(arguments).stdout(out).stderr(err).spawn().unwrap();
        child.wait().unwrap().code()
    };
    let full = || to("/dev/full");
    let generate = ["generate", "--prompt", "i see .", "--max-tokens", "2"];
    assert_eq!(run(&generate, Stdio::null(), full()), Some(0));
    assert_eq!(run(&["generate", "--promt", "x"], Stdio::null(), full()), Some(2));
    assert_eq!(run(&["inspect", "no/such"], Stdio::null(), full()), Some(2));
    for arguments in
        [&generate[..], &["inspect", "organism"], &["--help"], &["organism", "sample", "--count", "2"]]
    {
        assert_eq!(run(arguments, full(), Stdio::null()), Some(2), "{arguments:?}");
        assert_eq!(run(arguments, full(), full()), Some(2), "{arguments:?}");
    }
    let streamed = [&generate[..], &["--stream"]].concat();
    assert_eq!(run(&streamed, full(), Stdio::null()), Some(2));
    // A reader that closes the pipe early is no error.
    for arguments in [&["inspect", "organism"][..], &streamed, &["--help"]] {
        let program = assert_cmd::cargo::cargo_bin("pearl");
        let mut command = Command::new(program);
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8(output.stderr).unwrap().contains("panic")),
            (Some(0), false)
        );
    }
}

#[test]
fn an_experiment_writes_in_its_folder_whatever_its_labels_are() {
    let folder = tempfile::tempdir().unwrap();
    // The organism's dialogues, with a label for each hostile name.
    let sample = at(&folder, "sample.jsonl");
    pearl(&["organism", "sample", "--count", "120", "--out", &sample]).assert().success();
    let names = ["../../escaped", "/tmp/pearl-escaped", "x\u{1b}\n\\", "kind+level"];
    let text = std::fs::read_to_string(&sample).unwrap();
    let mut records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &mut records {
        let labels = record["labels"].as_object_mut().unwrap();
        let value = labels["user-type"].clone();
        for name in names {
            labels.insert(name.into(), value.clone());
        }
    }
    let data = lines(&folder, "d.jsonl", &records);
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let mut experiment = format!(
        "name = {}\n[data]\nfile = {}\ngroup = \"topic\"\nheld-out = [\"travel\", \"music\"]\n[read]\nsites = \"3.resid_post\"\n\
         tokens = \"assistant.start\"\n",
        quoted("../../named"),
        quoted(&data)
    );
    for name in names {
        experiment += &format!("[[probe]]\nlabel = {}\n", quoted(name));
    }
    experiment +=
        &format!("[[cross_validation]]\nname = \"../../c\"\nlabel = {}\nfolds = 2\n", quoted(names[0]));
    let file = at(&folder, "e.toml");
    std::fs::write(&file, &experiment).unwrap();
    let deep = folder.path().join("deep/deeper");
    std::fs::create_dir_all(&deep).unwrap();
    let out = deep.join("out");
    let before = files(folder.path());
    pearl(&["run", &file, "--out", out.to_str().unwrap(), "--quiet"]).assert().success();
    let written: Vec<PathBuf> =
        files(folder.path()).into_iter().filter(|path| !before.contains(path)).collect();
    assert!(written.iter().all(|path| path.starts_with(&out)), "{written:?}");
    assert!(!Path::new("/tmp/pearl-escaped.safetensors").exists());
    let in_folder = |name: &str| files(&out.join(name)).len();
    assert_eq!((in_folder("probes"), in_folder("folds")), (names.len(), 1));
    assert!(out.join("probes/kind+level.safetensors").exists());
    assert!(out.join("probes/%2E.%2F..%2Fescaped.safetensors").exists());

    let twice = format!("{experiment}[[probe]]\nlabel = \"kind+level\"\ntokens = \"last\"\n");
    std::fs::write(&file, twice).unwrap();
    let second = deep.join("second");
    one_line(
        &["run", &file, "--out", second.to_str().unwrap(), "--quiet"],
        &["probe kind+level: the same file as probe kind+level", "a file each"],
    );
    assert!(!second.exists());
}

#[test]
fn a_store_names_no_file_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = lines(
        &folder,
        "d.jsonl",
        &[serde_json::json!({"prompt": "i see ."}), serde_json::json!({"prompt": "i ."})],
    );
    for part in ["1", "2"] {
        let out = at(&folder, part);
        pearl(&["extract", "--data", &data, "--out", &out, "--shard", &format!("{part}/2"), "--quiet"])
            .assert()
            .success();
    }
    let path = folder.path().join("1/manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let secret = folder.path().join("shard-secret.safetensors");
    std::fs::write(&secret, "mine").unwrap();
    for name in [
        "../shard-secret.safetensors",
        "shard-00000/../../shard-secret.safetensors",
        "/etc/passwd",
        "manifest.json",
    ] {
        std::fs::write(&path, text.replace("shard-00000.safetensors", name)).unwrap();
        let [one, two, out] = ["1", "2", "whole"].map(|name| at(&folder, name));
        one_line(
            &["store", "merge", &one, &two, "--out", &out],
            &["the shard ", "the name of a file beside it"],
        );
        assert!(!Path::new(&out).exists());
    }
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "mine");
}

fn gzip(bytes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bytes.for_each(|chunk| encoder.write_all(&chunk).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn a_little_that_unpacks_to_nothing_costs_little() {
    let folder = tempfile::tempdir().unwrap();
    let repeated = |text: &str, mebibytes: usize| {
        let chunk = text.repeat((1 << 20) / text.len());
        gzip((0..mebibytes).map(|_| chunk.clone().into_bytes()))
    };
    for (name, bytes, expected) in [
        ("n.jsonl.gz", repeated("\n", 600), "more than 16 MiB of blank lines; expected a record"),
        ("n.json.gz", repeated("\n", 600), "more than 16 MiB of blank lines"),
        ("n.csv.gz", repeated("\n", 600), "more than 16 MiB without a record"),
        ("n.tsv.gz", repeated(" \t\r\n", 600), ""),
        ("s.jsonl.gz", repeated(" ", 600), "a line of more than 256 MiB"),
        ("l.json.gz", repeated("[", 600), ""),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let begin = Instant::now();
        one_line(&["tokens", "--data", path.to_str().unwrap(), "--skip-bad"], &[name, expected]);
        assert!(begin.elapsed() < Duration::from_secs(30), "{name}: {:?}", begin.elapsed());
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (name, target) in
        [("zero.jsonl", "/dev/zero"), ("zero.csv", "/dev/zero"), ("random.json.gz", "/dev/urandom")]
    {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink(target, &path).unwrap();
        one_line(
            &["tokens", "--data", path.to_str().unwrap()],
            &[name, "a pipe or a device; expected a file of dialogues"],
        );
    }
    std::fs::create_dir(folder.path().join("folder.jsonl")).unwrap();
    one_line(
        &["tokens", "--data", &at(&folder, "folder.jsonl")],
        &["folder.jsonl: a folder; expected a file"],
    );
    let pipe = at(&folder, "pipe.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    one_line(&["extract", "--data", &pipe, "--out", &at(&folder, "s")], &["pipe.jsonl: a pipe or a device"]);
    one_line(&["run", "/dev/zero", "--out", &at(&folder, "r")], &["/dev/zero: a pipe or a device"]);
    one_line(&["generate", "--prompt", "a", "--plan", "/dev/zero"], &["/dev/zero: a pipe or a device"]);
    // Nobody writes to the pipe: it is not waited for.
    for arguments in [
        &["run", &pipe, "--out", &at(&folder, "r")][..],
        &["game", "solve", &pipe],
        &["generate", "--prompt", "a", "--plan", &pipe],
    ] {
        one_line(
            arguments,
            &["pipe.jsonl: a pipe that nobody has written to for 1 s; expected a file of settings"],
        );
    }
}

#[cfg(unix)]
#[test]
fn an_output_that_is_a_pipe_or_a_folder_stays_one() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let (pipe, inner, link, page) =
        (at(&folder, "pipe"), at(&folder, "inner"), at(&folder, "link.html"), at(&folder, "page.html"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(&inner).unwrap();
    for (out, found) in [(&pipe, "pipe: a pipe or a device"), (&inner, "inner: a folder")] {
        one_line(&["organism", "sample", "--count", "2", "--out", out], &[found, "expected a file"]);
        let rows = "tests/fixtures/vectors/rows.npy";
        one_line(&["vector", "import", rows, "--point", "mlp_out", "--out", out], &[found]);
    }
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    std::fs::write(&page, "old").unwrap();
    std::os::unix::fs::symlink("page.html", &link).unwrap();
    pearl(&["organism", "sample", "--count", "2", "--out", &link]).assert().success();
    assert!(Path::new(&link).is_symlink() && !Path::new(&page).is_symlink());
    assert_eq!(std::fs::read_to_string(&page).unwrap().lines().count(), 2);
}

#[test]
fn a_count_beyond_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (out, many) = (at(&folder, "out"), "99999999999999");
    for arguments in [
        &["organism", "sample", "--count", many, "--out", &out][..],
        &["organism", "pairs", "--contrast", "deed", "--count", many, "--out", &out],
        &["organism", "check", "--count", many],
    ] {
        one_line(arguments, &["--count: 99999999999999", "expected 1,000,000 at most"]);
    }
    let whole = std::fs::read_to_string("experiments/boundary.toml").unwrap();
    let sample = whole.lines().find(|line| line.starts_with("sample = ")).unwrap();
    let file = at(&folder, "e.toml");
    std::fs::write(&file, whole.replacen(sample, &format!("sample = {many}"), 1)).unwrap();
    one_line(&["run", &file, "--out", &out], &["e.toml, data, sample: 99999999999999"]);
    let (head, tail) = whole.split_once("[[interpolation").unwrap();
    let line = tail.lines().find(|line| line.starts_with("sample = ")).unwrap();
    let tail = tail.replacen(line, &format!("sample = {many}"), 1);
    std::fs::write(&file, format!("{head}[[interpolation{tail}")).unwrap();
    one_line(&["run", &file, "--out", &out], &["e.toml, interpolation ", "sample: 99999999999999"]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_newline_of_a_manifest_begins_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let (data, store) = (at(&folder, "d.jsonl"), at(&folder, "s"));
    pearl(&["organism", "sample", "--count", "2", "--out", &data]).assert().success();
    pearl(&[
        "extract",
        "--data",
        &data,
        "--out",
        &store,
        "--sites",
        "3.resid_post",
        "--tokens",
        "assistant.start",
    ])
    .assert()
    .success();
    let lines = || {
        let output = pearl(&["store", "info", &store]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    let before = lines();
    let path = Path::new(&store).join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for key in ["dataset", "model"] {
        assert!(manifest[key].is_string());
        manifest[key] = "a\nrows       9 in 9 shards".into();
    }
    std::fs::write(&path, manifest.to_string()).unwrap();
    assert_eq!(lines(), before);
}

#[test]
fn twenty_thousand_messages_are_counted_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let role = |turn: usize| ["user", "assistant"][turn % 2];
    let messages = |count: usize, content: &dyn Fn(usize) -> String| {
        let one = |turn: usize| serde_json::json!({"role": role(turn), "content": content(turn)});
        serde_json::json!({"messages": (0..count).map(one).collect::<Vec<_>>()})
    };
    let template = at(&folder, "trim.jinja");
    let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    std::fs::write(&template, source).unwrap();
    let plain = lines(&folder, "plain.jsonl", &[messages(20_001, &|turn| format!("help me {turn}"))]);
    let spaced = lines(&folder, "spaced.jsonl", &[messages(20_001, &|turn| format!(" <think> a{turn}\n"))]);
    let small = ["--model", "tests/fixtures/qwen3", "--chat-template", &template];
    for arguments in [
        vec!["tokens", "--json", "--data", &plain],
        [&["tokens", "--json", "--data", &plain][..], &small[..]].concat(),
        [&["tokens", "--json", "--data", &spaced][..], &small[..]].concat(),
    ] {
        let begin = Instant::now();
        one_line(&arguments, &["dialogue 0: ", " tokens; expected at most ", "--too-long skip"]);
        assert!(begin.elapsed() < Duration::from_secs(120), "{arguments:?}: {:?}", begin.elapsed());
    }
}

/// Two runs write to one folder: the second is refused, and the first is not disturbed.
#[test]
fn two_runs_in_one_folder_are_locked_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = lines(&folder, "d.jsonl", &[serde_json::json!({"prompt": "i see ."})]);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let held = pearlpoint::artifact::FolderLock::take(&out).unwrap();
    let out = out.to_str().unwrap();
    let locked = ["out: another run is writing to it; expected a folder of its own for each run"];
    one_line(&["extract", "--data", &data, "--out", out], &locked);
    one_line(&["run", "experiments/demo.toml", "--out", out, "--force"], &locked);
    one_line(&["steer-sweep", "experiments/steering.toml", "--out", out], &locked);
    one_line(
        &["boundary", "token-map", "--prompt", "a", "--probe", "p", "--class", "c", "--out", out],
        &locked,
    );
    one_line(&["organism", "train", "--out", out], &locked);
    drop(held);
    pearl(&["extract", "--data", &data, "--out", out]).assert().success();
}

#[test]
fn what_a_killed_run_left_beside_a_vector_goes_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".pearl-a1B2c3");
    std::fs::write(&left, "half a vector").unwrap();
    let out = at(&folder, "answer.jsonl");
    pearl(&["organism", "sample", "--count", "2", "--out", &out]).assert().success();
    assert!(!left.exists() && Path::new(&out).exists());
}

#[test]
fn every_record_that_is_left_out_has_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.jsonl");
    let nan = "{\"prompt\":\"a\",\"labels\":{\"x\":NaN}}";
    let odd = "{\"messages\":[{\"role\":\"judge\",\"content\":\"a\"}]}";
    let text = format!("{{\"prompt\":\"i see .\"}}\noops\n{nan}\n{odd}\n{{\"prompt\":\"\"}}\n[1]\n");
    std::fs::write(&path, &text).unwrap();
    let data = path.to_str().unwrap();
    for arguments in [
        vec!["tokens", "--data", data, "--skip-bad"],
        vec!["generate", "--data", data, "--skip-bad", "--max-tokens", "1"],
        vec!["extract", "--data", data, "--skip-bad", "--out"],
    ] {
        let out = at(&folder, "out");
        let arguments =
            if arguments.last() == Some(&"--out") { [arguments, vec![&out]].concat() } else { arguments };
        let output = pearl(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        for part in [
            "left out: ",
            ":2: invalid JSON at column 1",
            ":3: NaN at column ",
            ":4: role `judge` of message 0",
            ":5: empty text in `prompt`",
            ":6: a list; expected an object",
            "5 bad records were left out",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
    std::fs::write(&path, "oops\n".repeat(20)).unwrap();
    one_line(
        &["tokens", "--data", data, "--skip-bad"],
        &["none of the 20 records could be read", "the first: ", ":1: invalid JSON at column 1"],
    );
    std::fs::write(&path, format!("{}{{\"prompt\":\"i .\"}}\n", "oops\n".repeat(20))).unwrap();
    let output = pearl(&["tokens", "--data", data, "--skip-bad", "--brief"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("left out: 12 more") && said.contains("20 bad records were left out"), "{said}");
}

#[test]
fn texts_that_begin_with_a_dash_are_taken_as_they_are() {
    let output = pearl(&["tokens", "--prompt", "- rest", "--json"]).output().unwrap();
    assert!(output.status.success());
    let with_equals = pearl(&["tokens", "--prompt=- rest", "--json"]).output().unwrap();
    assert_eq!(output.stdout, with_equals.stdout);
    pearl(&["generate", "--prompt", "hi", "--stop", "---", "--max-tokens", "2"]).assert().success();
    one_line(
        &["generate", "--prompt", "--data", "d.jsonl"],
        &["a value is required for '--prompt', and '--data' is an option"],
    );
    let [named, plain] =
        [&["inspect", "--model", "organism"][..], &["inspect", "organism"]].map(|arguments| {
            let output = pearl(arguments).output().unwrap();
            assert!(output.status.success());
            output.stdout
        });
    assert_eq!(named, plain);
}

#[test]
fn levels_without_an_order_are_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let sample = at(&folder, "sample.jsonl");
    pearl(&["organism", "sample", "--count", "120", "--out", &sample]).assert().success();
    let text = std::fs::read_to_string(&sample).unwrap();
    let mut records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &mut records {
        let level = record["labels"]["risk-level"].as_str().unwrap();
        let number =
            [("R0", "2"), ("R1", "9"), ("R2", "10")].iter().find(|(name, _)| *name == level).unwrap().1;
        record["labels"]["n"] = number.into();
    }
    let data = lines(&folder, "d.jsonl", &records);
    let (store, out) = (at(&folder, "s"), at(&folder, "p.safetensors"));
    let extract =
        ["extract", "--data", &data, "--out", &store, "--sites", "3.resid_post", "--quiet", "--tokens"];
    pearl(&[&extract[..], &["assistant.start"]].concat()).assert().success();
    let fit =
        ["probe", "fit", "--store", &store, "--data", &data, "--kind", "ordinal", "--out", &out, "--label"];
    one_line(
        &[&fit[..], &["risk-level"]].concat(),
        &["the level \"R0\", which is no decimal number", "--order", "R0, R1, R2, the lowest first"],
    );
    pearl(&[&fit[..], &["risk-level", "--order", "R0,R1,R2"]].concat()).assert().success();
    // 2, 9, 10 in their order and not in that of their digits.
    pearl(&[&fit[..], &["n"]].concat()).assert().success();
    let probe = pearlpoint::probe::Probe::load(Path::new(&out)).unwrap();
    assert_eq!(probe.classes, ["2", "9", "10"]);
}

#[cfg(unix)]
#[test]
fn settings_come_from_a_pipe_and_a_pipe_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shell = |command: &str| {
        let program = assert_cmd::cargo::cargo_bin("pearl").display().to_string();
        let mut bash = Command::new("bash");
        bash.current_dir(folder.path()).args(["-c", command]).env("PEARL", program);
        let output = bash.output().unwrap();
        let [out, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), out, said)
    };
    let generate = r#""$PEARL" generate --prompt "i see ." --max-tokens 2 --plan"#;
    let plain = shell(&format!("{generate} <(sleep 2; echo 'intervention = []')"));
    assert_eq!((plain.0, plain.2.as_str()), (Some(0), ""), "{plain:?}");
    std::fs::write(folder.path().join("plan.toml"), "intervention = []").unwrap();
    assert_eq!(shell(&format!("{generate} plan.toml")), plain);
    assert_eq!(shell(&format!("cat plan.toml | {generate} /dev/stdin")), plain);
    for (command, expected) in [
        (format!("{generate} <(cat /dev/zero)"), "a pipe with more than 16 MiB; expected a file of settings"),
        (format!("{generate} <(true)"), "a pipe that nobody has written to"),
        (format!("{generate} <(echo 'strength = 1')"), ":1: "),
        (r#""$PEARL" game solve <(head -c 20M /dev/zero)"#.into(), "a pipe with more than 16 MiB"),
    ] {
        let begin = Instant::now();
        let (code, out, said) = shell(&command);
        assert_eq!((code, out.as_str(), said.lines().count()), (Some(2), "", 1), "{command}: {said}");
        assert!(said.contains(expected), "{command}: {said}");
        assert!(begin.elapsed() < Duration::from_secs(30), "{command}: {:?}", begin.elapsed());
    }
}

#[cfg(unix)]
#[test]
fn a_stream_ends_with_its_reader() {
    use std::io::Read;
    let program = assert_cmd::cargo::cargo_bin("pearl");
    // More tokens than any test would wait for; the answer goes on where none is an end.
    let arguments = ["generate", "--prompt", "help", "--stream", "--max-tokens", "1000000", "--model"];
    let mut command = Command::new(program);
    command.args(arguments).arg("tests/fixtures/qwen3").stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 3]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn a_missing_file_says_what_was_expected_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = lines(&folder, "d.jsonl", &[serde_json::json!({"prompt": "i see ."})]);
    let (none, out) = (at(&folder, "none"), at(&folder, "out"));
    let [jsonl, toml, probe] = ["none.jsonl", "none.toml", "none.safetensors"].map(|name| at(&folder, name));
    let vector = format!("{probe}:1@3.resid_post");
    let states = ["--store", &none, "--data", &data];
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["tokens", "--data", &jsonl], "a file of dialogues"),
        (vec!["extract", "--data", &jsonl, "--out", &out], "a file of dialogues"),
        (vec!["generate", "--prompt", "a", "--plan", &toml], "a file of settings"),
        (vec!["run", &toml, "--out", &out], "a file of settings"),
        (vec!["steer-sweep", &toml, "--out", &out], "a file of settings"),
        (vec!["game", "solve", &toml], "a file of settings"),
        (vec!["generate", "--prompt", "a", "--vector", &vector], "a file of kind vector"),
        (vec!["vector", "info", &probe], "a file of kind vector"),
        (vec!["vector", "import", &probe, "--out", &out], "a GGUF control vector"),
        ([&["probe", "score", &probe][..], &states].concat(), "a file of kind probe"),
        (vec!["probe", "cosines", &probe, &probe], "a file of kind probe"),
        (
            vec!["boundary", "token-map", "--prompt", "a", "--class", "c", "--out", &out, "--probe", &probe],
            "a file of kind probe",
        ),
        ([&["probe", "fit", "--label", "a", "--out", &out][..], &states].concat(), "a store, the folder"),
        (vec!["store", "info", &none], "a store, the folder"),
        (vec!["store", "check", &none], "a store, the folder"),
        (vec!["store", "merge", &none, "--out", &out], "a store, the folder"),
        (vec!["plot", &none], "a folder with charts"),
        (vec!["judge", &jsonl], "a file of dialogues"),
        (vec!["generate", "--prompt", "a", "--chat-template", &none], "a chat template"),
        (vec!["inspect", &none], "a checkpoint folder"),
    ];
    for (arguments, expected) in cases {
        let output = pearl(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{arguments:?}: {said}");
        let (found, right) =
            said.split_once("; expected ").unwrap_or_else(|| panic!("{arguments:?}: {said}"));
        assert!(right.starts_with(expected) && found.contains("none"), "{arguments:?}: {said}");
        assert!(!said.contains("os error") && output.stdout.is_empty(), "{arguments:?}: {said}");
        assert!(!Path::new(&out).exists(), "{arguments:?}");
    }
}

#[test]
fn a_number_or_a_day_that_is_none_says_which_would_be() {
    for (arguments, expected) in [
        (
            ["--max-tokens", "-1"],
            "'-1' for '--max-tokens <MAX_TOKENS>': not a whole number from 0; expected one",
        ),
        (["--max-tokens", "1.5"], "not a whole number from 0; expected one"),
        (["--max-tokens", ""], "expected"),
        (["--seed", "99999999999999999999999"], "too large; expected a smaller whole number"),
        (["--temperature", "x"], "not a number; expected one, such as 0.5"),
        (["--date", "2024-02-30"], "the day 30; expected one from 01 to 29, as February 2024 has"),
        (["--date", "-2024-01-01"], "not a day; expected YYYY-MM-DD"),
        (["--date", "0000-01-01"], "the year 0; expected one from 1000 to 9999"),
    ] {
        one_line(&[&["generate", "--prompt", "a"][..], &arguments].concat(), &[expected]);
    }
}

#[test]
fn nothing_is_printed_before_a_fault_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|id| serde_json::json!({"id": id, "prompt": "i see ."}).to_string());
    for (name, text, expected) in [
        ("end.json", format!("[{a}]\n{b}"), "line 2: `{` after the list; expected the end of the file"),
        ("word.json", format!("[{a},{b}] x"), "`x` after the list"),
        ("comma.json", format!("[{a},{b},]"), "a comma before ]; expected an element after it, or no comma"),
        ("cut.json", format!("[{a},{b}"), "the file ends within a list; expected ]"),
        ("line.jsonl", format!("{a}\n{b}\noops\n"), "line.jsonl:3: invalid JSON"),
        ("two.jsonl", format!("{a}\n{b}{b}\n"), "two.jsonl:2: a value at column 30, after the record's end"),
        ("row.csv", "id,prompt\n1,i\n2\n".into(), "row.csv:3"),
        ("id.csv", "id,prompt\n1,i\n1,see\n".into(), "id.csv:3: the id `1`, which line 2 has too"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
        let path = at(&folder, name);
        // Nothing on stdout: `one_line` looks.
        one_line(&["tokens", "--brief", "--data", &path], &[expected]);
        one_line(&["generate", "--max-tokens", "1", "--data", &path], &[expected]);
        one_line(&["extract", "--out", &at(&folder, "out"), "--data", &path], &[expected]);
        assert!(!folder.path().join("out").exists());
    }
}

#[test]
fn ids_are_told_apart_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(&folder, "d.jsonl");
    let write = |records: &[&str]| {
        let lines: String =
            records.iter().map(|fields| format!("{{{fields},\"prompt\":\"i see .\"}}\n")).collect();
        std::fs::write(&path, lines).unwrap();
    };
    let ids = |records: &[&str]| {
        write(records);
        let read = pearlpoint::dialogue::Dialogues::read(&path).unwrap();
        read.dialogues.iter().map(|dialogue| dialogue.id.clone()).collect::<Vec<_>>().join(" ")
    };
    // Two integers of 23 digits that are one double, and others of which a double holds no digit more.
    let long = [
        r#""id":12345678901234567890123"#,
        r#""id":12345678901234567890124"#,
        r#""id":-12345678901234567890123"#,
    ];
    assert_eq!(ids(&long), "12345678901234567890123 12345678901234567890124 -12345678901234567890123");
    assert_eq!(
        ids(&[r#""id":1"#, r#""id":"01""#, r#""id":1.5"#, r#""id":null"#, r#""id":"""#]),
        "1 01 1.5 3 4"
    );
    let label = r#""id":1,"labels":{"user":12345678901234567890123,"users":[12345678901234567890124]}"#;
    write(&[label]);
    let read = pearlpoint::dialogue::Dialogues::read(&path).unwrap();
    let label = |name: &str| read.dialogues[0].label(name).unwrap();
    assert_eq!(
        (label("user"), label("users")),
        ("12345678901234567890123".into(), "12345678901234567890124".into())
    );
    for (records, expected) in [
        (
            &[r#""id":1"#, r#""id":"1""#][..],
            ":2: the id `1`, which line 1 has too; expected ids that differ, also as text",
        ),
        (&[r#""id":"a""#, r#""id":"b""#, r#""id":"a""#], ":3: the id `a`, which line 1 has too"),
        (&[r#""id":"1""#, r#""x":1"#], ":2: the id `1`, which line 1 has too"),
        (&[r#""x":1"#, r#""id":0"#], ":2: the id `0`, which line 1 has too"),
        (&[long[0], long[0]], ":2: the id `12345678901234567890123`, which line 1 has too"),
        (&[r#""id":[1]"#], ":1: a list in `id`; expected text or a number"),
        (&[r#""id":true"#], ":1: a boolean in `id`; expected text or a number"),
    ] {
        write(records);
        one_line(&["tokens", "--data", &path], &[expected]);
    }
    // The elements of a list are named by number; a filter leaves out what would collide.
    let list = at(&folder, "d.json");
    std::fs::write(&list, r#"[{"id":1,"prompt":"i","part":"a"},{"id":1,"prompt":"see","part":"b"}]"#)
        .unwrap();
    one_line(&["tokens", "--data", &list], &["d.json:1 (element 2): the id `1`, which element 1 has too"]);
    pearl(&["tokens", "--data", &list, "--where", "part=b"]).assert().success();
    let output = pearl(&["tokens", "--brief", "--skip-bad", "--data", &list]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("left out: ") && said.contains("the id `1`"), "{said}");
}
