//! Matrix product with an unpacked matrix in f32, bf16, f16 or quantised blocks. Rows of lower precision are converted to f32
//! a few at a time, so that the whole matrix is never in memory as f32.
//!
//! Both operands are read in place: for a few tokens that is 5 to 40 times as fast as a kernel that packs first, for 512 tokens
//! as fast as one.

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{CpuStorage, DType, Device, Error, Layout, Result, Storage, Tensor};
use rayon::prelude::*;

use super::output_columns::OutputColumns;
#[cfg(target_arch = "x86_64")]
use super::quantized_gemm;
use super::simd::{LANES, Lanes, SimdElement, total};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::model::compute::backend::Backend;
use crate::model::weights::{Element, QuantizedMatrix};

/// Elements of the matrix in one thread's block: as f32, they stay in a core's own cache for all tokens.
const NUMBERS: usize = 1 << 16;

/// Tokens from which rows are converted once and stored, rather than in each kernel call.
const UPCAST_FROM: usize = 16;

/// Tokens from which quantised rows are dequantised once and stored.
#[cfg(target_arch = "x86_64")]
const DEQUANTIZE_FROM: usize = 9;

/// Blocks of rows for each thread, where the matrix has that many.
const BLOCKS_PER_THREAD: usize = 6;

thread_local! {
    static UPCAST_ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `x · weightᵀ` with each of some matrices, in one parallel region. `x`: f32 `[tokens, in]`; each weight: `[out, in]`, finite.
///
/// The summation order of each element depends on `in` alone: the result is the same bit for bit with any number of threads and
/// any other tokens in the batch.
pub(crate) fn products<T: SimdElement>(x: &Tensor, weights: &[&Tensor]) -> Result<Vec<Tensor>> {
    let kernels = Kernels::<T>::best();
    let x = x.contiguous()?;
    with(&x, |x: &[f32]| {
        let matrices = weights.iter().map(|weight| Ok(weight.storage_and_layout()));
        let matrices = matrices.collect::<Result<Vec<_>>>()?;
        let slices = matrices.iter().map(|(storage, layout)| slice_of::<T>(storage, layout));
        let slices = slices.collect::<Result<Vec<_>>>()?;
        let shapes = weights.iter().map(|weight| product_shape(x.len(), weight.dims()));
        in_row_blocks(
            &shapes.collect::<Result<Vec<_>>>()?,
            NUMBERS,
            |matrix, [tokens, inputs], range, out| {
                let block = &slices[matrix][range.start * inputs..range.end * inputs];
                if tokens < UPCAST_FROM || T::DTYPE == DType::F32 {
                    // SAFETY: the processor has the kernels' instructions; the columns are this thread's.
                    return unsafe { (kernels.narrow)(x, block, out, inputs) };
                }
                UPCAST_ROWS.with_borrow_mut(|wide| {
                    wide.resize(block.len(), 0.0);
                    // SAFETY: as above.
                    unsafe {
                        (kernels.upcast)(block, wide);
                        (kernels.wide)(x, wide, out, inputs);
                    }
                });
            },
        )
    })?
}

/// [`products`] with quantised matrices; `x` stays f32.
pub(crate) fn products_with_blocks(x: &Tensor, weights: &[&QuantizedMatrix]) -> Result<Vec<Tensor>> {
    let kernels = Kernels::<f32>::best();
    let x = x.contiguous()?;
    with(&x, |x: &[f32]| {
        let shapes = weights.iter().map(|weight| product_shape(x.len(), weight.dims()));
        let shapes = shapes.collect::<Result<Vec<_>>>()?;
        let tokens = shapes.first().map_or(0, |shape| shape[0]);
        #[cfg(target_arch = "x86_64")]
        if tokens < DEQUANTIZE_FROM
            && let Some(block) = block_kernel()
        {
            return in_row_blocks(&shapes, NUMBERS, |matrix, [_, inputs], range, out| {
                let weight = weights[matrix];
                // SAFETY: the processor has the instructions; the columns are this thread's.
                unsafe { block(weight.kind(), x, weight.bytes(range), out, inputs) }
            });
        }
        // For few tokens a dequantised row is used seldom: then it should stay in the nearest cache.
        let numbers = if tokens < UPCAST_FROM { NUMBERS / 8 } else { NUMBERS };
        in_row_blocks(&shapes, numbers, |matrix, [_, inputs], range, out| {
            UPCAST_ROWS.with_borrow_mut(|wide| {
                wide.resize(range.len() * inputs, 0.0);
                weights[matrix].dequantize(range, wide);
                // SAFETY: the processor has the kernels' instructions; the columns are this thread's.
                unsafe { (kernels.wide)(x, wide, out, inputs) };
            });
        })
    })?
}

/// The kernel of [`Backend::current`] that multiplies blocks without writing their values.
#[cfg(target_arch = "x86_64")]
fn block_kernel() -> Option<quantized_gemm::BlockKernel> {
    match Backend::current() {
        // Every processor with bf16 has the byte instructions; the first ones with AVX-512F alone have not.
        Backend::Avx512 if !is_x86_feature_detected!("avx512bw") => Some(quantized_gemm::block_256),
        Backend::Avx512 | Backend::Avx512Bf16 | Backend::Amx => Some(quantized_gemm::block_512),
        Backend::Avx2 => Some(quantized_gemm::block_256),
        _ => None,
    }
}

/// `[tokens, inputs, outputs]` of a product with an input of `numbers` elements.
fn product_shape(numbers: usize, weight: &[usize]) -> Result<[usize; 3]> {
    match *weight {
        [outputs, inputs] if inputs > 0 && numbers.is_multiple_of(inputs) => {
            Ok([numbers / inputs, inputs, outputs])
        }
        _ => Err(Error::Msg(format!("product of {numbers} numbers and {weight:?} transposed"))),
    }
}

/// Calls `with` on the elements of a contiguous CPU tensor.
fn with<T: Element, R>(tensor: &Tensor, with: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    Ok(with(slice_of(&storage, layout)?))
}

fn slice_of<'a, T: Element>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    let (Storage::Cpu(storage), Some((begin, end))) = (storage, layout.contiguous_offsets()) else {
        return Err(Error::Msg("the tensor is not contiguous on the CPU".into()));
    };
    Ok(&CpuStorage::as_slice::<T>(storage)?[begin..end])
}

/// The products `[tokens, outputs]` of some matrices, given their shapes `[tokens, inputs, outputs]`. Calls `work` in parallel on the
/// number of a matrix, its `[tokens, inputs]`, a range of its rows with at most about `numbers` elements, and their output columns.
fn in_row_blocks(
    shapes: &[[usize; 3]],
    numbers: usize,
    work: impl Fn(usize, [usize; 2], Range<usize>, OutputColumns) + Sync,
) -> Result<Vec<Tensor>> {
    let mut products: Vec<Vec<f32>> =
        shapes.iter().map(|[tokens, _, outputs]| vec![0f32; tokens * outputs]).collect();
    // Each thread gets several blocks, so that none waits long for another.
    let rows: usize = shapes.iter().map(|[_, _, outputs]| outputs).sum();
    let share = (rows / (BLOCKS_PER_THREAD * rayon::current_num_threads())).next_multiple_of(8);
    let blocks: Vec<(usize, Range<usize>, OutputColumns)> = shapes
        .iter()
        .zip(&mut products)
        .enumerate()
        .filter(|(_, (_, product))| !product.is_empty())
        .flat_map(|(matrix, (&[_, inputs, outputs], product))| {
            let rows = (numbers / inputs).clamp(8, share.clamp(8, 64));
            let out = OutputColumns::new(product, outputs);
            (0..outputs.div_ceil(rows)).map(move |block| {
                let range = block * rows..outputs.min((block + 1) * rows);
                // SAFETY: the product is `[tokens, outputs]` and has these columns, which only this block writes.
                let out = unsafe { out.column(range.start) };
                (matrix, range, out)
            })
        })
        .collect();
    blocks.into_par_iter().with_max_len(2).for_each(|(matrix, range, out)| {
        let [tokens, inputs, _] = shapes[matrix];
        work(matrix, [tokens, inputs], range, out)
    });
    let tensors = products.into_iter().zip(shapes);
    tensors
        .map(|(product, &[tokens, _, outputs])| Tensor::from_vec(product, (tokens, outputs), &Device::Cpu))
        .collect()
}

/// The kernels for one block of rows, compiled for this processor. Conversion to f32 is exact, so that it doesn't matter when it
/// is done.
struct Kernels<T> {
    /// The rows with every token, converted as they are loaded.
    narrow: unsafe fn(&[f32], &[T], OutputColumns, usize),
    /// The same for rows in f32.
    wide: unsafe fn(&[f32], &[f32], OutputColumns, usize),
    upcast: unsafe fn(&[T], &mut [f32]),
}

impl<T: SimdElement> Kernels<T> {
    /// The kernels of [`Backend::current`].
    fn best() -> Kernels<T> {
        #[cfg(target_arch = "x86_64")]
        {
            match Backend::current() {
                Backend::Avx512 | Backend::Avx512Bf16 | Backend::Amx => {
                    return Kernels { narrow: x86::block_512, wide: x86::block_512, upcast: x86::upcast_512 };
                }
                Backend::Avx2 => {
                    return Kernels { narrow: x86::block_256, wide: x86::block_256, upcast: x86::upcast_256 };
                }
                _ => (),
            }
        }
        #[cfg(target_arch = "aarch64")]
        if Backend::current() == Backend::Neon {
            return Kernels { narrow: neon::block_128, wide: neon::block_128, upcast: neon::upcast_128 };
        }
        Kernels {
            narrow: block::<[f32; LANES], T, 4, 2, 2>,
            wide: block::<[f32; LANES], f32, 4, 2, 2>,
            upcast: upcast::<[f32; LANES], T>,
        }
    }
}

/// `R` rows with `N` tokens per call, or `S` rows with one.
#[inline(always)]
unsafe fn block<L: Lanes<T>, T: Element, const S: usize, const R: usize, const N: usize>(
    x: &[f32],
    rows: &[T],
    out: OutputColumns,
    inputs: usize,
) {
    let Some(tokens) = x.len().checked_div(inputs) else { return };
    let count = rows.len() / inputs;
    let mut token = 0;
    while token < tokens {
        let many = tokens - token >= N;
        let mut row = 0;
        while row < count {
            let (at, left) = ((token, row), count - row);
            // SAFETY: as the caller says; the tokens and rows are there.
            row += unsafe {
                match many {
                    true if left >= R => tile::<L, T, R, N>(x, rows, out, inputs, at),
                    true => tile::<L, T, 1, N>(x, rows, out, inputs, at),
                    false if left >= S => tile::<L, T, S, 1>(x, rows, out, inputs, at),
                    false => tile::<L, T, 1, 1>(x, rows, out, inputs, at),
                }
            };
        }
        token += if many { N } else { 1 };
    }
}

/// Some rows with some tokens, all accumulators in registers; gives the number of rows.
#[inline(always)]
unsafe fn tile<L: Lanes<T>, T: Element, const R: usize, const N: usize>(
    x: &[f32],
    rows: &[T],
    out: OutputColumns,
    inputs: usize,
    (first_token, first_row): (usize, usize),
) -> usize {
    let rows: [&[T]; R] = std::array::from_fn(|row| &rows[(first_row + row) * inputs..][..inputs]);
    let xs: [&[f32]; N] = std::array::from_fn(|token| &x[(first_token + token) * inputs..][..inputs]);
    let whole = inputs / LANES * LANES;
    // SAFETY: the slices have `inputs` elements, and every step reads `LANES` of them before `whole`. The output has this token and
    // row because the slices have them, and only this thread writes the row.
    unsafe {
        let mut sums = [[L::zero(); N]; R];
        for at in (0..whole).step_by(LANES) {
            let mut x = [L::zero(); N];
            for token in 0..N {
                x[token] = L::load(xs[token].as_ptr().add(at));
            }
            for row in 0..R {
                let weight = L::load_upcast(rows[row].as_ptr().add(at));
                for token in 0..N {
                    sums[row][token] = sums[row][token].add_product(x[token], weight);
                }
            }
        }
        for row in 0..R {
            for token in 0..N {
                let mut lanes = [0f32; LANES];
                sums[row][token].store(lanes.as_mut_ptr());
                let rest = xs[token][whole..].iter().zip(&rows[row][whole..]);
                lanes.iter_mut().zip(rest).for_each(|(sum, (x, weight))| *sum += x * weight.upcast());
                out.set(first_token + token, first_row + row, total(lanes));
            }
        }
    }
    R
}

#[inline(always)]
unsafe fn upcast<L: Lanes<T>, T: Element>(rows: &[T], out: &mut [f32]) {
    let (lanes, rest) = out.as_chunks_mut::<LANES>();
    let (narrow, narrow_rest) = rows.as_chunks::<LANES>();
    // SAFETY: each pointer is to sixteen elements; the rest as the caller says.
    lanes
        .iter_mut()
        .zip(narrow)
        .for_each(|(out, row)| unsafe { L::load_upcast(row.as_ptr()).store(out.as_mut_ptr()) });
    rest.iter_mut().zip(narrow_rest).for_each(|(out, number)| *out = number.upcast());
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::x86::{Eight, Sixteen};
    use super::{OutputColumns, SimdElement};

    #[target_feature(enable = "avx512f")]
    pub unsafe fn block_512<T: SimdElement>(x: &[f32], rows: &[T], out: OutputColumns, inputs: usize) {
        unsafe { super::block::<Sixteen, T, 8, 4, 6>(x, rows, out, inputs) }
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn upcast_512<T: SimdElement>(rows: &[T], out: &mut [f32]) {
        unsafe { super::upcast::<Sixteen, T>(rows, out) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn block_256<T: SimdElement>(x: &[f32], rows: &[T], out: OutputColumns, inputs: usize) {
        unsafe { super::block::<[Eight; 2], T, 4, 2, 2>(x, rows, out, inputs) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn upcast_256<T: SimdElement>(rows: &[T], out: &mut [f32]) {
        unsafe { super::upcast::<[Eight; 2], T>(rows, out) }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::super::simd::neon::Four;
    use super::{OutputColumns, SimdElement};

    #[target_feature(enable = "neon")]
    pub unsafe fn block_128<T: SimdElement>(x: &[f32], rows: &[T], out: OutputColumns, inputs: usize) {
        unsafe { super::block::<[Four; 4], T, 4, 2, 2>(x, rows, out, inputs) }
    }

    #[target_feature(enable = "neon")]
    pub unsafe fn upcast_128<T: SimdElement>(rows: &[T], out: &mut [f32]) {
        unsafe { super::upcast::<[Four; 4], T>(rows, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn random(shape: (usize, usize), seed: u64) -> Tensor {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let numbers: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn compare<T: SimdElement>(dtype: DType, (tokens, inputs, outputs): (usize, usize, usize)) {
        let x = random((tokens, inputs), 1);
        let weight = random((outputs, inputs), 2).to_dtype(dtype).unwrap();
        let wide = weight.to_dtype(DType::F32).unwrap();
        let expected = numbers(&x.matmul(&wide.t().unwrap()).unwrap());
        let found = products::<T>(&x, &[&weight]).unwrap().remove(0);
        assert_eq!(found.dims(), [tokens, outputs]);
        for (found, expected) in numbers(&found).iter().zip(&expected) {
            let close = (found - expected).abs() <= 1e-5 * (inputs as f32).sqrt();
            assert!(close, "{dtype:?} {tokens} × {inputs} × {outputs}: {found}, not {expected}");
        }
    }

    #[test]
    fn it_is_the_product_with_the_widened_matrix() {
        for tokens in [1, 2, 5, UPCAST_FROM, 33] {
            for (inputs, outputs) in [(1, 1), (63, 65), (192, 700), (1100, 130)] {
                compare::<f32>(DType::F32, (tokens, inputs, outputs));
                compare::<bf16>(DType::BF16, (tokens, inputs, outputs));
                compare::<f16>(DType::F16, (tokens, inputs, outputs));
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let weight = random((1500, 900), 3).to_dtype(DType::BF16).unwrap();
        for tokens in [1, 3, 40] {
            let x = random((tokens, 900), 4);
            let by = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| numbers(&products::<bf16>(&x, &[&weight]).unwrap()[0]))
            };
            assert_eq!(by(1), by(3));
        }
    }

    #[test]
    fn any_tokens_beside_give_the_same_bits() {
        let (x, weight) = (random((37, 300), 5), random((70, 300), 6).to_dtype(DType::F16).unwrap());
        let together = numbers(&products::<f16>(&x, &[&weight]).unwrap()[0]);
        for token in 0..37 {
            let alone = &products::<f16>(&x.narrow(0, token, 1).unwrap(), &[&weight]).unwrap()[0];
            assert_eq!(numbers(alone), together[token * 70..][..70]);
        }
    }

    #[test]
    fn every_way_of_compiling_the_kernels_agrees() {
        let (x, rows) = (numbers(&random((5, 77), 5)), numbers(&random((11, 77), 6)));
        let rows: Vec<f16> = rows.into_iter().map(f16::from_f32).collect();
        let run = |block: unsafe fn(&[f32], &[f16], OutputColumns, usize)| {
            let mut out = vec![0f32; 55];
            // SAFETY: called only where the processor has the instructions.
            unsafe { block(&x, &rows, OutputColumns::new(&mut out, 11), 77) };
            out
        };
        let plain = run(block::<[f32; LANES], f16, 4, 2, 2>);
        let close = |found: Vec<f32>| found.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close(run(Kernels::best().narrow)));
        #[cfg(target_arch = "x86_64")]
        if Backend::Avx2.is_available() {
            assert!(close(run(x86::block_256)));
        }
        #[cfg(target_arch = "aarch64")]
        assert!(close(run(neon::block_128)));
    }
}
