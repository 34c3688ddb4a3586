//! The product of few tokens with rows of Q8_0 blocks, met as they stand: a scale of f16, then thirty-two signed bytes. To
//! widen them first would take longer than to read them. It knows nothing of models.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use super::rows::Out;

/// Bytes and numbers of a block.
const BYTES: usize = 34;
const NUMBERS: usize = 32;

/// Tokens that meet a row at once.
const TOKENS: usize = 8;

/// Rows of blocks with every token. `x`: `[tokens, inputs]`, inputs whole blocks.
///
/// # Safety
/// Only where the processor has AVX-512F and F16C; `out` must have the tokens and the rows, and be no other thread's.
#[target_feature(enable = "avx512f,f16c")]
pub(super) unsafe fn block(x: &[f32], rows: &[u8], out: Out, inputs: usize) {
    let row_bytes = inputs / NUMBERS * BYTES;
    for (number, row) in rows.chunks_exact(row_bytes.max(1)).enumerate() {
        for (group, x) in x.chunks(TOKENS * inputs).enumerate() {
            // SAFETY: as the caller says.
            unsafe {
                match x.len() / inputs {
                    1 => tokens::<1>(x, row, inputs, out, group * TOKENS, number),
                    2 => tokens::<2>(x, row, inputs, out, group * TOKENS, number),
                    3 => tokens::<3>(x, row, inputs, out, group * TOKENS, number),
                    4 => tokens::<4>(x, row, inputs, out, group * TOKENS, number),
                    5 => tokens::<5>(x, row, inputs, out, group * TOKENS, number),
                    6 => tokens::<6>(x, row, inputs, out, group * TOKENS, number),
                    7 => tokens::<7>(x, row, inputs, out, group * TOKENS, number),
                    _ => tokens::<TOKENS>(x, row, inputs, out, group * TOKENS, number),
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,f16c")]
unsafe fn tokens<const N: usize>(
    x: &[f32],
    row: &[u8],
    inputs: usize,
    out: Out,
    first: usize,
    number: usize,
) {
    // Two sums a token, of even and of odd blocks, so that one need not wait for the other.
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    // SAFETY: a block has its bytes, every token as many inputs, and `out` the place.
    unsafe {
        for (at, block) in row.chunks_exact(BYTES).enumerate() {
            let scale = u16::from_le_bytes([block[0], block[1]]);
            let scale = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(scale))));
            let numbers = |from: usize| {
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(block.as_ptr().add(from).cast())))
            };
            let (low, high) = (numbers(2), numbers(18));
            for (token, sums) in sums.iter_mut().enumerate() {
                let x = x.as_ptr().add(token * inputs + at * NUMBERS);
                let products = _mm512_mul_ps(low, _mm512_loadu_ps(x));
                let products = _mm512_fmadd_ps(high, _mm512_loadu_ps(x.add(16)), products);
                sums[at % 2] = _mm512_fmadd_ps(scale, products, sums[at % 2]);
            }
        }
        for (token, [even, odd]) in sums.into_iter().enumerate() {
            out.set(first + token, number, _mm512_reduce_add_ps(_mm512_add_ps(even, odd)));
        }
    }
}
