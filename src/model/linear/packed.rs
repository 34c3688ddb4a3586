//! The product with a matrix that was packed once, when it was loaded: its rows stand in panels of sixty-four, number by
//! number across the panel, so that a few tokens meet a whole panel with every sum in a register. It knows nothing of
//! models.
//!
//! Each number of the result is summed up in an order of its own that depends on the matrix alone: any number of threads,
//! and any other tokens beside, give the same bits.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use candle_core::{CpuStorage, DType, Device, Error, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::backend::Backend;

/// Rows of the matrix in a panel: four registers of sixteen.
const PANEL: usize = 64;

/// Tokens that meet a panel at once; with four registers each, their sums fill twenty-four of thirty-two.
const TOKENS: usize = 6;

/// Tokens that pass all panels before the next ones do: their activations stay in a cache that the cores share.
const STRETCH: usize = 768;

/// A matrix `[outputs, inputs]`.
pub(super) struct Packed {
    outputs: usize,
    inputs: usize,
    numbers: Numbers,
}

/// `[panels, inputs, 64]`, rows beyond the last one filled up with zeros.
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    /// Widened when they are multiplied.
    Bf16(Vec<bf16>),
    /// `[panels, inputs / 2, 64, 2]`: two neighbours of a row side by side, as the instruction wants them.
    Pairs(Vec<[bf16; 2]>),
}

impl Packed {
    /// Packs a matrix, where the processor has instructions that gain by it.
    pub fn new(weight: &Tensor, backend: Backend) -> Result<Option<Packed>> {
        if backend < Backend::Avx512 {
            return Ok(None);
        }
        let (outputs, inputs) = weight.dims2()?;
        let (storage, layout) = weight.storage_and_layout();
        let (Storage::Cpu(storage), Some((begin, end))) = (&*storage, layout.contiguous_offsets()) else {
            return Ok(None);
        };
        let shape = (outputs, inputs);
        let numbers = match weight.dtype() {
            DType::F32 => Numbers::F32(panels(&storage.as_slice()?[begin..end], shape)),
            DType::F16 => Numbers::F16(panels(&storage.as_slice()?[begin..end], shape)),
            DType::BF16 if backend >= Backend::Avx512Bf16 => {
                Numbers::Pairs(pairs(&storage.as_slice()?[begin..end], shape))
            }
            DType::BF16 => Numbers::Bf16(panels(&storage.as_slice()?[begin..end], shape)),
            _ => return Ok(None),
        };
        Ok(Some(Packed { outputs, inputs, numbers }))
    }

    /// `x · weightᵀ`. `x`: f32 `[tokens, inputs]`.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, inputs) = x.dims2()?;
        if inputs != self.inputs {
            let found =
                format!("product of {:?} and [{}, {}] transposed", x.shape(), self.outputs, self.inputs);
            return Err(Error::Msg(found));
        }
        let x = x.contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let (Storage::Cpu(storage), Some((begin, end))) = (&*storage, layout.contiguous_offsets()) else {
            return Err(Error::Msg("the tensor is not contiguous on the CPU".into()));
        };
        let x: &[f32] = &CpuStorage::as_slice(storage)?[begin..end];
        let mut out = vec![0f32; tokens * self.outputs];
        match &self.numbers {
            Numbers::F32(numbers) => self.multiply::<f32>(x, numbers, inputs, &mut out),
            Numbers::F16(numbers) => self.multiply::<f16>(x, numbers, inputs, &mut out),
            Numbers::Bf16(numbers) => self.multiply::<bf16>(x, numbers, inputs, &mut out),
            Numbers::Pairs(numbers) => {
                let steps = inputs.div_ceil(2);
                self.multiply::<[bf16; 2]>(&rounded(x, inputs), numbers, steps, &mut out)
            }
        }
        Tensor::from_vec(out, (tokens, self.outputs), &Device::Cpu)
    }

    /// `x`: `[tokens, steps]`; `numbers`: `[panels, steps, 64]`.
    fn multiply<T: Kernel>(&self, x: &[T::With], numbers: &[T], steps: usize, out: &mut [f32]) {
        if steps == 0 || out.is_empty() {
            return;
        }
        let outputs = self.outputs;
        let panels = numbers.len() / (PANEL * steps);
        // A thread's panels stand together, so that a single token's pass reads long stretches.
        let least = panels.div_ceil(4 * rayon::current_num_threads());
        for (x, out) in x.chunks(STRETCH * steps).zip(out.chunks_mut(STRETCH * outputs)) {
            let begin = Out(out.as_mut_ptr());
            numbers.par_chunks_exact(PANEL * steps).enumerate().with_min_len(least).for_each(
                |(number, panel)| {
                    let begin = &begin;
                    let first = number * PANEL;
                    let columns = PANEL.min(outputs - first);
                    for (tile, x) in x.chunks(TOKENS * steps).enumerate() {
                        // SAFETY: the tile's tokens have these columns in `out`, and no other thread has them. Packing asked
                        // whether the processor has the instructions.
                        unsafe {
                            let out = begin.0.add(tile * TOKENS * outputs + first);
                            T::tile(x, panel, steps, out, outputs, columns);
                        }
                    }
                },
            );
        }
    }
}

/// The result's first number. Threads write side by side into the same rows, each into columns of its own.
struct Out(*mut f32);

// SAFETY: no two threads have the same column.
unsafe impl Sync for Out {}

fn panels<T: Copy + Default + Send + Sync>(rows: &[T], (outputs, inputs): (usize, usize)) -> Vec<T> {
    let mut out = vec![T::default(); outputs.div_ceil(PANEL) * PANEL * inputs];
    out.par_chunks_mut((PANEL * inputs).max(1)).enumerate().for_each(|(panel, out)| {
        let rows = &rows[panel * PANEL * inputs..];
        for (lane, row) in rows.chunks_exact(inputs.max(1)).take(PANEL).enumerate() {
            row.iter().enumerate().for_each(|(at, number)| out[at * PANEL + lane] = *number);
        }
    });
    out
}

fn pairs(rows: &[bf16], (outputs, inputs): (usize, usize)) -> Vec<[bf16; 2]> {
    let steps = inputs.div_ceil(2);
    let mut out = vec![[bf16::ZERO; 2]; outputs.div_ceil(PANEL) * PANEL * steps];
    out.par_chunks_mut((PANEL * steps).max(1)).enumerate().for_each(|(panel, out)| {
        let rows = &rows[panel * PANEL * inputs..];
        for (lane, row) in rows.chunks_exact(inputs.max(1)).take(PANEL).enumerate() {
            for (at, pair) in row.chunks(2).enumerate() {
                out[at * PANEL + lane] = [pair[0], pair.get(1).copied().unwrap_or(bf16::ZERO)];
            }
        }
    });
    out
}

/// Activations rounded to bf16, in pairs: `[tokens, inputs / 2]`.
fn rounded(x: &[f32], inputs: usize) -> Vec<[bf16; 2]> {
    let steps = inputs.div_ceil(2);
    let mut out = vec![[bf16::ZERO; 2]; x.len() / inputs.max(1) * steps];
    out.par_chunks_mut(steps.max(1)).zip(x.par_chunks(inputs.max(1))).with_min_len(16).for_each(
        |(out, x)| {
            // SAFETY: only where bf16 is multiplied, which asks for more than this.
            unsafe { round(x, out) }
        },
    );
    out
}

/// To the nearest, halves to even; what overflows becomes infinity, as in f32.
#[target_feature(enable = "avx512f")]
unsafe fn round(x: &[f32], out: &mut [[bf16; 2]]) {
    let nearest = |x: f32| {
        let bits = x.to_bits();
        let up = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
        bf16::from_bits(if x.is_nan() { 0x7FC0 } else { up as u16 })
    };
    // An odd number of inputs leaves the last half of the last pair at zero.
    for (out, x) in out.as_flattened_mut().iter_mut().zip(x) {
        *out = nearest(*x);
    }
}

/// How a type's panels are multiplied.
trait Kernel: Copy + Send + Sync + Sized {
    /// What stands on the other side.
    type With: Copy + Send + Sync;

    /// Up to [`TOKENS`] tokens with one panel, of which `columns` are wanted.
    ///
    /// # Safety
    /// The processor must have the instructions; `out` must have the tokens' rows, `stride` apart, and the columns.
    unsafe fn tile(
        x: &[Self::With],
        panel: &[Self],
        steps: usize,
        out: *mut f32,
        stride: usize,
        columns: usize,
    );
}

/// The loop for `N` tokens: `load` gives sixteen numbers of the panel, `spread` one of a token's to all lanes, `add` the sum.
macro_rules! kernel {
    ($name:ident, $features:literal, $type:ty, $with:ty, $load:expr, $spread:expr, $add:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const N: usize>(
            x: &[$with],
            panel: &[$type],
            steps: usize,
            out: *mut f32,
            stride: usize,
            columns: usize,
        ) {
            let rows: [*const $with; N] = std::array::from_fn(|token| x[token * steps..].as_ptr());
            let mut at = panel.as_ptr();
            let mut sums = [[_mm512_setzero_ps(); 4]; N];
            // SAFETY: every token has `steps` numbers, and the panel as many rows of sixty-four.
            unsafe {
                for step in 0..steps {
                    let weights = [$load(at), $load(at.add(16)), $load(at.add(32)), $load(at.add(48))];
                    at = at.add(PANEL);
                    for token in 0..N {
                        let x = $spread(rows[token].add(step));
                        for lane in 0..4 {
                            sums[token][lane] = $add(sums[token][lane], x, weights[lane]);
                        }
                    }
                }
                for token in 0..N {
                    for lane in 0..4 {
                        let left = columns.saturating_sub(16 * lane).min(16);
                        let mask = ((1u32 << left) - 1) as __mmask16;
                        // Where nothing is left, nothing is written, wherever this points.
                        let out = out.wrapping_add(token * stride + 16 * lane);
                        _mm512_mask_storeu_ps(out, mask, sums[token][lane]);
                    }
                }
            }
        }

        impl Kernel for $type {
            type With = $with;

            #[inline]
            unsafe fn tile(
                x: &[$with],
                panel: &[$type],
                steps: usize,
                out: *mut f32,
                stride: usize,
                columns: usize,
            ) {
                // SAFETY: as the caller says.
                unsafe {
                    match x.len() / steps {
                        1 => $name::<1>(x, panel, steps, out, stride, columns),
                        2 => $name::<2>(x, panel, steps, out, stride, columns),
                        3 => $name::<3>(x, panel, steps, out, stride, columns),
                        4 => $name::<4>(x, panel, steps, out, stride, columns),
                        5 => $name::<5>(x, panel, steps, out, stride, columns),
                        _ => $name::<TOKENS>(x, panel, steps, out, stride, columns),
                    }
                }
            }
        }
    };
}

kernel!(
    floats,
    "avx512f",
    f32,
    f32,
    |at: *const f32| _mm512_loadu_ps(at),
    |x: *const f32| _mm512_set1_ps(*x),
    |sum, x, weight| _mm512_fmadd_ps(x, weight, sum)
);

kernel!(
    halves,
    "avx512f",
    f16,
    f32,
    |at: *const f16| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())),
    |x: *const f32| _mm512_set1_ps(*x),
    |sum, x, weight| _mm512_fmadd_ps(x, weight, sum)
);

kernel!(
    widened,
    "avx512f",
    bf16,
    f32,
    |at: *const bf16| {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    },
    |x: *const f32| _mm512_set1_ps(*x),
    |sum, x, weight| _mm512_fmadd_ps(x, weight, sum)
);

kernel!(
    paired,
    "avx512f,avx512bf16",
    [bf16; 2],
    [bf16; 2],
    |at: *const [bf16; 2]| _mm512_loadu_si512(at.cast()),
    |x: *const [bf16; 2]| _mm512_set1_epi32(x.cast::<i32>().read_unaligned()),
    |sum, x: __m512i, weight: __m512i| {
        // SAFETY: both are sixty-four bytes without a meaning of their own.
        _mm512_dpbf16_ps(
            sum,
            std::mem::transmute::<__m512i, __m512bh>(x),
            std::mem::transmute::<__m512i, __m512bh>(weight),
        )
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    fn random(shape: (usize, usize), seed: u64) -> Tensor {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let numbers: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Every backend that packs and runs here, with every type it keeps; what its products may differ by.
    fn kinds() -> Vec<(Backend, DType, f32)> {
        let mut kinds = Vec::new();
        if Backend::Avx512.runs() {
            kinds.extend([DType::F32, DType::F16, DType::BF16].map(|dtype| (Backend::Avx512, dtype, 2e-6)));
        }
        if Backend::Avx512Bf16.runs() {
            // The activations are rounded too.
            kinds.push((Backend::Avx512Bf16, DType::BF16, 4e-3));
        }
        kinds
    }

    #[test]
    fn it_is_the_product_whatever_the_shape() {
        for (backend, dtype, tolerance) in kinds() {
            for (tokens, inputs, outputs) in
                [(1, 1, 1), (2, 63, 65), (7, 64, 64), (13, 257, 130), (800, 5, 3)]
            {
                let x = random((tokens, inputs), 1);
                let weight = random((outputs, inputs), 2).to_dtype(dtype).unwrap();
                let exact = x.matmul(&weight.to_dtype(DType::F32).unwrap().t().unwrap()).unwrap();
                let found = Packed::new(&weight, backend).unwrap().unwrap().product(&x).unwrap();
                assert_eq!(found.dims(), [tokens, outputs]);
                for (found, exact) in numbers(&found).iter().zip(numbers(&exact)) {
                    let close = (found - exact).abs() <= tolerance * (inputs as f32).sqrt().max(1.0);
                    assert!(
                        close,
                        "{backend:?} {dtype:?} {tokens} × {inputs} × {outputs}: {found}, not {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn threads_and_other_tokens_change_no_bit() {
        for (backend, dtype, _) in kinds() {
            let (x, weight) = (random((37, 300), 5), random((170, 300), 6).to_dtype(dtype).unwrap());
            let packed = Packed::new(&weight, backend).unwrap().unwrap();
            let by = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| numbers(&packed.product(&x).unwrap()))
            };
            let together = by(1);
            assert_eq!(together, by(3));
            for token in 0..37 {
                let alone = packed.product(&x.narrow(0, token, 1).unwrap()).unwrap();
                assert_eq!(numbers(&alone), together[token * 170..][..170]);
            }
        }
    }
}
