//! Logit lens and activation patching, beside transformers with hooks (`tests/fixtures/lens.py`).

use serde::Deserialize;
use serde_json::Value;

use super::cli::{one_line, pearl};

#[derive(Deserialize)]
struct Case {
    checkpoint: String,
    clean: String,
    corrupted: String,
    answer: String,
    other: String,
    /// `[blocks, tokens]`.
    lens: Vec<Vec<Place>>,
    clean_difference: f64,
    corrupted_difference: f64,
    /// `[blocks, tokens]`.
    differences: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Place {
    ids: Vec<u64>,
    probabilities: Vec<f64>,
    kl: f64,
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read("tests/fixtures/lens.json").unwrap()).unwrap()
}

fn json(mut command: assert_cmd::Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_lens_shows_what_transformers_shows_with_its_norm_and_head() {
    for case in cases() {
        let model = format!("tests/fixtures/{}", case.checkpoint);
        let found =
            json(pearl(&["lens", "--model", &model, "--prompt", &case.clean, "--top", "3", "--json"]));
        let blocks = found["likeliest"].as_array().unwrap();
        assert_eq!(blocks.len(), case.lens.len());
        for (block, expected) in case.lens.iter().enumerate() {
            let tokens = found["likeliest"][block].as_array().unwrap();
            assert_eq!(tokens.len(), expected.len(), "{} block {block}", case.checkpoint);
            for (at, place) in expected.iter().enumerate() {
                let kl = found["kl"][block][at].as_f64().unwrap();
                assert!((kl - place.kl).abs() < 1e-4, "{kl} {}", place.kl);
                for (rank, (id, probability)) in place.ids.iter().zip(&place.probabilities).enumerate() {
                    let likely = &tokens[at][rank];
                    assert_eq!(
                        likely["id"].as_u64(),
                        Some(*id),
                        "{} block {block}, token {at}",
                        case.checkpoint
                    );
                    assert!((likely["probability"].as_f64().unwrap() - probability).abs() < 1e-4);
                }
            }
        }
        // The last block's states are what the model itself reads.
        let last = found["kl"].as_array().unwrap().last().unwrap().as_array().unwrap();
        assert!(last.iter().all(|kl| kl.as_f64().unwrap() < 1e-9));
    }
}

#[test]
fn a_target_has_the_probability_and_rank_of_its_first_token() {
    let found = json(pearl(&[
        "lens",
        "--prompt",
        "my topic is music .",
        "--tokens",
        "last",
        "--top",
        "400",
        "--target",
        "caution",
        "--json",
    ]));
    for block in 0..6 {
        let rank = found["target"]["rank"][block][0].as_u64().unwrap() as usize;
        let likely = &found["likeliest"][block][0][rank - 1];
        assert_eq!(likely["probability"], found["target"]["probability"][block][0], "block {block}");
    }
}

#[test]
fn patched_states_change_logits_as_they_do_in_transformers() {
    for case in cases() {
        let out = tempfile::tempdir().unwrap();
        let (model, folder) = (format!("tests/fixtures/{}", case.checkpoint), out.path().join("patch"));
        let words = [
            "patch",
            "--model",
            &model,
            "--clean",
            &case.clean,
            "--corrupted",
            &case.corrupted,
            "--answer",
            &case.answer,
            "--other",
            &case.other,
            "--out",
            folder.to_str().unwrap(),
        ];
        let output = pearl(&words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value =
            serde_json::from_slice(&std::fs::read(folder.join("patching.json")).unwrap()).unwrap();
        let near = |found: &Value, expected: f64| (found.as_f64().unwrap() - expected).abs() < 1e-4;
        assert!(near(&found["clean_difference"], case.clean_difference));
        assert!(near(&found["corrupted_difference"], case.corrupted_difference));
        for (block, row) in case.differences.iter().enumerate() {
            assert_eq!(found["differences"][block].as_array().unwrap().len(), row.len());
            for (at, expected) in row.iter().enumerate() {
                let own = &found["differences"][block][at];
                assert!(
                    near(own, *expected),
                    "{} block {block}, token {at}: {own}, not {expected}",
                    case.checkpoint
                );
            }
        }
        // The last token's state after the last block decides alone.
        let last = case.differences.last().unwrap().last().unwrap();
        assert!((last - case.clean_difference).abs() < 1e-5);
        assert!(folder.join("patching.svg").exists());
    }
}

#[test]
fn what_cannot_be_read_or_patched_is_one_line() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("out").display().to_string();
    for (words, expected) in [
        (vec!["lens", "--prompt", "hi", "--sites", "3.mlp_out"], "sites in the residual stream"),
        (vec!["lens", "--prompt", "my topic", "--tokens", "assistant"], "no token that assistant picks"),
        (vec!["lens", "--prompt", "my topic", "--target", ""], "without a token"),
        (vec!["patch", "--clean", "my topic", "--corrupted", "my", "--out", &folder], "equally many"),
        (
            vec!["patch", "--clean", "my topic", "--corrupted", "my topic", "--out", &folder],
            "the same tokens",
        ),
        (
            vec![
                "patch",
                "--clean",
                "my topic",
                "--corrupted",
                "my news",
                "--answer",
                "a",
                "--other",
                "a",
                "--out",
                &folder,
            ],
            "different tokens",
        ),
    ] {
        one_line(&words, &[expected]);
    }
}
