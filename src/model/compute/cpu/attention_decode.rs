//! Attention of a few new tokens (decoding): keys and values are read once, in place.

use rayon::prelude::*;

use super::kv_segment::{HeadOutputs, KvSegment};
use super::vector_math::{self, simd_dispatch};
use crate::model::compute::heads::Heads;

/// Writes the outputs of the segments' tokens, `[tokens, query heads, head width]`.
///
/// # Safety
/// `out` must have room for every token of the segments, and no other thread may write there.
pub(crate) unsafe fn attend(
    queries: &[f32],
    heads: Heads,
    sinks: Option<&[f32]>,
    segments: &[&KvSegment],
    out: HeadOutputs,
) {
    let all = segments.iter().flat_map(|&segment| (0..heads.keys).map(move |key_head| (segment, key_head)));
    let all: Vec<_> = all.collect();
    all.into_par_iter().for_each(|(segment, key_head)| {
        // SAFETY: as the caller says; each key head has its own outputs.
        let group = heads.group_size();
        let sinks = sinks.map(|sinks| &sinks[key_head * group..][..group]);
        simd_dispatch!(unsafe { head(queries, heads, sinks, segment, key_head, out) })
    });
}

#[inline(always)]
unsafe fn head(
    queries: &[f32],
    heads: Heads,
    sinks: Option<&[f32]>,
    segment: &KvSegment,
    key_head: usize,
    out: HeadOutputs,
) {
    let (width, group, row) = (heads.width, heads.group_size(), heads.keys * heads.width);
    let count = segment.keys.len() / row;
    let past = count - segment.tokens.len();
    let mut weights = Vec::new();
    for (position, token) in (past..).zip(segment.tokens.clone()) {
        let seen = heads.visible(position, count);
        let place = (token * heads.queries + key_head * group) * width;
        weights.clear();
        weights.resize(group * seen.len(), 0f32);
        for (at, key) in seen.clone().enumerate() {
            let key = &segment.keys[key * row + key_head * width..][..width];
            for (head, query) in queries[place..][..group * width].chunks_exact(width).enumerate() {
                weights[head * seen.len() + at] =
                    heads.scale * vector_math::sum(width, |i| query[i] * key[i]);
            }
        }
        for (head, weights) in weights.chunks_exact_mut(seen.len().max(1)).enumerate() {
            vector_math::softmax(weights, heads.cap, sinks.map(|sinks| sinks[head]));
        }
        // SAFETY: `out` has the token's heads, and only this thread writes them.
        let out = unsafe { out.slice(place..place + group * width) };
        out.fill(0.0);
        for (at, value) in seen.clone().enumerate() {
            let value = &segment.values[value * row + key_head * width..][..width];
            for (head, out) in out.chunks_exact_mut(width).enumerate() {
                let weight = weights[head * seen.len() + at];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
            }
        }
    }
}
