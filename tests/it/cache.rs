//! The cache where it is more than keys and values of every block: recurrent states (Qwen3-Next, Qwen3.5), keys and values that later
//! blocks share (Gemma 3n and 4), chunks of attention (Llama 4). Rows join, leave, are cut, fail and go on from a prefix.

use candle_core::Tensor;
use pearlpoint::error::{Error, Result};
use pearlpoint::model::{Cache, Decoder, Hook, Point, Site, Token};

use crate::model::{decoder, expected, tokens};

const RECURRENT: [&str; 4] =
    ["families/qwen3_next", "families/qwen3_next-mixed", "families/qwen3_5", "families/qwen3_5-wrapped"];

const OTHERS: [&str; 6] = [
    "families/gemma3n",
    "families/gemma3n-pair",
    "families/gemma4",
    "families/gemma4-keys",
    "families/llama4",
    "families/llama4-pair",
];

fn logits(decoder: &Decoder, tokens: &[Token], cache: Option<&mut Cache>) -> Vec<Vec<f32>> {
    let at: Vec<usize> = (0..tokens.len()).collect();
    decoder.forward(tokens, cache, &at, &mut ()).unwrap().to_vec2().unwrap()
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-5 * most), "{name}");
    }
}

fn numbered(tokens: &[Token], row: usize) -> Vec<Token> {
    tokens.iter().map(|token| Token { row, ..token.clone() }).collect()
}

#[test]
fn rows_that_are_cut_join_and_leave_go_on_as_they_are_alone() {
    for name in RECURRENT.into_iter().chain(OTHERS) {
        let (decoder, rows) = (decoder(name), expected(name).rows());
        let (long, short) = (tokens(&rows[..1]), tokens(&rows[1..]));
        let (whole, other) = (logits(&decoder, &long, None), logits(&decoder, &short, None));
        let mut cache = Cache::default();
        // Cut within the span of the convolution, in a row whose number isn't 0.
        let first = logits(&decoder, &numbered(&long[..2], 3), Some(&mut cache));
        assert_close(&first, &whole[..2], name);
        // A shorter row joins, on a lower number, and goes first.
        let both = [&numbered(&short[..5], 1)[..], &numbered(&long[2..3], 3)].concat();
        let given = logits(&decoder, &both, Some(&mut cache));
        assert_close(&given[..5], &other[..5], name);
        assert_close(&given[5..], &whole[2..3], name);
        // It leaves, and another takes its number; the order of the rows changes.
        cache.forget(1);
        let both = [&numbered(&long[3..9], 3)[..], &numbered(&short, 1)].concat();
        let given = logits(&decoder, &both, Some(&mut cache));
        assert_close(&given[..6], &whole[3..9], name);
        assert_close(&given[6..], &other, name);
        let rest = logits(&decoder, &numbered(&long[9..], 3), Some(&mut cache));
        assert_close(&rest, &whole[9..], name);
    }
}

#[test]
fn a_prefix_is_taken_whole_or_refused() {
    for name in RECURRENT {
        let (decoder, rows) = (decoder(name), expected(name).rows());
        let long = tokens(&rows[..1]);
        let whole = logits(&decoder, &long, None);
        let mut cache = Cache::default();
        logits(&decoder, &long[..8], Some(&mut cache));
        let prefix = cache.copy(0, 8).unwrap();
        assert!(prefix.bytes() > 0);
        let error = cache.copy(0, 5).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("a recurrent state after 8 tokens of a row, of which 5 are asked for"),
            "{error}"
        );
        let error = cache.begin(2, &prefix, 5, 0).unwrap_err().to_string();
        assert!(error.contains("all of them: such a state can't be cut"), "{error}");
        assert_eq!(cache.length(2), 0);
        // Nothing of a prefix is nothing.
        cache.begin(2, &prefix, 0, 0).unwrap();
        assert_close(&logits(&decoder, &numbered(&long[..3], 2), Some(&mut cache)), &whole[..3], name);
        cache.begin(1, &prefix, 8, 0).unwrap();
        let both = [&long[8..], &numbered(&long[8..], 1)].concat();
        let given = logits(&decoder, &both, Some(&mut cache));
        assert_close(&given[..long.len() - 8], &whole[8..], name);
        assert_close(&given[long.len() - 8..], &whole[8..], name);
        // Rows after a shared prefix, which none of them changes.
        for _ in 0..2 {
            let rows = [&long[8..], &numbered(&long[8..], 1)].concat();
            let given = logits(&decoder, &rows, Some(&mut Cache::after(prefix.clone())));
            assert_close(&given[..long.len() - 8], &whole[8..], name);
            assert_close(&given[long.len() - 8..], &whole[8..], name);
        }
        // Prefixes of rows that leave are as good.
        let taken = cache.take(2);
        cache.begin(4, &taken, 3, 0).unwrap();
        assert_close(&logits(&decoder, &numbered(&long[3..], 4), Some(&mut cache)), &whole[3..], name);
        assert_eq!(decoder.prefix_tokens(), None);
        assert!(decoder.part_tokens().is_some());
    }
    assert!(decoder("families/qwen3").prefix_tokens().is_some());
}

#[test]
fn a_part_of_a_prefix_serves_blocks_that_share_keys_and_values() {
    for name in OTHERS {
        let (decoder, rows) = (decoder(name), expected(name).rows());
        let (long, short) = (tokens(&rows[..1]), tokens(&rows[1..]));
        let whole = logits(&decoder, &long, None);
        let mut cache = Cache::default();
        // A row beside it, so that rows and their numbers differ.
        logits(&decoder, &[&numbered(&short, 0)[..], &numbered(&long[..8], 1)].concat(), Some(&mut cache));
        let prefix = cache.copy(1, 6).unwrap();
        cache.begin(2, &prefix, 5, 0).unwrap();
        let both = [&numbered(&long[8..], 1)[..], &numbered(&long[5..], 2)].concat();
        let given = logits(&decoder, &both, Some(&mut cache));
        assert_close(&given[..long.len() - 8], &whole[8..], name);
        assert_close(&given[long.len() - 8..], &whole[5..], name);
        for _ in 0..2 {
            let rows = [&long[6..], &numbered(&long[6..], 1)].concat();
            let given = logits(&decoder, &rows, Some(&mut Cache::after(prefix.clone())));
            assert_close(&given[..long.len() - 6], &whole[6..], name);
            assert_close(&given[long.len() - 6..], &whole[6..], name);
        }
        assert!(decoder.prefix_tokens().is_some());
    }
}

/// A hook that fails in the last block.
struct Fail(usize);

impl Hook for Fail {
    fn wants(&self, site: Site) -> bool {
        site == Site::Block(self.0, Point::MlpOut)
    }

    fn call(&mut self, site: Site, _: Tensor, _: &[Token]) -> Result<Tensor> {
        Err(Error::input(site, "a failure", "none"))
    }
}

#[test]
fn a_pass_that_fails_leaves_the_state_as_it_was() {
    for name in RECURRENT {
        let (decoder, rows) = (decoder(name), expected(name).rows());
        let long = tokens(&rows[..1]);
        let (whole, last) = (logits(&decoder, &long, None), decoder.architecture().blocks.len() - 1);
        let mut cache = Cache::default();
        for begin in [0, 6] {
            let failed = decoder.forward(&long[begin..begin + 4], Some(&mut cache), &[0], &mut Fail(last));
            assert!(failed.is_err());
            cache.undo().unwrap();
            let given = logits(&decoder, &long[begin..begin + 6], Some(&mut cache));
            assert_close(&given, &whole[begin..begin + 6], name);
        }
    }
}

#[test]
fn a_model_of_several_residual_streams_has_no_logit_lens() {
    let states = Tensor::zeros((1, 16), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    let error = decoder("families/gemma3n").lens(states.clone()).map(drop).unwrap_err().to_string();
    assert!(error.contains("several residual streams"), "{error}");
    assert!(decoder("families/gemma4").lens(states).is_ok());
}

#[test]
fn blocks_without_attention_have_no_attention_weights() {
    let decoder = decoder("families/qwen3_next");
    let architecture = decoder.architecture();
    assert!(!architecture.has(Site::Block(0, Point::AttnWeights)));
    assert!(architecture.has(Site::Block(1, Point::AttnWeights)));
    assert_eq!(architecture.site_width(Site::Block(0, Point::AttnHeads)), 4 * 6);
    assert_eq!(architecture.site_width(Site::Block(1, Point::AttnHeads)), 4 * 8);
}
