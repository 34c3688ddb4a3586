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
