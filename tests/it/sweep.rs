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
