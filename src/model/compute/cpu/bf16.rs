//! Conversion of f32 to bf16 pairs, two neighbours of a row side by side, as the bf16 instructions read them: the rounded values
//! and the rounding residuals.

#![cfg(target_arch = "x86_64")]

use candle_core::Result;
use half::bf16;
use rayon::prelude::*;

use super::avx512_microkernel::PANEL;
use crate::model::weights::huge_pages::PageBuffer;

pub(crate) type Pair = [bf16; 2];

/// Packs a matrix into `[panels, inputs / 2, 64]`.
pub(crate) fn pack_pairs(rows: &[bf16], (outputs, inputs): (usize, usize)) -> Result<PageBuffer<Pair>> {
    let steps = inputs.div_ceil(2);
    let mut out = PageBuffer::zeros(outputs.div_ceil(PANEL) * PANEL * steps)?;
    out.par_chunks_mut((PANEL * steps).max(1)).enumerate().for_each(|(panel, out)| {
        let rows = &rows[panel * PANEL * inputs..];
        for (lane, row) in rows.chunks_exact(inputs.max(1)).take(PANEL).enumerate() {
            for (at, pair) in row.chunks(2).enumerate() {
                out[at * PANEL + lane] = [pair[0], pair.get(1).copied().unwrap_or(bf16::ZERO)];
            }
        }
    });
    Ok(out)
}

/// Converts a row element by element; elements of `out` beyond it stay unchanged.
///
/// # Safety
/// Only with AVX-512F.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn map_row(x: &[f32], out: &mut [bf16], part: impl Fn(f32) -> bf16) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = part(*x);
    }
}

/// Rounds to nearest, ties to even; overflow becomes infinity.
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let up = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    bf16::from_bits(if x.is_nan() { 0x7FC0 } else { up as u16 })
}

/// The rounding residual, itself rounded; 0 for values that are not finite.
#[inline(always)]
pub(crate) fn rounding_residual(x: f32) -> bf16 {
    let left = x - f32::from_bits(u32::from(round_to_bf16(x).to_bits()) << 16);
    round_to_bf16(if left.is_finite() { left } else { 0.0 })
}
