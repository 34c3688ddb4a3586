//! Product of a few tokens with quantised blocks, dequantised in registers: writing the values to memory first would take
//! longer than reading them.

#![cfg(target_arch = "x86_64")]

use super::output_columns::OutputColumns;
use super::simd::x86::{Eight, Sixteen};
use super::simd::{LANES, Lanes, total};
use crate::model::weights::{
    BlockLayout, Lanes16, QuantFormat, ValueSink, block_layout::*, for_block_layout,
};

/// [`block_512`] or [`block_256`].
pub(crate) type BlockKernel = unsafe fn(QuantFormat, &[f32], &[u8], OutputColumns, usize);

/// Prefetch distance in bytes, at least.
const AHEAD: usize = 1 << 13;

/// The product of every token with all rows of blocks. `x`: `[tokens, inputs]`.
///
/// # Safety
/// Only with AVX-512 F, BW and VL, FMA and F16C; `rows` must be rows of `inputs` values, `out` must have the tokens and rows, and no
/// other thread may write them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,fma,f16c")]
pub(crate) unsafe fn block_512(kind: QuantFormat, x: &[f32], rows: &[u8], out: OutputColumns, inputs: usize) {
    // SAFETY: as the caller says.
    unsafe { by_format::<Sixteen, 8>(kind, x, rows, out, inputs) }
}

/// [`block_512`] with AVX2.
///
/// # Safety
/// As [`block_512`], with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn block_256(kind: QuantFormat, x: &[f32], rows: &[u8], out: OutputColumns, inputs: usize) {
    // SAFETY: as the caller says.
    unsafe { by_format::<[Eight; 2], 4>(kind, x, rows, out, inputs) }
}

/// `MOST` tokens are multiplied with a block at once: their sums have to stay in registers.
#[inline(always)]
unsafe fn by_format<L: Lanes<f32> + Lanes16, const MOST: usize>(
    kind: QuantFormat,
    x: &[f32],
    rows: &[u8],
    out: OutputColumns,
    inputs: usize,
) {
    macro_rules! with_layout {
        ($layout:ident) => {
            // SAFETY: as the caller says.
            unsafe { each_token::<L, $layout, MOST>(x, rows, out, inputs) }
        };
    }
    for_block_layout!(kind, with_layout);
}

/// Tokens by eights where `MOST` is 8, by fours, then two, then one.
#[inline(always)]
unsafe fn each_token<L: Lanes<f32> + Lanes16, F: BlockLayout, const MOST: usize>(
    x: &[f32],
    rows: &[u8],
    out: OutputColumns,
    inputs: usize,
) {
    let tokens = x.len() / inputs;
    let mut token = 0;
    while token < tokens {
        // SAFETY: as the caller says; the tokens are there.
        token += unsafe {
            match tokens - token {
                1 => each_row::<L, F, 1, 4>(x, rows, out, inputs, token),
                2 | 3 => each_row::<L, F, 2, 2>(x, rows, out, inputs, token),
                8.. if MOST == 8 => each_row::<L, F, 8, 1>(x, rows, out, inputs, token),
                _ => each_row::<L, F, 4, 1>(x, rows, out, inputs, token),
            }
        };
    }
}

/// All rows with `N` tokens, `R` rows at a time; gives `N`.
#[inline(always)]
unsafe fn each_row<L: Lanes<f32> + Lanes16, F: BlockLayout, const N: usize, const R: usize>(
    x: &[f32],
    rows: &[u8],
    out: OutputColumns,
    inputs: usize,
    first: usize,
) -> usize {
    let width = inputs / F::VALUES * size_of::<F::Block>();
    let mut groups = rows.chunks_exact(R * width);
    let whole = groups.len() * R;
    // SAFETY: as the caller says.
    unsafe {
        for (group, rows) in groups.by_ref().enumerate() {
            few_rows::<L, F, N, R>(x, rows, out, inputs, (first, group * R));
        }
        for (row, rows) in groups.remainder().chunks_exact(width).enumerate() {
            few_rows::<L, F, N, 1>(x, rows, out, inputs, (first, whole + row));
        }
    }
    N
}

/// `R` rows with `N` tokens. The summation order of an element is that of a product with dequantised rows (`gemm.rs`), so that the
/// number of tokens changes no bit.
#[inline(always)]
unsafe fn few_rows<L: Lanes<f32> + Lanes16, F: BlockLayout, const N: usize, const R: usize>(
    x: &[f32],
    rows: &[u8],
    out: OutputColumns,
    inputs: usize,
    (first_token, first_row): (usize, usize),
) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    let size = size_of::<F::Block>();
    let width = inputs / F::VALUES * size;
    // SAFETY: the rows have their blocks, every token has `inputs` elements, and `out` has the columns. A prefetch of any address
    // is harmless.
    unsafe {
        let mut sums = [[L::zero(); N]; R];
        for at in 0..inputs / F::VALUES {
            let next = rows.as_ptr().wrapping_add(AHEAD + R * at * size);
            for line in (0..R * size).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line).cast());
            }
            let x: [*const f32; N] =
                std::array::from_fn(|token| x.as_ptr().add((first_token + token) * inputs + at * F::VALUES));
            for (row, sums) in sums.iter_mut().enumerate() {
                let block = &*rows.as_ptr().add(row * width + at * size).cast::<F::Block>();
                F::decode::<L>(block, &mut Multiply { x, sums });
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (token, sum) in sums.into_iter().enumerate() {
                let mut lanes = [0f32; LANES];
                sum.store(lanes.as_mut_ptr());
                out.set(first_token + token, first_row + row, total(lanes));
            }
        }
    }
}

/// Adds the products of a block's values with `N` tokens to their sums.
struct Multiply<'a, L, const N: usize> {
    /// Where the block's inputs begin in each token.
    x: [*const f32; N],
    sums: &'a mut [L; N],
}

impl<L: Lanes<f32> + Lanes16, const N: usize> ValueSink<L> for Multiply<'_, L, N> {
    #[inline(always)]
    unsafe fn put(&mut self, group: usize, numbers: L::Bytes, scale: f32, add: f32) {
        // SAFETY: as the caller says; a token has sixteen inputs for each group.
        unsafe {
            let weight = L::scaled(numbers, scale, add);
            for (sum, x) in self.sums.iter_mut().zip(self.x) {
                *sum = sum.add_product(L::load(x.add(LANES * group)), weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::model::compute::backend::Backend;

    /// Products with dequantised rows, computed in the order of `gemm.rs`: sixteen sums, each by fused multiply-add.
    fn expected(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f32> {
        let dot = |x: &[f32], row: &[f32]| {
            let mut lanes = [0f32; LANES];
            for (at, (x, weight)) in x.iter().zip(row).enumerate() {
                lanes[at % LANES] = x.mul_add(*weight, lanes[at % LANES]);
            }
            total(lanes)
        };
        x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(move |row| dot(x, row))).collect()
    }

    #[test]
    fn every_format_gives_the_bits_of_a_product_with_dequantised_rows() {
        let (inputs, outputs) = (512, 13);
        let numbers = Tensor::randn(0f32, 1.0, (outputs, inputs), &Device::Cpu).unwrap();
        let tensors = "tests/fixtures/gguf/blocks.safetensors";
        let tensors = candle_core::safetensors::load(tensors, &Device::Cpu).unwrap();
        for kind in QuantFormat::ALL {
            // Candle's blocks, or else random ones, each row the same.
            let bytes = match kind.candle() {
                Some(kind) => QTensor::quantize(&numbers, kind).unwrap().data().unwrap().into_owned(),
                None => tensors[&format!("{}.blocks", kind.name())].to_vec1::<u8>().unwrap().repeat(outputs),
            };
            let mut weight = vec![0f32; outputs * inputs];
            kind.dequantize(&bytes, &mut weight);
            for tokens in [1, 2, 3, 4, 7, 8, 13] {
                let x = Tensor::randn(0f32, 1.0, tokens * inputs, &Device::Cpu).unwrap().to_vec1().unwrap();
                let expected = expected(&x, &weight, inputs);
                let kernels: [(bool, BlockKernel); 2] = [
                    (Backend::Avx2.is_available(), block_256),
                    (Backend::Avx512Bf16.is_available(), block_512),
                ];
                for (available, block) in kernels {
                    if available {
                        let mut out = vec![0f32; tokens * outputs];
                        // SAFETY: the processor has the instructions, and the output has the tokens and rows.
                        unsafe { block(kind, &x, &bytes, OutputColumns::new(&mut out, outputs), inputs) };
                        assert_eq!(out, expected, "{} {tokens}", kind.name());
                    }
                }
            }
        }
    }
}
