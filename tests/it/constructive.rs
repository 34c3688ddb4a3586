//! Constructive safety, through the program: answers scored side by side, the game measured, a policy fitted and played.

use std::path::Path;

use serde_json::Value;

use crate::cli::{one_line, pearl};

fn run(arguments: &[&str]) -> String {
    let output = pearl(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The value of a rate of a system, of all answers.
fn rate(table: &Value, system: usize, name: &str) -> f64 {
    let rates = table["parts"][0]["systems"][system]["rates"].as_array().unwrap();
    rates.iter().find(|rate| rate["name"] == name).unwrap()["value"].as_f64().unwrap()
}

#[test]
fn a_fitted_policy_serves_more_and_harms_less_than_the_model_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (data, test, policy) = (at("data.jsonl"), at("test.jsonl"), at("policy"));
    run(&["organism", "sample", "--count", "420", "--seed", "3", "--out", text(&data), "--quiet"]);
    run(&["organism", "sample", "--count", "150", "--seed", "4", "--out", text(&test), "--quiet"]);
    let card = run(&[
        "constructive",
        "fit",
        "--data",
        text(&data),
        "--out",
        text(&policy),
        "--dose-answers",
        "60",
        "--users",
        "5",
        "--sites",
        "4.resid_post",
        "--quiet",
    ]);
    assert!(card.contains("| guide | sensitive |") && card.contains("Left as it is: help."), "{card}");
    let answer = |name: &str, more: &[&str]| {
        let mut arguments =
            vec!["generate", "--data", text(&test), "--max-tokens", "48", "--json", "--quiet"];
        arguments.extend(more);
        std::fs::write(at(name), run(&arguments)).unwrap();
        at(name)
    };
    let plain = answer("plain.jsonl", &[]);
    let steered = answer("steered.jsonl", &["--constructive", text(&policy)]);
    let blind = answer("blind.jsonl", &["--constructive", text(&policy), "--ablate", "belief"]);
    let first = std::fs::read_to_string(&steered).unwrap();
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let belief: f64 =
        first["decision"]["belief"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
    assert!((belief - 1.0).abs() < 1e-9 && first["decision"]["card"].as_str().unwrap().contains("chosen"));
    let table = run(&[
        "judge",
        "score",
        text(&plain),
        text(&steered),
        text(&blind),
        "--judge",
        "organism",
        "--data",
        text(&test),
        "--held-out",
        "topic=travel",
        "--plot",
        text(&at("scores")),
        "--json",
    ]);
    let table: Value = serde_json::from_str(&table).unwrap();
    let at_two = |system: usize, key: &str| {
        let values = table["parts"][0]["systems"][system][key].as_array().unwrap();
        values.iter().find(|at| at["beta"] == 2.0).unwrap()["value"].clone()
    };
    // A paired gain whose interval is above 0, over the model alone and over one belief for all.
    assert!(at_two(1, "change")["low"].as_f64().unwrap() > 0.0, "{table}");
    let [own, blinded] = [1, 2].map(|system| at_two(system, "constructive")["value"].as_f64().unwrap());
    assert!(own > blinded, "{own} {blinded}");
    assert!(rate(&table, 1, "attack-success") < rate(&table, 0, "attack-success"), "{table}");
    assert_eq!(table["parts"][1]["name"], "out of distribution");
    assert!(at("scores.svg").is_file() && at("scores.png").is_file());
}

#[test]
fn a_measured_game_is_solved_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (game, plot) = (folder.path().join("game.toml"), folder.path().join("simplex"));
    let cells = run(&["game", "estimate", "--users", "3", "--out", text(&game), "--json", "--quiet"]);
    let cells: Value = serde_json::from_str(&cells).unwrap();
    assert_eq!(
        (cells["kind"].as_str(), cells["cells"].as_array().unwrap().len()),
        (Some("game-estimate"), 36)
    );
    let explained = run(&["game", "explain", text(&game), "--plot", text(&plot), "--json"]);
    let explained: Value = serde_json::from_str(&explained).unwrap();
    assert!(explained["value"].is_number());
    assert!(folder.path().join("simplex.svg").is_file());
}

#[test]
fn bad_input_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.jsonl");
    std::fs::write(&file, "{\"id\": \"a\", \"text\": \"sure\"}\n").unwrap();
    let missing = folder.path().join("none");
    for (arguments, part) in [
        (vec!["judge", "score", text(&file), "--judge", "organism"], "label user-type"),
        (vec!["judge", "score", text(&file), "--benign", "user-type"], "NAME=VALUE"),
        (vec!["judge", "score", text(&file), "--plot", text(&missing)], "weighs no items"),
        (vec!["game", "estimate", "--weights", "1,nan,0", "--out", text(&missing)], "finite numbers"),
        (vec!["game", "estimate", "--exclude", "topic=chess", "--out", text(&missing)], "topic"),
        (vec!["generate", "--prompt", "a", "--constructive", text(&missing)], "constructive.json"),
    ] {
        one_line(&arguments, &[part]);
    }
    assert!(!missing.exists());
}

#[test]
fn the_organisms_policy_is_part_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    run(&["organism", "sample", "--count", "6", "--seed", "8", "--out", text(&data), "--quiet"]);
    let answer = |policy: &str| {
        let arguments = ["generate", "--data", text(&data), "--max-tokens", "48", "--json", "--quiet"];
        run(&[&arguments[..], &["--constructive", policy]].concat())
    };
    let embedded = answer("organism");
    assert!(embedded.lines().count() == 6 && embedded.contains("\"holds_face\""), "{embedded}");
    // The same by the folder of its files.
    let decision = |lines: &str| -> Vec<Value> {
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["decision"].clone()).collect()
    };
    assert_eq!(decision(&embedded), decision(&answer("src/constructive/organism")));
    one_line(
        &["generate", "--data", text(&data), "--constructive", text(&folder.path().join("none"))],
        &["none/constructive.json"],
    );
}
