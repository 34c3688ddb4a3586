//! The activations of a product with packed matrices, in the formats that the kernels read: f32 rows, bf16 pairs or AMX tiles.

#![cfg(target_arch = "x86_64")]

use std::borrow::Cow;
use std::cell::RefCell;

use rayon::prelude::*;

use super::amx;
use super::bf16::{Pair, map_row, round_to_bf16};
use super::fused_row::FusedRow;
use super::vector_math::simd_dispatch;

/// The formats to make.
#[derive(Clone, Copy, Default)]
pub(crate) struct InputForms {
    /// f32 rows.
    pub floats: bool,
    /// bf16 pairs.
    pub pairs: bool,
    /// Parts in tiles: 0, 1 (rounded values) or 2 (and residuals).
    pub parts: usize,
}

/// The activations in every format that was asked for.
#[derive(Default)]
pub(crate) struct PackedInput<'a> {
    /// `[tokens, inputs]`
    pub floats: Cow<'a, [f32]>,
    /// Rounded to bf16, `[tokens, inputs / 2]`.
    pub pairs: Vec<Pair>,
    /// In tiles: the rounded values, and the residuals if there are two parts.
    pub tiles: Vec<amx::Tiles>,
}

impl<'a> PackedInput<'a> {
    /// Computes the rows of the input in the formats that are needed.
    pub fn new(row: &FusedRow<'a>, tokens: usize, inputs: usize, forms: InputForms) -> PackedInput<'a> {
        PackedInput {
            floats: match row {
                _ if !forms.floats => Cow::Borrowed(&[]),
                FusedRow::Plain(x) => Cow::Borrowed(x),
                _ => each_row(row, tokens, inputs, inputs, |row, out: &mut [f32]| out.copy_from_slice(row))
                    .into(),
            },
            pairs: match forms.pairs {
                true => each_row(row, tokens, inputs, inputs.div_ceil(2), |row, out: &mut [Pair]| {
                    // SAFETY: the backends with bf16 products imply AVX-512F.
                    unsafe { map_row(row, out.as_flattened_mut(), round_to_bf16) }
                }),
                false => Vec::new(),
            },
            tiles: match forms.parts {
                0 => Vec::new(),
                parts => tile_rows(row, tokens, inputs, parts),
            },
        }
    }
}

thread_local! {
    /// One row in f32.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `write` applied to each token's row, `[tokens, width]`.
fn each_row<T: Copy + Default + Send>(
    row: &FusedRow,
    tokens: usize,
    inputs: usize,
    width: usize,
    write: impl Fn(&[f32], &mut [T]) + Sync,
) -> Vec<T> {
    let mut out = vec![T::default(); tokens * width];
    out.par_chunks_mut(width.max(1)).enumerate().with_min_len(16).for_each(|(token, out)| {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(inputs, 0.0);
            simd_dispatch!(row.write(token, scratch));
            write(scratch, out);
        });
    });
    out
}

/// Every token's row in tiles, in `parts` parts.
fn tile_rows(row: &FusedRow, tokens: usize, inputs: usize, parts: usize) -> Vec<amx::Tiles> {
    let tiles = TileWriter::new(tokens, amx::steps(inputs), parts);
    (0..tokens).into_par_iter().with_min_len(amx::ROWS).for_each(|token| {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(inputs, 0.0);
            simd_dispatch!(row.write(token, scratch));
            // SAFETY: each token has its own rows of the tiles.
            unsafe { tiles.write(scratch, token, 0) };
        });
    });
    tiles.finish()
}

/// Tiles of a batch's rows while threads write them, in one or two parts.
pub(crate) struct TileWriter {
    parts: Vec<amx::Tiles>,
    places: [*mut Pair; 2],
    steps: usize,
    size: usize,
}

// SAFETY: no two threads write the same rows, as `write` demands.
unsafe impl Sync for TileWriter {}

impl TileWriter {
    /// Tiles for so many tokens.
    pub fn new(tokens: usize, steps: usize, parts: usize) -> TileWriter {
        let size = amx::rows_size(tokens, steps);
        // Rows of the last tile beyond the tokens are never read, but must be initialised.
        let last = amx::rows_size(tokens.min(1), steps);
        let mut parts: Vec<_> = (0..parts).map(|_| amx::Tiles::with_room(size, last)).collect();
        let mut places = [std::ptr::null_mut(); 2];
        parts.iter_mut().zip(&mut places).for_each(|(part, place)| *place = part.as_mut_ptr());
        TileWriter { parts, places, steps, size }
    }

    /// Writes some of a token's elements, from `first` on, a multiple of [`amx::INPUTS`].
    ///
    /// # Safety
    /// Only with AMX; no other thread may write there.
    pub unsafe fn write(&self, numbers: &[f32], token: usize, first: usize) {
        let at = token / amx::ROWS * amx::rows_size(1, self.steps) + amx::rows_size(1, first / amx::INPUTS);
        // SAFETY: the tiles have the token and the elements.
        unsafe {
            let small = (self.parts.len() > 1).then(|| self.places[1].add(at));
            amx::write_row(numbers, token % amx::ROWS, self.places[0].add(at), small);
        }
    }

    /// The tiles, once every token has been written.
    pub fn finish(mut self) -> Vec<amx::Tiles> {
        // SAFETY: all of it was written.
        self.parts.iter_mut().for_each(|part| unsafe { part.written(self.size) });
        self.parts
    }
}
