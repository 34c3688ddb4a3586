//! Logit lens, activation patching and attention weights, beside transformers with hooks (`tests/fixtures/lens.py`).

use std::path::Path;

use candle_core::Tensor;
use pearlpoint::Result;
use pearlpoint::artifact::TensorFile;
use pearlpoint::model::{Cache, Hook, Point, Site, Token};
use serde::Deserialize;
use serde_json::Value;

use super::cli::{one_line, pearl};
use super::model::{decoder, tokens};

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

/// A hook that keeps attention weights, `[tokens, heads × keys]` for each block.
#[derive(Default)]
struct Weights(Vec<(Site, Vec<Vec<f32>>)>);

impl Hook for Weights {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Block(_, Point::AttnWeights))
    }

    fn call(&mut self, site: Site, activations: Tensor, _: &[Token]) -> Result<Tensor> {
        self.0.push((site, activations.to_vec2().unwrap()));
        // For reading only: what is given back changes nothing.
        Ok((activations * 0.0)?)
    }
}

#[derive(Deserialize)]
struct Attention {
    checkpoint: String,
    ids: Vec<u32>,
    /// `[blocks, heads, query tokens, keys up to the query]`.
    blocks: Vec<Vec<Vec<Vec<f32>>>>,
}

/// Beside transformers with `output_attentions` (`tests/fixtures/attention.py`), alone, in a ragged batch, and with a cache.
#[test]
fn attention_weights_are_those_of_transformers() {
    let cases: Vec<Attention> =
        serde_json::from_slice(&std::fs::read("tests/fixtures/attention.json").unwrap()).unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let decoder = decoder(&case.checkpoint);
        let row = case.ids.clone();
        let (alone, batch) = (
            tokens(std::slice::from_ref(&row)),
            tokens(&[row[..5].to_vec(), row.clone(), row[..2].to_vec()]),
        );
        let (mut one, mut many, mut cached) = (Weights::default(), Weights::default(), Weights::default());
        let last = alone.len() - 1;
        let read = decoder.forward(&alone, None, &[last], &mut one).unwrap().to_vec2::<f32>().unwrap();
        let plain = decoder.forward(&alone, None, &[last], &mut ()).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(read, plain, "{}: reading changes no logit", case.checkpoint);
        decoder.forward(&batch, None, &[], &mut many).unwrap();
        let mut cache = Cache::default();
        decoder.forward(&alone[..7], Some(&mut cache), &[], &mut cached).unwrap();
        let first = std::mem::take(&mut cached.0);
        decoder.forward(&alone[7..], Some(&mut cache), &[], &mut cached).unwrap();
        assert_eq!(one.0.len(), case.blocks.len());
        for (block, heads) in case.blocks.iter().enumerate() {
            assert_eq!(one.0[block].0, Site::Block(block, Point::AttnWeights));
            for (head, rows) in heads.iter().enumerate() {
                for (query, expected) in rows.iter().enumerate() {
                    let near = |found: &[f32], keys: usize| {
                        let own = &found[head * keys..(head + 1) * keys];
                        let agrees = own.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
                        assert!(
                            agrees,
                            "{} {block}.{head}, token {query}: {own:?} {expected:?}",
                            case.checkpoint
                        );
                        assert!(own[query + 1..].iter().all(|weight| *weight == 0.0));
                    };
                    near(&one.0[block].1[query], row.len());
                    // The second row of the batch, after the five tokens of the first; as wide as the longest row.
                    near(&many.0[block].1[5 + query], row.len());
                    match query < 7 {
                        true => near(&first[block].1[query], 7),
                        false => near(&cached.0[block].1[query - 7], row.len()),
                    }
                }
            }
        }
    }
}

#[test]
fn the_attention_command_writes_every_head_and_draws_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("attention").display().to_string();
    let prompt = "my topic is music .";
    let found = json(pearl(&[
        "attention",
        "--prompt",
        prompt,
        "--block",
        "2",
        "--head",
        "1",
        "--out",
        &out,
        "--json",
    ]));
    let rows = found["weights"].as_array().unwrap();
    let tokens = found["tokens"].as_array().unwrap().len();
    assert_eq!(rows.len(), tokens);
    for (query, row) in rows.iter().enumerate() {
        let row: Vec<f64> = row.as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect();
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        assert!(row[query + 1..].iter().all(|weight| *weight == 0.0));
    }
    let file = TensorFile::open(Path::new(&out).join("attention.safetensors")).unwrap();
    let heads = found["heads"].as_u64().unwrap() as usize;
    assert_eq!(file.shape("2.attn_weights"), Some(&[heads, tokens, tokens][..]));
    let all = file.floats("2.attn_weights").unwrap();
    let own = rows[tokens - 1][0].as_f64().unwrap() as f32;
    assert_eq!(all[[1, tokens - 1, 0]], own);
    assert!(
        std::fs::read_to_string(Path::new(&out).join("block-2.svg"))
            .unwrap()
            .contains("Attention in block 2")
    );

    let out = folder.path().join("no").display().to_string();
    let refused = |more: &[&str], expected: &[&str]| {
        one_line(&[&["attention", "--prompt", prompt, "--out", &out], more].concat(), expected);
        assert!(!Path::new(&out).exists());
    };
    refused(&["--block", "9"], &["block 9; expected a block from 0 to"]);
    refused(&["--block", "1", "--head", "99"], &["head 99; expected a head from 0 to"]);
    // No table holds rows of different widths, and nothing steers there.
    let data = "tests/fixtures/dialogues.jsonl";
    let extract = ["extract", "--data", data, "--sites", "1.attn_weights", "--out", &out];
    one_line(&extract, &["site 1.attn_weights", "`pearl attention`"]);
    let all = pearlpoint::organism::model().unwrap().decoder.architecture().sites();
    assert!(all.iter().all(|site| !matches!(site, Site::Block(_, Point::AttnWeights))));
}
