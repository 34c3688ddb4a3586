//! A sweep as users run it: what it leaves behind, that it gives the same numbers again, and what it says of bad input.

use std::path::Path;

use crate::cli::{one_line, pearl};

const SWEEP: &str = r#"
name = "small"
seed = 5
thinking = true
max-tokens = 40
tokens = "assistant.start"
sites = "4.resid_post"
strengths = ["0.5n", "1n"]

[data]
sample = 700
exclude = { canary = "asked" }
group = "topic"
validation = ["biodiversity", "music", "public-order"]
held-out = ["cybersecurity", "healthcare", "travel"]

[goal]
label = "user-type"
class = "sensitive"
strategy = "guide"

[guard]
class = "benign"
dialogues = 20
max-kl = 10.0
max-perplexity = 100.0
max-repetition = 1.0

[vector]
from = "refuse"
to = "guide"

[[probe]]
name = "user"
label = "user-type"
order = ["benign", "sensitive", "malicious"]

[[arm]]
name = "add"
change = { tokens = "assistant.start" }

[[arm]]
name = "conditional"
change = { tokens = "assistant.start", when = "probe user:sensitive > 0.5" }

[[arm]]
name = "random"
control = "random"
draws = 20
change = { tokens = "assistant.start" }

[[arm]]
name = "shuffled"
control = "shuffled"
draws = 4
change = { tokens = "assistant.start" }
"#;

fn run(folder: &Path, name: &str) -> serde_json::Value {
    std::fs::write(folder.join("sweep.toml"), SWEEP).unwrap();
    let (file, out) = (folder.join("sweep.toml"), folder.join(name));
    let [file, out] = [file, out].map(|path| path.display().to_string());
    let output = pearl(&["sweep", &file, "--out", &out, "--json", "--quiet"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_sweep_leaves_its_numbers_plots_and_page_and_gives_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let results = run(folder.path(), "one");
    assert_eq!(results, run(folder.path(), "two"));
    let out = folder.path().join("one");
    for name in
        ["results.json", "sweep.json", "sweep.toml", "report.html", "pareto.svg", "response-4.resid_post.png"]
    {
        assert!(out.join(name).is_file(), "{name}");
    }
    let figure = |name: &str| {
        let figures = results["figures"].as_array().unwrap();
        let found =
            figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        (found["value"].as_f64().unwrap(), found["split"].as_str().unwrap().to_string())
    };
    let (unsteered, split) = figure("sweep/unsteered/response");
    assert_eq!(split, "topic held out");
    assert!(figure("sweep/add/response").0 > unsteered + 0.3);
    assert_eq!(figure("sweep/unsteered/kl").0, 0.0);
    // Benign users are left alone where the probe says so, and a chance direction does no good.
    assert!(figure("sweep/conditional/kl").0 < 0.5 * figure("sweep/add/kl").0);
    assert!(figure("sweep/null/random/median").0 < figure("sweep/add/response").0 - 0.3);
    assert_eq!(figure("sweep/null/random/vector").0, figure("sweep/add/response").0);
    assert_eq!(figure("sweep/null/random/median").1, "topic held out, 20 directions");
    assert!((1.0 / 21.0..=1.0).contains(&figure("sweep/null/random/p").0));
    assert!(figure("sweep/null/shuffled-labels/most").0 >= figure("sweep/null/shuffled-labels/least").0);
    // An edit at one token, diluted over the answer, is all of it at the first.
    let [token, first, answer] =
        ["kl", "kl-first", "kl-answer"].map(|kl| figure(&format!("sweep/add/{kl}")).0);
    assert!(token < first && first <= answer, "{token} {first} {answer}");
    assert!(figure("sweep/unsteered/guard-kept").0 > 0.8);
    assert_eq!(figure("sweep/validation/add/4.resid_post/0.5n/response").1, "validation");

    // The vector of a file, with nothing to fit: no dialogue is needed for it, nor a token of it read.
    let [data, file, out] =
        ["data.jsonl", "file.toml", "three"].map(|name| folder.path().join(name).display().to_string());
    pearl(&["organism", "sample", "--count", "120", "--seed", "5", "--out", &data, "--quiet"])
        .assert()
        .success();
    let dialogues = std::fs::read_to_string(&data).unwrap();
    let halved = dialogues.lines().enumerate().map(|(number, line)| {
        let mut dialogue: serde_json::Value = serde_json::from_str(line).unwrap();
        dialogue["labels"]["topic"] = ["music", "travel"][number % 2].into();
        format!("{dialogue}\n")
    });
    std::fs::write(&data, halved.collect::<String>()).unwrap();
    let (head, _) = SWEEP.split_once("[[probe]]").unwrap();
    let arm = "[[arm]]\nname = \"add\"\nchange = { tokens = \"assistant.start\" }\n";
    let grid = head
        .replace("sample = 700\nexclude = { canary = \"asked\" }", &format!("file = {data:?}"))
        .replace("validation = [\"biodiversity\", \"music\", \"public-order\"]", "validation = [\"music\"]")
        .replace("held-out = [\"cybersecurity\", \"healthcare\", \"travel\"]", "held-out = [\"travel\"]")
        .replace(
            "from = \"refuse\"\nto = \"guide\"",
            &format!("file = {:?}", folder.path().join("one/vectors/sweep.safetensors")),
        )
        .replace("tokens = \"assistant.start\"", "tokens = \"mean(answer)\"");
    std::fs::write(&file, grid + arm).unwrap();
    let output = pearl(&["sweep", &file, "--out", &out, "--json", "--quiet"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = results["figures"].as_array().unwrap();
    let response = |name: &str| {
        let name = format!("sweep/{name}/response");
        figures.iter().find(|figure| figure["name"] == name).unwrap()["value"].as_f64().unwrap()
    };
    assert!(response("add") > response("unsteered") + 0.2);
}

#[test]
fn a_sweep_that_can_not_be_run_says_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sweep.toml").display().to_string();
    let out = folder.path().join("out").display().to_string();
    let with = |from: &str, to: &str, expected: &[&str]| {
        assert!(SWEEP.contains(from), "{from}");
        std::fs::write(&file, SWEEP.replace(from, to)).unwrap();
        one_line(&["sweep", &file, "--out", &out, "--quiet"], expected);
    };
    with("sites =", "sights =", &["sweep.toml:", "sights"]);
    with("strategy = \"guide\"", "", &["goal: no goal, or two"]);
    with("from = \"refuse\"\n", "", &["vector: no vector, or two"]);
    with("\"1n\"]", "\"NaN\"]", &["strength NaN"]);
    with("\"4.resid_post\"", "\"9.resid_post\"", &["9.resid_post"]);
    with("class = \"benign\"", "class = \"nobody\"", &["0 of the guard", "some of each"]);
    with("probe user:sensitive", "probe other:sensitive", &["other: No such file"]);
    one_line(&["sweep", "nowhere.toml", "--out", &out], &["nowhere.toml"]);
}

const MINE: &str = r#"
name = "mine"
seed = 2
[data]
sample = 240
group = "topic"
held-out-share = 0.3
[read]
sites = "3.resid_post"
tokens = "assistant.start"
[[probe]]
label = "user-type"
order = ["benign", "sensitive", "malicious"]
[boundary]
probe = "user-type"
from = "benign"
to = "malicious"
[dose]
probe = "user-type"
from = "malicious"
to = "benign"
strengths = ["0n", "0.6n"]
answers = 7
max-tokens = 20
"#;

/// The experiment of `experiments/my-model.toml`, on the embedded model: groups drawn by the seed, answers by strength.
#[test]
fn a_share_of_the_groups_is_held_out_and_answers_are_given_by_strength() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("mine.toml"), MINE).unwrap();
    let (file, out) = (at("mine.toml").display().to_string(), at("out").display().to_string());
    pearl(&["run", &file, "--out", &out]).assert().success();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(at("out").join(name)).unwrap()).unwrap()
    };
    let dose = read("dose.json");
    assert_eq!((&dose["site"], &dose["judge"]), (&"3.resid_post".into(), &"organism".into()));
    assert!(dose["doses"].as_array().unwrap().iter().all(|own| own["n"] == 7));
    // Strength 0 is the unsteered model; the shares of a strength sum to 1.
    for own in dose["doses"].as_array().unwrap() {
        let sum: f64 =
            own["shares"].as_array().unwrap().iter().map(|one| one["value"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9);
    }
    for name in
        ["vectors/malicious-to-benign.safetensors", "transcripts/dose-0.6n.jsonl", "doses.svg", "report.html"]
    {
        assert!(at("out").join(name).exists(), "{name}");
    }
    let (_, file_of_probe) =
        pearlpoint::artifact::TensorFile::open_kind(&at("out/probes/user-type.safetensors"), "probe", 1)
            .unwrap();
    let held_out: Vec<String> = serde_json::from_str(file_of_probe.string("held_out").unwrap()).unwrap();
    assert!(held_out.len() > 1, "{held_out:?}");
    // Answers are to dialogues of the topics held out.
    let labels: std::collections::BTreeMap<String, String> =
        std::fs::read_to_string(at("out/dialogues.jsonl"))
            .unwrap()
            .lines()
            .map(|line| {
                let one: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                (text(&one["id"]), text(&one["labels"]["topic"]))
            })
            .collect();
    for line in std::fs::read_to_string(at("out/transcripts/dose-0n.jsonl")).unwrap().lines() {
        let one: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(held_out.contains(&labels[one["id"].as_str().unwrap()]));
    }
    let again = pearl(&["run", &file, "--out", &out]).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing has changed"));
    for (from, to, expected) in [
        ("held-out-share = 0.3", "held-out-share = 1.5", "a share between 0 and 1"),
        ("held-out-share = 0.3", "held-out-share = 0.3\nheld-out = [\"travel\"]", "one of the two"),
        ("[\"0n\", \"0.6n\"]", "[]", "one or more"),
        ("[\"0n\", \"0.6n\"]", "[\"0n\", \"0n\"]", "0n twice"),
        ("[\"0n\", \"0.6n\"]", "[\"much\"]", "much"),
        ("from = \"malicious\"\nto = \"benign\"\nstr", "from = \"cruel\"\nto = \"benign\"\nstr", "cruel"),
    ] {
        std::fs::write(at("wrong.toml"), MINE.replace(from, to)).unwrap();
        let wrong = at("wrong.toml").display().to_string();
        let no = at("no").display().to_string();
        one_line(&["run", &wrong, "--out", &no], &[expected]);
    }
}
