//! The game on the command line: a solution, its explanation, and wrong input.

use crate::cli::{one_line, pearl};

const GAME: &str = "experiments/game.toml";

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = pearl(&[&["game"], arguments, &["--json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_sure_belief_has_the_action_that_is_made_for_it() {
    let action = |belief: &str| {
        let solved = json(&["solve", GAME, "--belief", belief]);
        let mixture: Vec<f64> = serde_json::from_value(solved["mixture"].clone()).unwrap();
        assert!((mixture.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        mixture.iter().position(|p| *p == mixture.iter().copied().fold(0.0, f64::max)).unwrap()
    };
    assert_eq!((action("benign=1"), action("sensitive=1")), (0, 1));
    assert_ne!(action("malicious=1"), 0);
    let explained = json(&["explain", GAME]);
    assert!(!explained["changes"].as_array().unwrap().is_empty());
    let text = String::from_utf8(pearl(&["game", "explain", GAME]).output().unwrap().stdout).unwrap();
    assert!(text.contains("benign → malicious: help until p(malicious) = "), "{text}");
}

#[test]
fn wrong_games_and_beliefs_are_one_line() {
    one_line(&["game", "solve", "none.toml"], &["none.toml"]);
    one_line(
        &["game", "solve", GAME, "--belief", "robot=1"],
        &["--belief: \"robot=1\"; expected TYPE=PROBABILITY, of benign"],
    );
    one_line(&["game", "solve", GAME, "--belief", "benign=0.7"], &["belief: [0.7, 0.0, 0.0]"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("game.toml");
    let text = std::fs::read_to_string(GAME).unwrap();
    std::fs::write(&path, text.replacen("[[1.0, 0.8, 0.6, 0.2]", "[[nan, 0.8, 0.6, 0.2]", 1)).unwrap();
    one_line(
        &["game", "solve", path.to_str().unwrap()],
        &["type benign, retention: NaN; expected finite numbers"],
    );
}
