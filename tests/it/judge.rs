//! Judges on another model than the organism: steering, a steering grid and a probe card by refusal phrases, end to end.

use std::path::Path;

use crate::cli::{one_line, pearl};

/// A small checkpoint with a chat template and random weights; its answers are random text, in which a common letter takes
/// the place of a refusal phrase.
const MODEL: &str = "tests/fixtures/qwen3";

/// Dialogues of two kinds and six topics.
fn write_dialogues(folder: &Path) {
    let line = |number: usize| {
        let (kind, text) = match number % 2 {
            0 => ("safe", "how may a friend rest"),
            _ => ("unsafe", "the user asks the assistant"),
        };
        let topic = ["one", "two", "three", "four", "five", "six"][number / 2 % 6];
        let labels = serde_json::json!({"kind": kind, "topic": topic});
        let prompt = format!("{text} {number} {}", "today ".repeat(number % 5));
        serde_json::json!({"id": format!("d{number}"), "prompt": prompt, "labels": labels}).to_string()
    };
    let lines: Vec<String> = (0..180).map(line).collect();
    std::fs::write(folder.join("data.jsonl"), lines.join("\n")).unwrap();
}

/// The head of a file: model, judge and data. `{DATA}` keys differ between files in their order only.
fn head(folder: &Path, judge: &str, rest: &str) -> String {
    let (model, data) = (std::fs::canonicalize(MODEL).unwrap(), folder.join("data.jsonl"));
    format!(
        r#"
name = "refusals"
model = {model:?}
seed = 1
{judge}
{rest}
[data]
file = {data:?}
group = "topic"
validation = ["one"]
held-out = ["two", "three"]
"#
    )
}

const REFUSALS: &str = "judge = \"refusals\"\nrefusals = [\"e\"]";

const STEER: &str = r#"
[read]
sites = "0-1.resid_post"
tokens = "assistant.start"

[[probe]]
label = "kind"

[steer]
probe = "kind"
class = "safe"
above = 0.5
from = "refuse"
to = "answer"
expect = { unsafe = "refuse" }
sites = "1.resid_post"
strengths = ["0.5n", "1n"]
tokens = "assistant.start"
max-tokens = 12
"#;

const GRID_KEYS: &str =
    "max-tokens = 12\ntokens = \"assistant.start\"\nsites = \"1.resid_post\"\nstrengths = [\"0.5n\"]";

const GRID: &str = r#"
[goal]
label = "kind"
class = "safe"
strategy = "answer"

[guard]
class = "unsafe"
dialogues = 8

[vector]
from = "refuse"
to = "answer"

[[probe]]
name = "kind"
label = "kind"

[[arm]]
name = "add"
change = { tokens = "assistant.start" }

[[arm]]
name = "conditional"
change = { tokens = "assistant.start", when = "probe kind:safe > 0.5" }
"#;

fn run(arguments: &[&str]) -> serde_json::Value {
    let output = pearl(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(results: &serde_json::Value) -> Vec<String> {
    let figures = results["figures"].as_array().unwrap();
    figures.iter().map(|figure| figure["name"].as_str().unwrap().to_owned()).collect()
}

/// Answers that were saved with scores of this judge: each an outcome and a reason, and no worth.
fn assert_judged(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(!text.is_empty(), "{}", path.display());
    for line in text.lines() {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(answer["text"].is_string() && answer["score"]["reason"].is_string(), "{line}");
        assert!(["refuse", "answer"].contains(&answer["score"]["strategy"].as_str().unwrap()), "{line}");
        assert!(answer["score"]["satisfaction"].is_null() && answer["score"]["on_topic"].is_null(), "{line}");
    }
}

/// No chart, page or metric speaks of the organism's world.
fn assert_own_words(out: &Path) {
    for entry in std::fs::read_dir(out).unwrap() {
        let path = entry.unwrap().path();
        let is_text = path.extension().is_some_and(|extension| extension == "json" || extension == "html");
        if is_text {
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["benign", "malicious", "sensitive", "guided", "organism"] {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
        }
    }
}

#[test]
fn any_chat_model_is_steered_by_what_its_refusals_say() {
    let folder = tempfile::tempdir().unwrap();
    write_dialogues(folder.path());
    let (file, out) = (folder.path().join("steer.toml"), folder.path().join("out"));
    std::fs::write(&file, head(folder.path(), REFUSALS, "") + STEER).unwrap();
    let [file, place] = [&file, &out].map(|path| path.to_str().unwrap());
    let results = run(&["run", file, "--out", place, "--json", "--quiet"]);
    let names = names(&results);
    for name in ["steer/unsteered/safe/answer", "steer/always/safe/answer", "steer/gated/unsafe/refuse"] {
        assert!(names.iter().any(|other| other == name), "{name} of {names:?}");
    }
    // What the judge does not weigh has no score, and no pearl map.
    assert!(!names.iter().any(|name| name.contains("score/") || name.contains("off-topic")), "{names:?}");
    assert!(!out.join("pearl.json").exists() && !out.join("scores.svg").exists());
    for name in ["fit", "unsteered", "always-steered"] {
        assert_judged(&out.join("transcripts").join(format!("{name}.jsonl")));
    }
    for name in ["doses.svg", "rates.svg", "steering.json", "vectors/answer.safetensors", "report.html"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    assert_own_words(&out);
}

#[test]
fn a_steering_grid_is_judged_by_what_refusals_say() {
    let folder = tempfile::tempdir().unwrap();
    write_dialogues(folder.path());
    let (file, out) = (folder.path().join("grid.toml"), folder.path().join("out"));
    std::fs::write(&file, head(folder.path(), REFUSALS, GRID_KEYS) + GRID).unwrap();
    let [file, place] = [&file, &out].map(|path| path.to_str().unwrap());
    let results = run(&["sweep", file, "--out", place, "--json", "--quiet"]);
    let names = names(&results);
    for name in
        ["sweep/unsteered/response", "sweep/add/kl", "sweep/validation/conditional/1.resid_post/0.5n/kl"]
    {
        assert!(names.iter().any(|other| other == name), "{name} of {names:?}");
    }
    for name in
        ["fit", "validation-unsteered", "validation-add-1.resid_post-0.5n", "test-unsteered", "test-add"]
    {
        assert_judged(&out.join("transcripts").join(format!("{name}.jsonl")));
    }
    assert_own_words(&out);
}

#[test]
fn a_probe_card_reads_how_any_chat_model_answers() {
    let folder = tempfile::tempdir().unwrap();
    write_dialogues(folder.path());
    let probe = folder.path().join("probe");
    std::fs::create_dir(&probe).unwrap();
    let rest = "about = \"Whether it refuses.\"\nlabel = \"outcome\"\nsites = \"0-1.resid_post\"\ntokens = \"assistant.start\"\n\
                folds = 3\n[answers]\nmax-tokens = 12\ntemperature = 1.0";
    let text = head(folder.path(), REFUSALS, rest).replace("name = \"refusals\"\n", "");
    std::fs::write(probe.join("probe.toml"), text.replace("validation = [\"one\"]\n", "")).unwrap();
    run(&["probe", "fit", probe.to_str().unwrap(), "--json", "--quiet"]);
    assert_judged(&probe.join("answers.jsonl"));
    let scores: serde_json::Value =
        serde_json::from_slice(&std::fs::read(probe.join("scores.json")).unwrap()).unwrap();
    let rows = scores["rows"].as_array().unwrap();
    assert_eq!((&rows[0][0], &rows[1][0]), (&"answer".into(), &"refuse".into()));
    assert!(probe.join("probe.safetensors").is_file());
    let card = std::fs::read_to_string(probe.join("card.md")).unwrap();
    assert!(card.contains("how the model itself answers") && !card.contains("organism"), "{card}");
}

#[test]
fn a_judge_that_can_not_judge_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    write_dialogues(folder.path());
    let (file, out) = (folder.path().join("file.toml"), folder.path().join("out"));
    let place = [&file, &out].map(|path| path.display().to_string());
    let refused = |command: &str, text: String, expected: &[&str]| {
        std::fs::write(&file, text).unwrap();
        one_line(&[command, &place[0], "--out", &place[1], "--quiet"], expected);
        assert!(!out.exists(), "work was begun");
    };
    let (by_world, at) = ("judge = \"organism\"", folder.path());
    let worldly = |text: &str| text.replace("\"answer\"", "\"guide\"");
    refused("run", head(at, by_world, "") + &worldly(STEER), &["dialogue d0", "judge = \"refusals\""]);
    refused(
        "sweep",
        head(at, by_world, GRID_KEYS) + &worldly(GRID),
        &["dialogue d0", "judge = \"refusals\""],
    );
    refused("run", head(at, REFUSALS, "") + &worldly(STEER), &["steer, to", "guide", "refuse or answer"]);
    refused("sweep", head(at, "", GRID_KEYS) + &worldly(GRID), &["goal, strategy", "refuse or answer"]);
    refused("sweep", head(at, "judge = \"crowd\"", GRID_KEYS) + GRID, &["judge", "organism or refusals"]);
    refused("run", head(at, "refusals = [\" \"]", "") + STEER, &["refusals", "an empty phrase"]);
}

/// Saved answers are scored without a model, and the record's other columns stay.
#[cfg(unix)]
#[test]
fn a_command_judges_saved_answers_and_a_steering_grid() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(
        folder.path().join("answers.csv"),
        "prompt,completion\nhow?,I am sorry\nhow?,like this\nhow?,sorry no\n",
    )
    .unwrap();
    let command = "echo '{\"outcomes\": [\"sorry\", \"glad\"]}'; while read -r line; do case \"$line\" in *'\"text\":\"'*sorry*) echo \
                   '{\"outcome\": \"sorry\"}';; *) echo '{\"outcome\": \"glad\"}';; esac; done";
    let output =
        pearl(&["judge", &place("answers.csv"), "--judge-command", command, "--quiet"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>(),
        ["sorry", "2", "glad", "1"]
    );
    one_line(&["judge", &place("answers.csv"), "--judge-command", "exit 7"], &["it ended (exit status: 7)"]);
    one_line(
        &["judge", &place("answers.csv"), "--judge", "probe: none.safetensors"],
        &["none.safetensors: No such file"],
    );
    // In a grid: wrong outcomes are named before any work.
    write_dialogues(folder.path());
    let judge = format!("judge = {:?}", format!("command: {command}"));
    let text = head(folder.path(), &judge, GRID_KEYS)
        + &GRID.replace("strategy = \"answer\"", "strategy = \"sing\"");
    std::fs::write(folder.path().join("sweep.toml"), text).unwrap();
    // What a file says to run is run where the environment allows it alone.
    let sweep = ["steer-sweep", &place("sweep.toml"), "--out", &place("out")];
    one_line(&sweep, &["judge: the command", "PEARL_COMMANDS=1 in the environment"]);
    let output = pearl(&sweep).env("PEARL_COMMANDS", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("goal, strategy: outcome \"sing\"") && said.contains("sorry or glad"), "{said}");
}

#[test]
fn a_probe_of_the_answers_states_judges_them() {
    use pearlpoint::activations::{Request, extract};
    use pearlpoint::dialogue::{Message, Role};
    use pearlpoint::generate::{GenerateOptions, generate};
    use pearlpoint::judge::{AnswerProbe, BROKEN, Scorer};
    use pearlpoint::model::Model;
    use pearlpoint::prelude::*;

    let model = pearlpoint::organism::model().unwrap();
    let data = Dialogues::organism(60, 3).unwrap();
    let mut options = GenerateOptions::default();
    options.max_tokens = 24;
    let answers = generate(&model, &data.dialogues, &options, &mut (), &mut |_| true).unwrap();
    let mut whole = data.clone();
    for (dialogue, answer) in whole.dialogues.iter_mut().zip(&answers) {
        dialogue.messages.push(Message::new(Role::Assistant, answer.text.clone()));
    }
    let folder = tempfile::tempdir().unwrap();
    let fit = |tokens: &str, name: &str| {
        let states = model.extract(&whole, "3.resid_post", tokens).unwrap();
        let sweep = states.probe("user-type").fit().unwrap();
        let path = folder.path().join(name);
        sweep.best().save(&path).unwrap();
        (path, sweep.best().clone())
    };
    let (path, probe) = fit("mean(answer)", "answers.safetensors");
    let judge = AnswerProbe::new(&path).unwrap();
    let mut outcomes = judge.outcomes().to_vec();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["benign", "malicious", "sensitive"]);
    let mut transcripts = answers.clone();
    transcripts[0].text = String::new();
    let scores = judge.score_all((&model, None), &data.dialogues, &transcripts).unwrap();
    assert_eq!(scores[0].strategy, BROKEN);
    // Each answer alone, read by hand.
    let request = Request::new([probe.source.site]).tokens("mean(answer)".parse().unwrap());
    for row in [1, 17, 59] {
        let one = extract(&model, &whole.dialogues[row..=row], &request, &mut |_| true).unwrap();
        let class = probe.predict(one.at(probe.source.site).unwrap().view()).unwrap()[0];
        assert_eq!(scores[row].strategy, probe.classes[class], "{row}");
    }
    assert!(judge.score(&data.dialogues[1], &answers[1]).unwrap_err().to_string().contains("no model"));
    let other = Model::open(Path::new(MODEL), None).unwrap();
    assert!(judge.check_model(Some(&other)).is_err());
    // What the prompt says is no verdict on the answer.
    let prompt = AnswerProbe::new(&fit("assistant.start", "prompts.safetensors").0).err().unwrap();
    assert!(
        prompt.to_string().contains("a probe that reads assistant.start; expected one that reads the answer"),
        "{prompt}"
    );
}

#[test]
fn saved_answers_are_scored_and_compared_with_human_labels() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let answers = file(
        "answers.jsonl",
        "{\"prompt\":\"how?\",\"completion\":\"I can't help with that.\",\"source\":7}\n\
         {\"id\":\"b\",\"messages\":[{\"role\":\"user\",\"content\":\"how?\"}],\"text\":\"Open the window.\"}\n",
    );
    let output = pearl(&["judge", &answers, "--judge", "rules", "--json"]).output().unwrap();
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((lines[0]["verdict"].as_str(), lines[0]["score"].as_f64()), (Some("full_refusal"), Some(0.0)));
    assert_eq!((lines[0]["source"].as_u64(), lines[0]["reason"].is_string()), (Some(7), true));
    assert_eq!(
        (lines[1]["verdict"].as_str(), lines[1]["score"].as_f64()),
        (Some("full_compliance"), Some(1.0))
    );

    let labelled = "prompt,completion,final_label\n\
                    a,I cannot help with that.,2_full_refusal\n\
                    b,Open the window.,1_full_compliance\n\
                    c,Use a warm cloth.,1_full_compliance\n\
                    d,Close the door.,3_partial_refusal\n";
    let labelled_path = file("labelled.csv", labelled);
    let agreed = run(&["judge", "agree", &labelled_path, "--json"]);
    // By hand: 3 of 4 equal; expected by chance (2·3 + 0 + 1·1) / 16 = 7/16; kappa = (12 − 7) / (16 − 7).
    assert_eq!(agreed["confusion"], serde_json::json!([[2, 0, 0], [1, 0, 0], [0, 0, 1]]));
    assert_eq!(agreed["metrics"][1]["value"], 0.75);
    assert!((agreed["metrics"][0]["value"].as_f64().unwrap() - 5.0 / 9.0).abs() < 1e-12);

    one_line(&["judge"], &["a file of answers is missing"]);
    one_line(&["judge", &file("empty.jsonl", "")], &["empty.jsonl"]);
    one_line(
        &["judge", &file("other.jsonl", "{\"prompt\":\"how?\"}\n")],
        &["other.jsonl:1: no answer among prompt"],
    );
    one_line(&["judge", &answers, "--judge", "crowd"], &["judge: \"crowd\"; expected"]);
    one_line(&["judge", "agree", &answers], &["answers.jsonl:1: no human label"]);
    let wrong = file("wrong.csv", &labelled.replace("2_full_refusal", "maybe"));
    one_line(&["judge", "agree", &wrong], &["wrong.csv:2: label \"maybe\"; expected one of"]);
}
