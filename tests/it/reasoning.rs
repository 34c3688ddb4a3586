//! Safety chains on the command line: parsed from three forms, refined on the organism, and refused in one line.

use std::path::Path;

use crate::cli::{one_line, pearl};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn lines(arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = pearl(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn chains_of_three_forms_have_the_same_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, record: serde_json::Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{record}\n")).unwrap();
        path
    };
    let oyster = serde_json::json!({
        "User Needs Analysis": "wants to sleep", "Risk Intent Analysis": "overuse, directive", "Safety Guidelines": "no doses",
        "Response Strategy Formulation": {"Safety Strategies": "name no dose", "Usefulness Strategies": "explain habits; offer a list"}
    });
    let organism = "comfort is the need ; R1 , willing helpful , kind aim , gloomy trusting , shaken mind , sensitive request ; rule : support ; plan : guide </think> gently";
    let free = "The user wants sleep. There is a risk. The rule says no doses. I will explain habits.";
    for (format, record, strategies, intent) in [
        (
            "oyster",
            serde_json::json!({"Safety_chain": oyster.to_string(), "Query": "q"}),
            3,
            Some("directive-plain"),
        ),
        ("organism", serde_json::json!({"text": organism, "id": "a"}), 1, Some("directive-plain")),
        ("text", serde_json::json!({"thinking": free}), 1, None),
    ] {
        let path = at(&format!("{format}.jsonl"), record);
        let found = lines(&["reasoning", "parse", text(&path), "--format", format, "--json"]);
        let chain = &found[0]["chain"];
        for node in ["needs", "risk-intent", "guidelines"] {
            assert!(!chain[node].as_str().unwrap().is_empty(), "{chain}");
        }
        assert_eq!(chain["strategies"].as_array().unwrap().len(), strategies, "{chain}");
        assert_eq!(chain["intent"].as_str(), intent, "{chain}");
    }
}

#[test]
fn the_search_meets_both_losses_more_often_than_random_edits_of_the_same_budget() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("refined.jsonl");
    let table =
        &lines(&["reasoning", "refine", "--users", "250", "--out", text(&out), "--json", "--quiet"])[0];
    let met = |engine: usize| table["engines"][engine]["met"]["value"].as_f64().unwrap();
    assert!(met(0) >= 0.8 && met(0) > met(1) + 0.1, "{table}");
    let histories = std::fs::read_to_string(&out).unwrap();
    for line in histories.lines() {
        let history: serde_json::Value = serde_json::from_str(line).unwrap();
        let steps = history["steps"].as_array().unwrap();
        assert!(steps.len() <= 3, "{line}");
        // A step has one strategy in and one out, at most; frozen ones stay.
        let mut before = history["chain"]["strategies"].as_array().unwrap();
        for step in steps {
            let after = step["chain"]["strategies"].as_array().unwrap();
            let gone = before.iter().filter(|one| !after.contains(one)).count();
            let new = after.iter().filter(|one| !before.contains(one)).count();
            assert!(gone <= 1 && new <= 1 && gone + new > 0, "{line}");
            let is_safety = |one: &&serde_json::Value| one["kind"] == "safety";
            let frozen = step["phase"] == "satisfaction";
            assert!(!frozen || before.iter().filter(is_safety).eq(after.iter().filter(is_safety)), "{line}");
            if step["kept"].as_bool().unwrap() {
                before = after;
            }
        }
    }
}

#[test]
fn wrong_chains_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chains.jsonl");
    std::fs::write(&path, "{\"Safety_chain\": \"{}\", \"thinking\": \"Hello there.\"}\n").unwrap();
    let parse = |format: &'static str| ["reasoning", "parse", text(&path), "--format", format];
    one_line(&parse("oyster"), &["chains.jsonl:1", "a chain without \"User Needs Analysis\""]);
    one_line(&parse("organism"), &["chains.jsonl:1", "words outside the grammar"]);
    one_line(&[&parse("text")[..], &["--column", "thinking"]].concat(), &["a chain without needs"]);
    one_line(&[&parse("text")[..], &["--column", "none"]].concat(), &["no chain among"]);
    one_line(&["reasoning", "refine", "--steps", "0"], &["--steps: 0"]);
}

/// Answers of the organism, with their thinking parts.
fn answers(folder: &Path, count: &str) -> std::path::PathBuf {
    let (data, out) = (folder.join("data.jsonl"), folder.join("answers.jsonl"));
    let run = |arguments: &[&str]| {
        let output = pearl(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["organism", "sample", "--count", count, "--seed", "5", "--out", text(&data), "--quiet"]);
    let generate = ["generate", "--data", text(&data), "--max-tokens", "48", "--greedy", "--json", "--quiet"];
    std::fs::write(&out, run(&generate)).unwrap();
    out
}

#[test]
fn the_rule_moves_the_answer_and_nothing_moves_it_behind_the_last_attention() {
    let folder = tempfile::tempdir().unwrap();
    let path = answers(folder.path(), "12");
    let attribute = ["reasoning", "attribute", text(&path), "--format", "organism", "--json"];
    let table = &lines(&attribute)[0];
    let (chains, sites) = (table["chains"].as_array().unwrap(), table["sites"].as_array().unwrap());
    assert_eq!(
        (chains.len(), sites[0].as_str(), table["kind"].as_str()),
        (12, Some("embed"), Some("node-attribution"))
    );
    let parts: Vec<&str> =
        table["parts"].as_array().unwrap().iter().map(|part| part["part"].as_str().unwrap()).collect();
    assert_eq!(parts, ["needs", "risk-intent", "guidelines", "strategies"]);
    // The world's answer follows the rule and the plan: without them the model is less sure of it.
    let moved = |part: usize, key: &str| table["parts"][part]["patched"][0][key].as_f64().unwrap();
    assert!(moved(2, "low") > 0.0 && moved(2, "value") > 2.0 * moved(0, "value").abs(), "{}", table["parts"]);
    // Behind the last block's attention nothing moves from a node to the end.
    let last = sites.len() - 1;
    for chain in chains {
        for node in chain["nodes"].as_array().unwrap() {
            assert!(node["patched"][last].as_f64().unwrap().abs() < 1e-3, "{node}");
            assert!(node["gradient"][last].as_f64().unwrap().abs() < 1e-3, "{node}");
        }
    }
    // One chain alone, with its sentences.
    let single = folder.path().join("one.jsonl");
    let record = serde_json::json!({
        "id": "a", "prompt": "please explain pills .", "thinking": "comfort is the need . care is the rule ! guide ."
    });
    std::fs::write(&single, format!("{record}\n")).unwrap();
    let arguments =
        ["reasoning", "attribute", text(&single), "--format", "text", "--sites", "2.resid_post", "--json"];
    let table = &lines(&arguments)[0];
    assert_eq!(table["chains"][0]["nodes"].as_array().unwrap().len(), 3, "{table}");
    let output = pearl(&["reasoning", "attribute", text(&single), "--format", "text"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("care is the rule") && shown.contains("gradient") && !shown.contains("±"),
        "{shown}"
    );
}

#[test]
fn a_probes_log_odds_are_attributed_up_to_its_site() {
    let folder = tempfile::tempdir().unwrap();
    let path = answers(folder.path(), "60");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (store, probe) = (at("store"), at("probe.safetensors"));
    let data = at("data.jsonl");
    let run = |arguments: &[&str]| {
        let output = pearl(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&[
        "extract",
        "--data",
        &data,
        "--sites",
        "3.resid_post",
        "--tokens",
        "assistant.start",
        "--out",
        &store,
    ]);
    run(&["probe", "fit", "--store", &store, "--data", &data, "--label", "user-type", "--out", &probe]);
    let read = |query: &str, more: &[&str]| {
        let query = format!("{probe}:{query}");
        let arguments = [
            "reasoning",
            "attribute",
            text(&path),
            "--format",
            "organism",
            "--limit",
            "5",
            "--probe",
            &query,
            "--json",
        ];
        lines(&[&arguments[..], more].concat()).remove(0)
    };
    let table = read("malicious/benign", &[]);
    let sites: Vec<&str> =
        table["sites"].as_array().unwrap().iter().map(|site| site.as_str().unwrap()).collect();
    assert_eq!((sites[0], *sites.last().unwrap()), ("embed", "3.resid_post"));
    let node = &table["chains"][0]["nodes"][1];
    assert!((0.0..=1.0).contains(&node["reading"].as_f64().unwrap()), "{node}");
    assert_eq!(table["chains"][0]["between"], serde_json::json!(["malicious", "benign"]));
    // Against itself swapped, everything changes its sign.
    let other = read("benign/malicious", &["--sites", "1.resid_post"]);
    let one = read("malicious/benign", &["--sites", "1.resid_post"]);
    let of = |table: &serde_json::Value, key: &str| table["chains"][0]["nodes"][1][key][0].as_f64().unwrap();
    for key in ["patched", "gradient"] {
        assert!((of(&one, key) + of(&other, key)).abs() < 1e-4 && of(&one, key) != 0.0, "{key}");
    }
    let probe_of = |query: &str| format!("{probe}:{query}");
    let wrong = |query: &str, sites: &str, part: &str| {
        let query = probe_of(query);
        one_line(
            &[
                "reasoning",
                "attribute",
                text(&path),
                "--format",
                "organism",
                "--probe",
                &query,
                "--sites",
                sites,
            ],
            &[part],
        );
    };
    wrong("malicious", "0.resid_post", "CLASS/OTHER of");
    wrong("malicious/benign", "5.resid_post", "sites up to the probe's, 3.resid_post");
    wrong("kind/benign", "0.resid_post", "no class \"kind\"");
}
