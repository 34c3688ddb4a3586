//! Attention weights for readers: the softmax of every head, written out.
//!
//! The kernels of the forward pass never hold them whole; this one computes them again, in f64 sums, and only where a hook asks.

use std::ops::Range;

use rayon::prelude::*;

use super::heads::Heads;

/// The weights `[tokens, query heads × keys]`, flat, where `keys` is the longest row: zero past a row's own keys and where a token does
/// not look. `queries`: `[tokens, query heads, head width]`, after the rotary embedding, as the keys. `rows`: the range of each row's
/// new tokens, with all its keys `[past + new, key heads, head width]`.
/// `sinks`: the score of each query head's sink, which takes its share and is left out.
pub(crate) fn attention_weights(
    queries: &[f32],
    heads: Heads,
    sinks: Option<&[f32]>,
    rows: &[(Range<usize>, &[f32])],
) -> Vec<f32> {
    let (token, key_token) = (heads.queries * heads.width, heads.keys * heads.width);
    let longest = rows.iter().map(|(_, keys)| keys.len() / key_token).max().unwrap_or(0);
    let mut weights = vec![0f32; queries.len() / token.max(1) * heads.queries * longest];
    let mut places: Vec<(usize, Range<usize>, &[f32])> = Vec::new();
    for (tokens, keys) in rows {
        places.extend(tokens.clone().map(|at| (at, tokens.clone(), *keys)));
    }
    places.sort_by_key(|(at, ..)| *at);
    let each = weights.par_chunks_mut((heads.queries * longest).max(1)).zip(places);
    each.for_each(|(own, (at, tokens, keys))| {
        let held = keys.len() / key_token;
        let position = held - tokens.len() + at - tokens.start;
        let visible = heads.visible(position, held);
        for (head, own) in own.chunks_mut(longest).enumerate() {
            let query = &queries[at * token + head * heads.width..][..heads.width];
            let offset = head / heads.group_size() * heads.width;
            let score = |key: usize| {
                let key = &keys[key * key_token + offset..][..heads.width];
                let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let score = dot * f64::from(heads.scale);
                heads.cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            };
            let scores: Vec<f64> = visible.clone().map(score).collect();
            let sink = sinks.map_or(f64::NEG_INFINITY, |sinks| f64::from(sinks[head]));
            let most = scores.iter().copied().fold(sink, f64::max);
            let sum: f64 = scores.iter().chain([&sink]).map(|score| (score - most).exp()).sum();
            for (own, score) in own[visible.clone()].iter_mut().zip(&scores) {
                *own = ((score - most).exp() / sum) as f32;
            }
        }
    });
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_by_hand() {
        // One head of width 1 with scale 1; a row of two tokens, then one of a token with a token before it.
        let heads = Heads { scale: 1.0, ..Heads::causal(1, 1, 1) };
        let third = (1f32.exp()) / (1.0 + 1f32.exp());
        let (first, second): (&[f32], &[f32]) = (&[0.0, 1.0], &[2.0, 2.0]);
        let found = attention_weights(&[5.0, 1.0, 3.0], heads, None, &[(0..2, first), (2..3, second)]);
        let expected = [1.0, 0.0, 1.0 - third, third, 0.5, 0.5];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7), "{found:?}");
        let window = Heads { window: Some(1), ..heads };
        assert_eq!(attention_weights(&[5.0, 1.0], window, None, &[(0..2, first)]), [1.0, 0.0, 0.0, 1.0]);
        // A sink with the score of the one key takes half.
        assert_eq!(attention_weights(&[5.0], heads, Some(&[5.0]), &[(0..1, &[1.0])]), [0.5]);
        let encoder = Heads { causal: false, ..heads };
        let found = attention_weights(&[0.0, 0.0], encoder, None, &[(0..2, first)]);
        assert_eq!(found, [0.5; 4]);
    }

    #[test]
    fn query_heads_share_their_key_head() {
        // Four query heads over two key heads; head 2 and 3 read the second.
        let heads = Heads { scale: 1.0, ..Heads::causal(4, 2, 1) };
        let keys = [0.0f32, 0.0, 0.0, 2f32.ln()];
        let queries = [0.0f32, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let found = attention_weights(&queries, heads, None, &[(0..2, &keys)]);
        let second: Vec<f32> = found[8..].to_vec();
        for (a, b) in second.iter().zip([0.5, 0.5, 0.5, 0.5, 1.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0]) {
            assert!((a - b).abs() < 1e-6, "{second:?}");
        }
    }
}
