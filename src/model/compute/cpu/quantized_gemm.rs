//! Product of a few tokens with Q8_0 blocks (an f16 scale and 32 signed bytes), dequantised in registers: writing the values to
//! memory first would take longer than reading them.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use super::output_columns::OutputColumns;

/// Bytes and values of a block.
const BYTES: usize = 34;
const NUMBERS: usize = 32;

/// Tokens of one kernel call.
const TOKENS: usize = 8;

/// Prefetch distance in bytes, at least.
const AHEAD: usize = 1 << 13;

/// All rows of blocks with every token. `x`: `[tokens, inputs]`; `inputs` is a multiple of 32.
///
/// # Safety
/// Only with AVX-512F and F16C; `out` must have the tokens and rows, and no other thread may write them.
#[target_feature(enable = "avx512f,f16c")]
pub(crate) unsafe fn block(x: &[f32], rows: &[u8], out: OutputColumns, inputs: usize) {
    for (group, x) in x.chunks((TOKENS * inputs).max(1)).enumerate() {
        let first = group * TOKENS;
        // As many rows as leave every accumulator in a register.
        // SAFETY: as the caller says.
        unsafe {
            match x.len() / inputs {
                1 => each::<1, 4>(x, rows, out, inputs, first),
                2 => each::<2, 4>(x, rows, out, inputs, first),
                3 => each::<3, 4>(x, rows, out, inputs, first),
                4 => each::<4, 4>(x, rows, out, inputs, first),
                5 => each::<5, 4>(x, rows, out, inputs, first),
                6 => each::<6, 2>(x, rows, out, inputs, first),
                7 => each::<7, 2>(x, rows, out, inputs, first),
                _ => each::<TOKENS, 2>(x, rows, out, inputs, first),
            }
        }
    }
}

/// All rows with `N` tokens, `R` rows at a time.
#[target_feature(enable = "avx512f,f16c")]
unsafe fn each<const N: usize, const R: usize>(
    x: &[f32],
    rows: &[u8],
    out: OutputColumns,
    inputs: usize,
    first: usize,
) {
    let width = inputs / NUMBERS * BYTES;
    let mut groups = rows.chunks_exact(R * width);
    let whole = groups.len() * R;
    // SAFETY: as the caller says.
    unsafe {
        for (group, rows) in groups.by_ref().enumerate() {
            few::<N, R>(x, rows, out, inputs, (first, group * R));
        }
        for (row, rows) in groups.remainder().chunks_exact(width).enumerate() {
            few::<N, 1>(x, rows, out, inputs, (first, whole + row));
        }
    }
}

/// `R` rows with `N` tokens. The summation order of an element doesn't depend on the others.
#[target_feature(enable = "avx512f,f16c")]
unsafe fn few<const N: usize, const R: usize>(
    x: &[f32],
    rows: &[u8],
    out: OutputColumns,
    inputs: usize,
    (first_token, first_row): (usize, usize),
) {
    let width = inputs / NUMBERS * BYTES;
    let mut sums = [[_mm512_setzero_ps(); R]; N];
    // SAFETY: the rows have their blocks, every token has `inputs` elements, and `out` has the columns. A prefetch of any address is
    // harmless.
    unsafe {
        for at in 0..inputs / NUMBERS {
            // Prefetches the next rows in memory order.
            let next = rows.as_ptr().wrapping_add(AHEAD + R * at * BYTES);
            for line in (0..R * BYTES).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line).cast());
            }
            let weights: [[__m512; 2]; R] = std::array::from_fn(|row| {
                let block = rows.as_ptr().add(row * width + at * BYTES);
                let scale = _mm512_cvtph_ps(_mm256_set1_epi16(block.cast::<i16>().read_unaligned()));
                let numbers = |from: usize| {
                    let bytes = _mm_loadu_si128(block.add(from).cast());
                    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), scale)
                };
                [numbers(2), numbers(18)]
            });
            for (token, sums) in sums.iter_mut().enumerate() {
                let x = x.as_ptr().add(token * inputs + at * NUMBERS);
                let (low, high) = (_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16)));
                for (sum, [first, second]) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_fmadd_ps(second, high, _mm512_fmadd_ps(first, low, *sum));
                }
            }
        }
        for (token, sums) in sums.into_iter().enumerate() {
            for (row, sum) in sums.into_iter().enumerate() {
                out.set(first_token + token, first_row + row, _mm512_reduce_add_ps(sum));
            }
        }
    }
}
