//! Runs divided over several machines by `--shard I/N`: about as many tokens a part, and joined to the bytes of one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pearlpoint::activations::{Part, Request, StoreOptions, extract_to_store};
use pearlpoint::error::Error;
use pearlpoint::organism;
use serde_json::Value;

use super::cli::{one_line, pearl};

/// Dialogues of very different lengths: the first ones long, each with so many messages; then many short ones.
fn uneven(folder: &Path, long: usize, short: usize) -> String {
    let message =
        |role: &str| format!("{{\"role\":\"{role}\",\"content\":\"{}\"}}", "i see . ".repeat(30).trim());
    let line = |number: usize| {
        let rounds = if number < long { 2 } else { 0 };
        let before = format!("{},{},", message("user"), message("assistant")).repeat(rounds);
        format!(
            "{{\"id\":\"d{number}\",\"messages\":[{before}{{\"role\":\"user\",\"content\":\"my topic is music .\"}}],\"labels\":{{\"kind\":\"{}\"}}}}\n",
            number % 2
        )
    };
    let path = folder.join("data.jsonl");
    std::fs::write(&path, (0..long + short).map(line).collect::<String>()).unwrap();
    path.display().to_string()
}

/// Names and bytes of a folder's files.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), std::fs::read(path).unwrap()))
        .collect()
}

fn stdout(arguments: &[&str]) -> String {
    let output = pearl(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn parts_of_an_extraction_have_about_as_many_tokens_each() {
    let folder = tempfile::tempdir().unwrap();
    let data = uneven(folder.path(), 120, 640);
    let at = |name: &str| folder.path().join(name);
    let extract = |out: &Path, more: &[&str]| {
        let sites = "1.resid_post";
        stdout(
            &[&["extract", "--data", &data, "--sites", sites, "--out", text(out), "--quiet"], more].concat(),
        );
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
        manifest["tokens_read"].as_u64().unwrap() as f64
    };
    let tokens = extract(&at("whole"), &[]);
    let parts: Vec<PathBuf> = (1..=3).map(|number| at(&format!("part-{number}"))).collect();
    let own: Vec<f64> =
        (1..).zip(&parts).map(|(number, out)| extract(out, &["--shard", &format!("{number}/3")])).collect();
    assert_eq!(own.iter().sum::<f64>(), tokens);
    // No part is off its third by more than a shard of 2^14 tokens and the dialogue that filled it.
    assert!(own.iter().all(|own| (own - tokens / 3.0).abs() < 17_000.0), "{own:?} of {tokens}");
    let merged = at("merged");
    let all: Vec<&str> = parts.iter().map(|part| text(part)).collect();
    stdout(&[&["store", "merge"], &all[..], &["--out", text(&merged)]].concat());
    assert!(content(&merged) == content(&at("whole")));
}

#[test]
fn a_part_that_was_stopped_goes_on_with_its_own_shards() {
    let folder = tempfile::tempdir().unwrap();
    let data = uneven(folder.path(), 60, 500);
    let model = organism::model().unwrap();
    let request = Request::new(["1.resid_post".parse().unwrap()]);
    let part: Part = "2/2".parse().unwrap();
    let options = StoreOptions::default().part(Some(part));
    let extract = |out: &Path, last: usize| {
        let mut go = |progress: pearlpoint::activations::ExtractProgress| progress.dialogues < last;
        extract_to_store(out, &model, Path::new(&data), &request, &options, &mut go)
    };
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    extract(&whole, usize::MAX).unwrap();
    for last in [100, 200, 300, 400, 500] {
        assert!(matches!(extract(&stopped, last), Err(Error::Stopped)));
    }
    let resumed = extract(&stopped, usize::MAX).unwrap().resumed;
    assert!(resumed > 0);
    assert!(content(&stopped) == content(&whole));
}

#[test]
fn parts_assigned_in_another_way_are_not_joined() {
    let folder = tempfile::tempdir().unwrap();
    let data = uneven(folder.path(), 0, 200);
    let at = |name: &str| folder.path().join(name).display().to_string();
    for part in ["1/2", "2/2"] {
        let out = at(&part[..1]);
        stdout(&["extract", "--data", &data, "--sites", "embed", "--out", &out, "--shard", part, "--quiet"]);
    }
    // As an earlier version wrote it: shards in turn, and nothing said of it.
    let path = Path::new(&at("2")).join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("balanced_by");
    std::fs::write(&path, manifest.to_string()).unwrap();
    one_line(
        &["store", "merge", &at("1"), &at("2"), "--out", &at("whole")],
        &["another `balanced_by`: none"],
    );
    // Both as such, but with shards that don't make a run.
    let path = Path::new(&at("1")).join("manifest.json");
    let mut other: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    other.as_object_mut().unwrap().remove("balanced_by");
    (other["shards"], other["hashes"]) = (manifest["shards"].clone(), manifest["hashes"].clone());
    std::fs::write(&path, other.to_string()).unwrap();
    one_line(
        &["store", "merge", &at("1"), &at("2"), "--out", &at("whole")],
        &["as another part has", "each shard once"],
    );
}

#[test]
fn answers_and_verdicts_of_parts_are_those_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = uneven(folder.path(), 3, 11);
    let at = |name: &str| folder.path().join(name);
    // Sampled: a row has the random numbers of its place in the whole run.
    let words = ["generate", "--data", &data, "--json", "--seed", "4", "--max-tokens", "12", "--quiet"];
    let whole = stdout(&words);
    assert_eq!(whole.lines().count(), 14);
    let made: Vec<PathBuf> = (1..=4).map(|number| at(&format!("answers-{number}.jsonl"))).collect();
    for (number, path) in (1..).zip(&made) {
        let own = stdout(&[&words[..], &["--shard", &format!("{number}/4")]].concat());
        std::fs::write(path, own).unwrap();
    }
    // A long dialogue weighs as much as many short ones.
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    assert!(lines(&made[0]) < lines(&made[3]), "{} {}", lines(&made[0]), lines(&made[3]));
    let joined =
        stdout(&["merge", text(&made[2]), text(&made[0]), text(&made[3]), text(&made[1]), "--quiet"]);
    assert!(joined == whole);
    let missing = ["merge", text(&made[0]), text(&made[3])];
    one_line(&missing, &["missing of 14; no line of part 2/4, 3/4", "all rows of all 4 parts"]);

    let answers = at("answers.jsonl");
    stdout(&[
        "merge",
        text(&made[0]),
        text(&made[1]),
        text(&made[2]),
        text(&made[3]),
        "--out",
        text(&answers),
    ]);
    let words = ["judge", text(&answers), "--judge", "rules", "--json"];
    let whole = stdout(&words);
    let judged: Vec<PathBuf> = (1..=3).map(|number| at(&format!("verdicts-{number}.jsonl"))).collect();
    for (number, path) in (1..).zip(&judged) {
        std::fs::write(path, stdout(&[&words[..], &["--shard", &format!("{number}/3")]].concat())).unwrap();
    }
    let all: Vec<&str> = judged.iter().map(|path| text(path)).collect();
    assert!(stdout(&[&["merge"], &all[..]].concat()) == whole);
    one_line(
        &["judge", text(&made[1]), "--judge", "rules", "--json", "--shard", "1/2"],
        &["an answer of a part of a run", "`pearl merge` joins the parts"],
    );
    // More parts than dialogues: some are empty, and nothing is missing.
    let few = stdout(&[
        "generate",
        "--data",
        &data,
        "--limit",
        "2",
        "--json",
        "--greedy",
        "--max-tokens",
        "4",
        "--quiet",
    ]);
    let mut all = vec!["merge".to_owned()];
    for number in 1..=5 {
        let words = [
            "generate",
            "--data",
            &data,
            "--limit",
            "2",
            "--json",
            "--greedy",
            "--max-tokens",
            "4",
            "--quiet",
        ];
        let path = at(&format!("few-{number}"));
        std::fs::write(&path, stdout(&[&words[..], &["--shard", &format!("{number}/5")]].concat())).unwrap();
        all.push(text(&path).into());
    }
    assert_eq!(stdout(&all.iter().map(String::as_str).collect::<Vec<_>>()), few);
}

#[test]
fn rounds_of_parts_are_those_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let play = |out: &str, more: &[&str]| {
        let out = at(out);
        let words =
            ["rounds", "canary", "--dialogues", "4", "--rounds", "1,2", "--max-tokens", "16", "--out"];
        stdout(&[&words[..], &[text(&out), "--quiet"], more].concat());
    };
    play("whole", &[]);
    let parts: Vec<PathBuf> = (1..=3).map(|number| at(&format!("part-{number}"))).collect();
    for number in 1..=3 {
        play(&format!("part-{number}"), &["--shard", &format!("{number}/3")]);
        assert!(std::fs::read_dir(at(&format!("part-{number}/plays"))).unwrap().count() >= 2);
    }
    let merged = at("merged");
    one_line(
        &["rounds", "merge", text(&parts[0]), text(&parts[2]), "--out", text(&merged)],
        &["part 2/3 and the cells ", "are missing", "all 3 parts"],
    );
    assert!(!merged.exists());
    stdout(&["rounds", "merge", text(&parts[2]), text(&parts[0]), text(&parts[1]), "--out", text(&merged)]);
    // Nothing is played again: a play that is changed stays changed.
    assert!(content(&merged.join("plays")) == content(&at("whole/plays")));
    play("merged", &[]);
    for file in ["canary.json", "plays-agent.jsonl", "report.html"] {
        assert!(
            std::fs::read(merged.join(file)).unwrap() == std::fs::read(at("whole").join(file)).unwrap(),
            "{file}"
        );
    }
    let other = at("other");
    let words = ["rounds", "canary", "--dialogues", "5", "--rounds", "1,2", "--out", text(&parts[0])];
    one_line(&words, &["experiment.toml: another experiment or model"]);
    one_line(&["rounds", "merge", text(&merged), "--out", text(&other)], &["part.json"]);
}
