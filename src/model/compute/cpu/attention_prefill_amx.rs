//! Attention of many new tokens (prefill) on AMX tiles. Each f32 value is multiplied as two bf16 parts, which keeps about
//! sixteen bits of it, or as one part if the projections before it rounded too.

#![cfg(target_arch = "x86_64")]

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::amx::{self, COLUMNS};
use super::bf16::{Pair, map_row, round_to_bf16, rounding_residual};
use super::kv_segment::{HeadOutputs, KvSegment};
use super::vector_math::{self, simd_dispatch};
use crate::model::compute::heads::Heads;

/// Query rows (a token's heads that share a key head, token by token) of one block of work: their scores stay in a core's cache.
pub(super) const BLOCK_ROWS: usize = 64;

/// A matrix as two bf16 parts: the rounded values, and the rounding residuals or nothing.
type SplitTiles = [amx::Tiles; 2];

/// Zeroed tiles for both parts, or for the first alone.
fn zeros(pairs: usize, heads: Heads) -> SplitTiles {
    [amx::Tiles::zeros(pairs), amx::Tiles::zeros(if heads.round_to_bf16 { 0 } else { pairs })]
}

/// Products with one panel of [`COLUMNS`] columns.
///
/// # Safety
/// As [`amx::multiply`].
#[inline(always)]
unsafe fn multiply<'a>(
    x: &SplitTiles,
    panel: impl Fn(usize) -> &'a [Pair],
    steps: usize,
    rows: usize,
    (out, stride): (*mut f32, usize),
) {
    let [large, small] = x;
    let rounded = (&large[..], panel(0));
    // SAFETY: as the caller says.
    unsafe {
        if small.is_empty() {
            return amx::multiply(&[rounded], steps, 0..rows, COLUMNS, out, stride);
        }
        // Small terms first; the product of the two residuals is dropped.
        let sides = [(&small[..], panel(0)), (&large[..], panel(1)), rounded];
        amx::multiply(&sides, steps, 0..rows, COLUMNS, out, stride);
    }
}

const ZERO: Pair = [bf16::ZERO; 2];

/// The keys and values of one key head of a segment, packed into panels of tiles.
struct PackedKv<'a> {
    segment: &'a KvSegment<'a>,
    key_head: usize,
    /// Columns are tokens, inputs are elements of the head.
    keys: SplitTiles,
    /// Columns are elements of the head, inputs are tokens.
    values: SplitTiles,
}

/// Writes the outputs of the segments' tokens, `[tokens, query heads, head width]`.
///
/// # Safety
/// Only with AMX; `out` must have room for every token of the segments, and no other thread may write there.
pub(crate) unsafe fn attend(
    queries: &[f32],
    heads: Heads,
    sinks: Option<&[f32]>,
    segments: &[&KvSegment],
    out: HeadOutputs,
) {
    let all = segments.iter().flat_map(|&segment| (0..heads.keys).map(move |key_head| (segment, key_head)));
    let all: Vec<_> = all.collect();
    let packed: Vec<PackedKv> =
        all.into_par_iter().map(|(segment, key_head)| PackedKv::new(segment, key_head, heads)).collect();
    let many = (BLOCK_ROWS / heads.group_size()).max(1);
    let blocks = packed.iter().flat_map(|packed| {
        let tokens = packed.segment.tokens.clone();
        tokens.clone().step_by(many).map(move |begin| (packed, begin..tokens.end.min(begin + many)))
    });
    let blocks: Vec<_> = blocks.collect();
    blocks.into_par_iter().for_each(|(packed, tokens)| {
        SCRATCH.with_borrow_mut(|scratch| {
            // SAFETY: as the caller says; each block has its own tokens and heads.
            simd_dispatch!(unsafe { packed.attend(queries, heads, sinks, tokens, scratch, out) })
        })
    });
}

impl<'a> PackedKv<'a> {
    fn new(segment: &'a KvSegment, key_head: usize, heads: Heads) -> PackedKv<'a> {
        let (row, width) = (heads.keys * heads.width, heads.width);
        let count = segment.keys.len() / row;
        // Steps of the products with keys and with values.
        let (inner, outer) = (amx::steps(width), count.div_ceil(COLUMNS) * COLUMNS / amx::INPUTS);
        let (key_panel, value_panel) = (amx::panel_size(inner), amx::panel_size(outer));
        let mut keys = zeros(count.div_ceil(COLUMNS) * key_panel, heads);
        let mut values = zeros(width.div_ceil(COLUMNS) * value_panel, heads);
        let numbers = |of: &'a [f32], token: usize| match token < count {
            true => &of[token * row + key_head * width..][..width],
            // An odd number of tokens has no partner for the last one.
            false => &[],
        };
        let mut pairs = vec![ZERO; width.div_ceil(2)];
        for token in 0..count {
            let begin = token / COLUMNS * key_panel;
            for (part, keys) in keys.iter_mut().enumerate().filter(|(_, keys)| !keys.is_empty()) {
                let (key, row) = (numbers(segment.keys, token), pairs.as_flattened_mut());
                // SAFETY: AMX implies AVX-512F.
                unsafe {
                    if part == 0 {
                        map_row(key, row, round_to_bf16)
                    } else {
                        map_row(key, row, rounding_residual)
                    }
                }
                for (at, pair) in pairs.iter().enumerate() {
                    keys[begin + amx::panel_index(at, token % COLUMNS)] = *pair;
                }
            }
        }
        for token in (0..count).step_by(2) {
            let (first, second) = (numbers(segment.values, token), numbers(segment.values, token + 1));
            for column in (0..width).step_by(amx::ROWS) {
                let place = column / COLUMNS * value_panel + amx::panel_index(token / 2, column % COLUMNS);
                let many = amx::ROWS.min(width - column);
                let first = &first[column..column + many];
                let second = second.get(column..column + many).unwrap_or(&[0.0; amx::ROWS][..many]);
                let [large, small] = &mut values;
                // SAFETY: as above.
                unsafe {
                    interleave(first, second, &mut large[place..place + many], round_to_bf16);
                    if !small.is_empty() {
                        interleave(first, second, &mut small[place..place + many], rounding_residual);
                    }
                }
            }
        }
        PackedKv { segment, key_head, keys, values }
    }

    /// Attention of the batch's `tokens`.
    #[inline(always)]
    unsafe fn attend(
        &self,
        queries: &[f32],
        heads: Heads,
        sinks: Option<&[f32]>,
        tokens: Range<usize>,
        scratch: &mut Scratch,
        out: HeadOutputs,
    ) {
        let (width, group) = (heads.width, heads.group_size());
        let row = heads.queries * width;
        let rows = tokens.len() * group;
        let count = self.segment.keys.len() / (heads.keys * width);
        let position = count - self.segment.tokens.len() + tokens.start - self.segment.tokens.start;
        // Whole panels of keys that any of the tokens attends to.
        let last = heads.visible(position + tokens.len() - 1, count).end;
        let seen = heads.visible(position, count).start / COLUMNS * COLUMNS..last.next_multiple_of(COLUMNS);
        let begin = |token: usize| token * row + self.key_head * group * width;

        let Scratch { query, scores, weights, outputs, normalisers } = scratch;
        let steps = amx::steps(width);
        let panel_size = amx::panel_size(steps);
        resize(query, amx::rows_size(rows, steps), heads);
        let numbers =
            tokens.clone().flat_map(|token| queries[begin(token)..][..group * width].chunks_exact(width));
        numbers.enumerate().for_each(|(slot, numbers)| split_row(numbers, query, slot, steps));
        scores.resize(rows * seen.len(), 0.0);
        for panel in seen.clone().step_by(COLUMNS) {
            let key = |part: usize| &self.keys[part][panel / COLUMNS * panel_size..][..panel_size];
            // SAFETY: every row has `seen` columns.
            unsafe {
                let to = scores.as_mut_ptr().add(panel - seen.start);
                multiply(query, key, steps, rows, (to, seen.len()));
            }
        }
        let steps = amx::steps(seen.len());
        resize(weights, amx::rows_size(rows, steps), heads);
        normalisers.clear();
        for (slot, scores) in scores.chunks_exact_mut(seen.len()).enumerate() {
            let sees = heads.visible(position + slot / group, count);
            let sees = sees.start - seen.start..sees.end - seen.start;
            let sink = sinks.map(|sinks| sinks[self.key_head * group + slot % group]);
            normalisers.push(exponentials(&mut scores[sees.clone()], heads, sink));
            scores[..sees.start].fill(0.0);
            scores[sees.end..].fill(0.0);
            split_row(scores, weights, slot, steps);
        }
        let columns = width.next_multiple_of(COLUMNS);
        outputs.resize(rows * columns, 0.0);
        let (whole, first) =
            (self.values[0].len() / (columns / COLUMNS), amx::panel_size(amx::steps(seen.start)));
        for panel in 0..columns / COLUMNS {
            let value = |part: usize| &self.values[part][panel * whole + first..(panel + 1) * whole];
            // SAFETY: every row has `columns` columns.
            unsafe {
                let to = outputs.as_mut_ptr().add(panel * COLUMNS);
                multiply(weights, value, steps, rows, (to, columns));
            }
        }
        for (slot, outputs) in outputs.chunks_exact(columns).enumerate() {
            let place = begin(tokens.start + slot / group) + slot % group * width;
            // SAFETY: `out` has the token's head, and only this block writes it.
            let out = unsafe { out.slice(place..place + width) };
            out.iter_mut().zip(outputs).for_each(|(out, outputs)| *out = outputs * normalisers[slot]);
        }
    }
}

/// Buffers of one block of work, reused by the next.
#[derive(Default)]
struct Scratch {
    query: SplitTiles,
    /// `[rows, seen]`
    scores: Vec<f32>,
    weights: SplitTiles,
    /// `[rows, head width]`, padded to whole panels.
    outputs: Vec<f32>,
    /// The factor that makes each row's weights sum to 1.
    normalisers: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Replaces scores by exponentials, the largest of them (and of the sink's) 1; gives the factor that makes them, with the sink's, sum to 1.
#[inline(always)]
fn exponentials(scores: &mut [f32], heads: Heads, sink: Option<f32>) -> f32 {
    let mut scale = heads.scale;
    if let Some(cap) = heads.cap {
        scores.iter_mut().for_each(|score| *score = cap * vector_math::tanh(*score * scale / cap));
        scale = 1.0;
    }
    let sink = sink.unwrap_or(f32::NEG_INFINITY);
    let largest = (scale * vector_math::max(scores)).max(sink);
    let dropped = if sink == f32::NEG_INFINITY { 0.0 } else { vector_math::exp(sink - largest) };
    let mut sums = [0f32; 16];
    let (whole, rest) = scores.as_chunks_mut::<16>();
    for chunk in whole {
        for (score, sum) in chunk.iter_mut().zip(&mut sums) {
            *score = vector_math::exp(*score * scale - largest);
            *sum += *score;
        }
    }
    for (score, sum) in rest.iter_mut().zip(&mut sums) {
        *score = vector_math::exp(*score * scale - largest);
        *sum += *score;
    }
    1.0 / (sums.iter().sum::<f32>() + dropped)
}

fn resize([large, small]: &mut SplitTiles, pairs: usize, heads: Heads) {
    large.resize(pairs);
    small.resize(if heads.round_to_bf16 { 0 } else { pairs });
}

/// Writes a row as its bf16 parts.
#[inline(always)]
fn split_row(numbers: &[f32], [large, small]: &mut SplitTiles, slot: usize, steps: usize) {
    let tile = amx::rows_size(amx::ROWS, steps);
    let at = slot / amx::ROWS * tile;
    let large = &mut large[at..at + tile];
    let small = (!small.is_empty()).then(|| small[at..at + tile].as_mut_ptr());
    // SAFETY: only with AMX; the slices have the tiles of the row.
    unsafe { amx::write_row(numbers, slot % amx::ROWS, large.as_mut_ptr(), small) }
}

/// Interleaves two rows, element by element.
///
/// # Safety
/// Only with AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn interleave(first: &[f32], second: &[f32], out: &mut [Pair], part: impl Fn(f32) -> bf16) {
    for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
        *out = [part(*first), part(*second)];
    }
}
