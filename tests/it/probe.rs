//! Probes from the command line: fitted from a store and its dialogues; and the probes that ship with the program.

use std::path::Path;

use ndarray::{Array2, Axis};
use pearlpoint::activations::{self, Activations, Request};
use pearlpoint::artifact::Header;
use pearlpoint::model::Selector;
use pearlpoint::organism::{self, Split};
use pearlpoint::probe::Probe;
use serde_json::Value;

use super::cli::{one_line, pearl};

/// Writes a store of `features` and a file of dialogues, with labels as JSON for each row.
fn store(folder: &Path, features: Array2<f32>, labels: impl Fn(usize) -> String) {
    let rows = features.nrows();
    let line = |row: usize| {
        format!(
            "{{\"id\":\"d{row}\",\"prompt\":\"we speak of thing {}\",\"labels\":{{{}}}}}\n",
            row % 7,
            labels(row)
        )
    };
    std::fs::write(folder.join("data.jsonl"), (0..rows).map(line).collect::<String>()).unwrap();
    // A store refuses NaN when it is written, so the bytes are replaced afterwards.
    const MARK: f32 = 12_345.678;
    let marked = features.mapv(|x| if x.is_nan() { MARK } else { x });
    let activations = Activations {
        sites: vec![("0.resid_post".parse().unwrap(), marked)],
        example: (0..rows).collect(),
        position: vec![None; rows],
        tokens: 0,
    };
    let header = Header::new("activations", 1);
    activations::save(&folder.join("store"), header, "llama", "data.jsonl", &Selector::Last, &activations)
        .unwrap();
    let shard = folder.join("store/shard-00000.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    for at in 0..bytes.len() - 3 {
        if bytes[at..at + 4] == MARK.to_le_bytes() {
            bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    }
    std::fs::write(&shard, bytes).unwrap();
}

/// Features whose first column separates the classes; the others are noise.
fn separable(rows: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, 4), |(row, column)| {
        let noise = ((row * 31 + column * 17) as f32 * 0.7).sin();
        if column == 0 { (row % 2) as f32 * 3.0 + noise } else { noise }
    })
}

fn risk(row: usize) -> String {
    format!("\"risk\":\"{}\",\"topic\":\"t{}\"", ["low", "high"][row % 2], row / 2 % 6)
}

fn fit(folder: &Path, more: &[&str]) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    let plain = [
        "probe",
        "fit",
        "--store",
        &at("store"),
        "--data",
        &at("data.jsonl"),
        "--label",
        "risk",
        "--out",
        &at("p"),
    ];
    plain.iter().chain(more).map(|part| part.to_string()).collect()
}

#[test]
fn a_fit_draws_its_pictures_beside_the_probe() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), separable(60), risk);
    let run = |more: &[&str]| {
        let arguments = fit(folder.path(), more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert!(pearl(&arguments).output().unwrap().status.success());
    };
    let chart =
        |name: &str| std::fs::read_to_string(folder.path().join(format!("p.charts/{name}.chart.json")));
    run(&["--group", "topic"]);
    // Out of fold there are no rows that the probe never saw.
    assert!(chart("roc").is_err() && chart("auroc").unwrap().contains("shuffled labels"));
    run(&["--group", "topic", "--held-out", "t1,t2"]);
    for control in ["words and bigrams", "TF-IDF", "pairs of words", "length", "random features"] {
        assert!(chart("auroc").unwrap().contains(control), "{control}");
    }
    let map = chart("map").unwrap();
    assert!(map.contains("20 dialogues (topic held out)") && map.contains("AUROC"), "{map}");
    for level in ["0.1", "0.25", "0.5", "0.75", "0.9"] {
        assert!(map.contains(&format!("P(low) = {level}\"")), "{level}");
    }
    assert!(chart("roc").unwrap().contains("low (AUROC "));
    assert!(folder.path().join("p.charts/roc.svg").is_file());
}

#[test]
fn degenerate_input_is_one_clear_line() {
    let refused = |features: Array2<f32>, labels: fn(usize) -> String, more: &[&str], expected: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), features, labels);
        let arguments = fit(folder.path(), more);
        one_line(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        assert!(!folder.path().join("p").exists());
    };
    let one = |row: usize| format!("\"risk\":\"low\",\"topic\":\"t{}\"", row % 6);
    refused(
        separable(40),
        one,
        &[],
        &["probe of risk at 0.resid_post", "one class only (low)", "two classes or more"],
    );
    let still = Array2::from_elem((40, 4), 0.25);
    refused(still, risk, &[], &["probe of risk at 0.resid_post", "the same activations in all of"]);
    refused(separable(4), risk, &[], &["5 folds of 4 rows", "5 rows or more, or fewer folds"]);
    let mut nan = separable(40);
    nan[[7, 2]] = f32::NAN;
    refused(nan, risk, &[], &["shard-00000.safetensors", "NaN at index 30 of tensor 0.resid_post", "finite"]);
    let half = |row: usize| if row < 20 { risk(row) } else { "\"topic\":\"t0\"".into() };
    refused(separable(40), half, &[], &["label risk: missing on 20 of 40 dialogues (d20 is the first)"]);
    refused(
        separable(40),
        risk,
        &["--group", "topic", "--held-out", "t9"],
        &["no group \"t9\"", "one of t0, t1"],
    );
    refused(
        separable(40),
        risk,
        &["--method", "magic"],
        &["no method \"magic\"", "logistic, ridge, lda or means"],
    );
    refused(separable(40), risk, &["--strengths", "1,0.1"], &["strengths: 1, 0.1", "ascending"]);
    let rare = |row: usize| {
        format!("\"risk\":\"{}\",\"topic\":\"t{}\"", if row == 3 { "high" } else { "low" }, row % 6)
    };
    refused(separable(40), rare, &[], &["probe of risk at 0.resid_post", "rows of class \"high\" to fit on"]);
}

#[test]
fn probes_are_fitted_scored_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), separable(120), risk);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let out = |arguments: &[&str]| -> String {
        let output = pearl(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (method, file) in [("logistic", "p1"), ("lda", "p2"), ("ridge", "p3"), ("means", "p4")] {
        let mut arguments =
            fit(folder.path(), &["--group", "topic", "--held-out", "t0,t3", "--method", method, "--json"]);
        let place = arguments.iter().position(|part| *part == at("p")).unwrap();
        arguments[place] = at(file);
        let figures: Value =
            serde_json::from_str(&out(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
        let value = |name: &str| {
            let figures = figures.as_array().unwrap();
            figures.iter().find(|figure| figure["name"] == name).unwrap()["value"].as_f64().unwrap()
        };
        assert!(value("auroc") > 0.97, "{method}");
        // The paired difference to a control is that of the two values, and its interval is on the same rows.
        let difference =
            figures.as_array().unwrap().iter().find(|figure| figure["name"] == "difference/ngram").unwrap();
        assert!((difference["value"].as_f64().unwrap() - value("auroc") + value("ngram/auroc")).abs() < 1e-9);
        assert!(
            difference["low"].as_f64() < difference["value"].as_f64() && difference["n"] == 40,
            "{difference}"
        );
        // Words, lengths and noise are independent of the risk here.
        assert!(
            ["ngram/auroc", "tfidf/auroc", "length/auroc", "random/auroc"]
                .iter()
                .all(|name| value(name) < 0.75),
            "{figures}"
        );
    }
    let held = ["--store", &at("store"), "--data", &at("data.jsonl"), "--group", "topic"];
    let lines = out(&[&["probe", "score", &at("p1"), "--json"], held.as_slice()].concat());
    // Rows of the held-out groups t0 and t3 alone.
    assert_eq!(lines.lines().count(), 40);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let sum =
            line["probabilities"]["low"].as_f64().unwrap() + line["probabilities"]["high"].as_f64().unwrap();
        assert!((sum - 1.0).abs() < 1e-9 && line["id"].as_str().unwrap().starts_with('d'));
    }
    let compared =
        out(&[&["probe", "compare", &at("p1"), &at("p1"), &at("p4"), "--json"], held.as_slice()].concat());
    let compared: Value = serde_json::from_str(&compared).unwrap();
    // A probe has no difference to itself; its interval has a width where it makes no error.
    assert_eq!(compared[3]["value"], 0.0);
    assert!(
        compared[3]["low"].as_f64() <= Some(0.0) && compared[3]["high"].as_f64() >= Some(0.0),
        "{compared}"
    );
    let cosines = out(&["probe", "cosines", &at("p1"), &at("p2"), &at("p4"), "--json"]);
    let cosines: Value = serde_json::from_str(&cosines).unwrap();
    let cosine = |a: usize, b: usize| cosines["cosines"][a][b].as_f64().unwrap();
    assert!(
        (cosine(0, 0) - 1.0).abs() < 1e-9 && (cosine(0, 1) - cosine(1, 0)).abs() < 1e-9 && cosine(0, 2) > 0.5
    );
    one_line(
        &[&["probe", "score", &at("p1")], &["--store", "nowhere", "--data", &at("data.jsonl")][..]].concat(),
        &["nowhere/manifest.json"],
    );
}

#[test]
fn choices_that_make_a_score_less_certain_are_doubted_aloud() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), separable(120), risk);
    let heard = |more: &[&str]| {
        let output =
            pearl(&fit(folder.path(), more).iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let edge = heard(&["--group", "topic", "--held-out", "t0,t3", "--c-grid", "0.0001,0.001"]);
    assert!(edge.contains("doubt: the strength 0.001 at 0.resid_post is the greatest of 2 tried"), "{edge}");
    let one = heard(&["--group", "topic", "--held-out", "t0"]);
    assert!(one.contains("doubt: one group is held out"), "{one}");
    assert!(!edge.contains("one group is held out"), "{edge}");
    // Words that tell the classes apart as well as the probe does: the paired difference reaches 0.
    let told = |row: usize| {
        format!(
            "{{\"id\":\"d{row}\",\"prompt\":\"a {} one\",\"labels\":{{{}}}}}\n",
            ["calm", "wild"][row % 2],
            risk(row)
        )
    };
    std::fs::write(folder.path().join("data.jsonl"), (0..120).map(told).collect::<String>()).unwrap();
    let words = heard(&["--group", "topic", "--held-out", "t0,t3"]);
    assert!(words.contains("less that of tfidf") && words.contains("need not have found more"), "{words}");
}

/// The shipped probes on dialogues of held-out topics, sampled with another seed.
#[test]
fn shipped_probes_classify_new_dialogues() {
    let model = organism::model().unwrap();
    for (concept, least) in [("user-type", 0.95), ("risk-level", 0.9)] {
        let probe = Probe::load(&Path::new("probes").join(concept).join("probe.safetensors")).unwrap();
        assert_eq!(probe.source.label, concept);
        let drawn =
            organism::sample(500, Split::HeldOutWording, 99).into_iter().map(|(_, dialogue)| dialogue);
        let fresh = drawn.filter(|dialogue| {
            let topic = dialogue.label("topic").unwrap();
            probe.held_out.contains(&topic) && dialogue.label("canary").unwrap() != "asked"
        });
        let dialogues: Vec<_> = fresh.collect();
        assert!(dialogues.len() > 60);
        let request = Request::new([probe.source.site])
            .tokens(probe.source.tokens.clone())
            .thinking(Some(true))
            .batch_tokens(1024);
        let read = activations::extract(&model, &dialogues, &request, &mut |_| true).unwrap();
        let values =
            read.at(probe.source.site).unwrap().select(Axis(0), &(0..dialogues.len()).collect::<Vec<_>>());
        let called = probe.predict(values.view()).unwrap();
        let right = called
            .iter()
            .zip(&dialogues)
            .filter(|(class, dialogue)| Some(&probe.classes[**class]) == dialogue.label(concept).as_ref());
        let share = right.count() as f64 / dialogues.len() as f64;
        assert!(share >= least, "{concept}: {share}");
    }
}

#[test]
fn controls_on_words_read_the_text_that_the_probe_reads() {
    use pearlpoint::activations::{Activations, Labelled};
    use pearlpoint::artifact::Header;
    use pearlpoint::dialogue::{Dialogue, Dialogues, Label, Message, Role};
    // The answers' own words tell the classes apart; the users' say nothing, and neither do the activations.
    let words = [["rest", "walk", "tea"], ["work", "run", "rice"]];
    let dialogue = |row: usize| {
        let user = Message::new(Role::User, format!("question {} please", ["one", "two", "six"][row % 3]));
        let answer = format!("<think>one or two</think> i would {}", words[row % 2][row / 2 % 3]);
        let mut dialogue =
            Dialogue::new(format!("d{row}"), vec![user, Message::new(Role::Assistant, answer)]);
        dialogue.labels.insert("kind".into(), Label::Text(["calm", "busy"][row % 2].into()));
        dialogue.labels.insert("part".into(), Label::Text((row / 6 % 5).to_string()));
        dialogue
    };
    let rows = 120;
    let data = Dialogues::new("data", (0..rows).map(dialogue).collect()).unwrap();
    let values =
        ndarray::Array2::from_shape_fn((rows, 3), |(row, column)| ((row * 7 + column * 13) % 11) as f32);
    let ngram = |tokens: &str| {
        let activations = Activations {
            sites: vec![("1.resid_post".parse().unwrap(), values.clone())],
            example: (0..rows).collect(),
            position: vec![None; rows],
            tokens: 0,
        };
        let header = Header::new("activations", 1);
        let states = Labelled::new(header, tokens.parse().unwrap(), activations, data.clone()).unwrap();
        let fitted = states.probe("kind").group("part").fit().unwrap();
        fitted.controls()[0].value
    };
    assert_eq!(ngram("mean(answer)"), 1.0);
    assert!(ngram("mean(user)") < 0.6 && ngram("mean(think)") < 0.6 && ngram("assistant.start") < 0.6);
}
