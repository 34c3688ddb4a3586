//! Matrix product with weights packed at load time into 64-row panels, column by column, so that a few tokens meet a whole panel
//! with all accumulators in registers.
//!
//! The summation order of each element depends on the matrix alone: the result is the same bit for bit with any number of
//! threads and any other tokens in the batch.

#![cfg(target_arch = "x86_64")]

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{DType, Device, Error, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::activation::gate_in_place;
use super::amx;
use super::avx512_microkernel::{self, Kernel, PANEL};
use super::bf16::{self as pairs, Pair, round_to_bf16, rounding_residual};
use super::fused_row::FusedRow;
use super::packed_input::{InputForms, PackedInput, TileWriter};
use super::vector_math::simd_dispatch;
use crate::model::compute::activation::Activation;
use crate::model::compute::backend::Backend;
use crate::model::weights::huge_pages::{PageBuffer, PlainData};

/// Tokens that pass all of a thread's panels before the next ones do: their activations stay in a core's own cache.
const TOKEN_BLOCK: usize = 256;

/// A packed matrix `[outputs, inputs]`.
pub(crate) struct Packed {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

/// The elements, `[panels, inputs, 64]`, the last panel padded with zeros.
enum Panels {
    F32(PageBuffer<f32>),
    F16(PageBuffer<f16>),
    /// Converted to f32 in the kernel.
    Bf16(PageBuffer<bf16>),
    /// `[panels, inputs / 2, 64]`
    Pairs(PageBuffer<Pair>),
    /// Panels of AMX tiles: one part for a bf16 matrix; two for an f32 matrix, the rounded values and the residuals, which together
    /// keep sixteen bits.
    Tiles(Vec<PageBuffer<Pair>>),
}

impl Packed {
    /// Packs a matrix; none if the backend has no kernel for packed ones.
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
        let panels = match weight.dtype() {
            DType::F32 => {
                let rows = &storage.as_slice::<f32>()?[begin..end];
                match backend {
                    Backend::Amx => Panels::Tiles(vec![
                        pack_tiles(rows, round_to_bf16, shape)?,
                        pack_tiles(rows, rounding_residual, shape)?,
                    ]),
                    _ => Panels::F32(pack_panels(rows, shape)?),
                }
            }
            DType::F16 => Panels::F16(pack_panels(&storage.as_slice()?[begin..end], shape)?),
            DType::BF16 => {
                let rows = &storage.as_slice::<bf16>()?[begin..end];
                match backend {
                    Backend::Amx => Panels::Tiles(vec![pack_tiles(rows, |number| number, shape)?]),
                    Backend::Avx512Bf16 => Panels::Pairs(pairs::pack_pairs(rows, shape)?),
                    _ => Panels::Bf16(pack_panels(rows, shape)?),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(Packed { outputs, inputs, panels }))
    }

    /// `x · weightᵀ` for each of several matrices of one input width. `x`: the rows of f32 `[tokens, inputs]`, packed once for
    /// all matrices. Gives f32 `[tokens, outputs]` each.
    ///
    /// # Errors
    /// A matrix of another input width.
    pub fn products(matrices: &[&Packed], x: &FusedRow, [tokens, inputs]: [usize; 2]) -> Result<Vec<Tensor>> {
        if let Some(other) = matrices.iter().find(|matrix| matrix.inputs != inputs) {
            let shape = [other.outputs, other.inputs];
            return Err(Error::Msg(format!("product of {:?} and {shape:?} transposed", [tokens, inputs])));
        }
        let x = PackedInput::new(x, tokens, inputs, input_forms(matrices));
        Packed::multiply(matrices, &x, tokens, inputs)
    }

    /// Whether [`Packed::gated`] can run: all three matrices are tiles with the same number of parts, and their shapes fit.
    pub fn can_gate([gate, up, down]: [&Packed; 3], inputs: usize) -> bool {
        let parts = |matrix: &Packed| match &matrix.panels {
            Panels::Tiles(parts) => Some(parts.len()),
            _ => None,
        };
        let alike = parts(gate).is_some() && parts(gate) == parts(up) && parts(up) == parts(down);
        let fit = gate.outputs == up.outputs && gate.inputs == up.inputs && up.outputs == down.inputs;
        alike && fit && inputs == gate.inputs
    }

    /// `down · (f(gate · x) · (up · x))` where [`Packed::can_gate`] holds. The hidden activations are converted to tiles one
    /// panel at a time, so that `[tokens, hidden]` is never in memory as f32.
    pub fn gated(
        [gate, up, down]: [&Packed; 3],
        activation: Activation,
        x: &FusedRow,
        [tokens, inputs]: [usize; 2],
    ) -> Result<Tensor> {
        let parts = match &gate.panels {
            Panels::Tiles(parts) => parts.len(),
            _ => return Err(Error::Msg("a gated product of matrices that are not in tiles".into())),
        };
        let tiles = TileWriter::new(tokens, amx::steps(gate.outputs), parts);
        let x = PackedInput::new(x, tokens, inputs, input_forms(&[gate, up]));
        let work = gate.work(std::ptr::null_mut());
        work.into_par_iter().for_each(|work| {
            GATE_AND_UP.with_borrow_mut(|gate_and_up| {
                gate_and_up.iter_mut().for_each(|numbers| numbers.resize(TOKEN_BLOCK * PANEL, 0.0));
                work.each(tokens, |tokens, first, columns, _, _| {
                    for (numbers, matrix) in gate_and_up.iter_mut().zip([gate, up]) {
                        // SAFETY: packing checked that the processor has tiles; the numbers are this thread's.
                        unsafe {
                            matrix.panel(&x, tokens.clone(), first, PANEL, numbers.as_mut_ptr(), PANEL)
                        };
                    }
                    let [gate, up] = gate_and_up;
                    let rows = gate.chunks_exact_mut(PANEL).zip(up.chunks_exact(PANEL));
                    for (token, (gate, up)) in tokens.zip(rows) {
                        let (gate, up) = (&mut gate[..columns], &up[..columns]);
                        simd_dispatch!(gate_in_place(gate, up, activation));
                        // SAFETY: each token and panel has its own part of the tiles.
                        unsafe { tiles.write(gate, token, first) };
                    }
                });
            });
        });
        let x = PackedInput { tiles: tiles.finish(), ..PackedInput::default() };
        Packed::multiply(&[down], &x, tokens, gate.outputs).map(|mut results| results.swap_remove(0))
    }

    /// Whether the product rounds its input to bf16.
    pub fn rounds_to_bf16(&self) -> bool {
        match &self.panels {
            Panels::Pairs(_) => true,
            Panels::Tiles(parts) => parts.len() == 1,
            Panels::F32(_) | Panels::F16(_) | Panels::Bf16(_) => false,
        }
    }

    /// Rows of the matrix, as f32 `[rows, inputs]`.
    ///
    /// # Errors
    /// A row that the matrix lacks.
    pub fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        let mut out = Vec::with_capacity(rows.len() * self.inputs);
        for &row in rows {
            let row = row as usize;
            if row >= self.outputs {
                return Err(Error::Msg(format!("row {row} of a matrix of {}", self.outputs)));
            }
            out.extend((0..self.inputs).map(|at| self.value(row, at)));
        }
        Tensor::from_vec(out, (rows.len(), self.inputs), &Device::Cpu)
    }

    /// The matrix, as f32 `[outputs, inputs]`; of two parts, their sum.
    ///
    /// # Errors
    /// None: every row is the matrix's own.
    pub fn floats(&self) -> Result<Tensor> {
        let mut out = vec![0f32; self.outputs * self.inputs];
        out.par_chunks_mut(self.inputs.max(1)).enumerate().for_each(|(row, out)| {
            out.iter_mut().enumerate().for_each(|(at, out)| *out = self.value(row, at));
        });
        Tensor::from_vec(out, (self.outputs, self.inputs), &Device::Cpu)
    }

    fn value(&self, row: usize, at: usize) -> f32 {
        let (panel, lane) = (row / PANEL, row % PANEL);
        let place = |steps: usize, step: usize| (panel * steps + step) * PANEL + lane;
        match &self.panels {
            Panels::F32(numbers) => numbers[place(self.inputs, at)],
            Panels::F16(numbers) => numbers[place(self.inputs, at)].to_f32(),
            Panels::Bf16(numbers) => numbers[place(self.inputs, at)].to_f32(),
            Panels::Pairs(pairs) => pairs[place(self.inputs.div_ceil(2), at / 2)][at % 2].to_f32(),
            Panels::Tiles(parts) => {
                let index = panel * amx::panel_size(amx::steps(self.inputs)) + amx::panel_index(at / 2, lane);
                parts.iter().map(|part| part[index][at % 2].to_f32()).sum()
            }
        }
    }

    fn multiply(matrices: &[&Packed], x: &PackedInput, tokens: usize, inputs: usize) -> Result<Vec<Tensor>> {
        let mut results: Vec<Vec<f32>> =
            matrices.iter().map(|matrix| Vec::with_capacity(tokens * matrix.outputs)).collect();
        let mut work = Vec::new();
        for (matrix, result) in matrices.iter().zip(&mut results) {
            work.extend(matrix.work(result.as_mut_ptr()));
        }
        if tokens > 0 && inputs > 0 {
            // SAFETY: every result has room for its elements, no two jobs write the same column, and packing checked the processor.
            work.into_par_iter().for_each(|work| unsafe { work.run(x, tokens) });
        }
        results
            .into_iter()
            .zip(matrices)
            .map(|(mut result, matrix)| {
                if inputs == 0 {
                    result.resize(tokens * matrix.outputs, 0.0);
                }
                // SAFETY: the jobs above wrote every element.
                unsafe { result.set_len(tokens * matrix.outputs) };
                Tensor::from_vec(result, (tokens, matrix.outputs), &Device::Cpu)
            })
            .collect()
    }
}

impl Packed {
    /// Splits the product into jobs for the threads.
    fn work(&self, out: *mut f32) -> Vec<PanelJob<'_>> {
        let panels = self.outputs.div_ceil(PANEL);
        // Neighbouring panels, so that one token's pass reads long stretches of memory; enough jobs for an even finish.
        let many = panels.div_ceil(4 * rayon::current_num_threads()).max(1);
        let part = |first| PanelJob { matrix: self, panels: first..panels.min(first + many), out };
        (0..panels).step_by(many).map(part).collect()
    }

    /// Multiplies some tokens with the panel that begins at row `first`, in tiles.
    ///
    /// # Safety
    /// As [`amx::multiply`].
    unsafe fn panel(
        &self,
        x: &PackedInput,
        tokens: Range<usize>,
        first: usize,
        columns: usize,
        out: *mut f32,
        stride: usize,
    ) {
        let Panels::Tiles(parts) = &self.panels else { return };
        let steps = amx::steps(self.inputs);
        let size = amx::panel_size(steps);
        let panel = |part: usize| &parts[part][first / PANEL * size..][..size];
        let x = |part: usize| &x.tiles[part][..];
        // SAFETY: as the caller says.
        unsafe {
            match parts.len() {
                1 => amx::multiply(&[(x(0), panel(0))], steps, tokens, columns, out, stride),
                _ => {
                    // Small terms first; the product of the two residuals is dropped.
                    let sides = [(x(1), panel(0)), (x(0), panel(1)), (x(0), panel(0))];
                    amx::multiply(&sides, steps, tokens, columns, out, stride);
                }
            }
        }
    }
}

thread_local! {
    /// One panel of the gate and up products, `[tokens, 64]` each.
    static GATE_AND_UP: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// The input formats that some matrices need.
fn input_forms(matrices: &[&Packed]) -> InputForms {
    let mut forms = InputForms::default();
    for matrix in matrices {
        match &matrix.panels {
            Panels::F32(_) | Panels::F16(_) | Panels::Bf16(_) => forms.floats = true,
            Panels::Pairs(_) => forms.pairs = true,
            Panels::Tiles(parts) => forms.parts = forms.parts.max(parts.len()),
        }
    }
    forms
}

/// Some panels of one matrix.
struct PanelJob<'a> {
    matrix: &'a Packed,
    panels: Range<usize>,
    /// The first element of the output `[tokens, outputs]`. Threads write side by side into the same rows, each into its own columns.
    out: *mut f32,
}

// SAFETY: no two jobs write the same column.
unsafe impl Send for PanelJob<'_> {}

impl PanelJob<'_> {
    /// Runs the job.
    ///
    /// # Safety
    /// The processor must have the instructions; `out` must have room for `[tokens, outputs]`.
    unsafe fn run(self, x: &PackedInput, tokens: usize) {
        let inputs = self.matrix.inputs;
        // SAFETY: as the caller says.
        unsafe {
            match &self.matrix.panels {
                Panels::F32(numbers) => self.multiply(&x.floats, numbers, inputs, tokens),
                Panels::F16(numbers) => self.multiply(&x.floats, numbers, inputs, tokens),
                Panels::Bf16(numbers) => self.multiply(&x.floats, numbers, inputs, tokens),
                Panels::Pairs(numbers) => self.multiply(&x.pairs, numbers, inputs.div_ceil(2), tokens),
                Panels::Tiles(_) => self.each(tokens, |tokens, first, columns, out, stride| {
                    self.matrix.panel(x, tokens, first, columns, out, stride);
                }),
            }
        }
    }

    /// `x`: `[tokens, steps]`; `numbers`: `[panels, steps, 64]`.
    unsafe fn multiply<T: Kernel>(&self, x: &[T::With], numbers: &[T], steps: usize, tokens: usize) {
        self.each(tokens, |tokens, first, columns, out, stride| {
            let panel = &numbers[first * steps..][..PANEL * steps];
            let x = &x[tokens.start * steps..tokens.end * steps];
            for (tile, x) in x.chunks(avx512_microkernel::TOKENS * steps).enumerate() {
                // SAFETY: `out` has these columns for the tokens.
                unsafe {
                    T::tile(
                        x,
                        panel,
                        steps,
                        out.add(tile * avx512_microkernel::TOKENS * stride),
                        stride,
                        columns,
                    );
                }
            }
        });
    }

    /// Calls `block` for every block of tokens and every panel with: the tokens, the panel's first column and number of columns, the
    /// output's first element there, and its row stride.
    fn each(&self, tokens: usize, mut block: impl FnMut(Range<usize>, usize, usize, *mut f32, usize)) {
        let outputs = self.matrix.outputs;
        for begin in (0..tokens).step_by(TOKEN_BLOCK) {
            let end = tokens.min(begin + TOKEN_BLOCK);
            for first in self.panels.clone().map(|panel| panel * PANEL) {
                let columns = PANEL.min(outputs - first);
                block(begin..end, first, columns, self.out.wrapping_add(begin * outputs + first), outputs);
            }
        }
    }
}

fn pack_panels<T: PlainData>(rows: &[T], (outputs, inputs): (usize, usize)) -> Result<PageBuffer<T>> {
    let mut out = PageBuffer::zeros(outputs.div_ceil(PANEL) * PANEL * inputs)?;
    out.par_chunks_mut((PANEL * inputs).max(1)).enumerate().for_each(|(panel, out)| {
        let rows = &rows[panel * PANEL * inputs..];
        for (lane, row) in rows.chunks_exact(inputs.max(1)).take(PANEL).enumerate() {
            row.iter().enumerate().for_each(|(at, number)| out[at * PANEL + lane] = *number);
        }
    });
    Ok(out)
}

/// Packs `part` of each element into panels of tiles.
fn pack_tiles<T: Copy + Sync>(
    rows: &[T],
    part: impl Fn(T) -> bf16 + Sync,
    (outputs, inputs): (usize, usize),
) -> Result<PageBuffer<Pair>> {
    let size = amx::panel_size(amx::steps(inputs));
    let mut out = PageBuffer::zeros(outputs.div_ceil(PANEL) * size)?;
    out.par_chunks_mut(size.max(1)).enumerate().for_each(|(panel, out)| {
        let rows = &rows[panel * PANEL * inputs..];
        for (column, row) in rows.chunks_exact(inputs.max(1)).take(PANEL).enumerate() {
            for (at, pair) in row.chunks(2).enumerate() {
                out[amx::panel_index(at, column)] =
                    [part(pair[0]), pair.get(1).map_or(bf16::ZERO, |&second| part(second))];
            }
        }
    });
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::tensor_slice;
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

    fn product(packed: &Packed, x: &Tensor) -> Tensor {
        let shape = x.dims2().unwrap().into();
        let products = tensor_slice::with([x], |[x]| Packed::products(&[packed], &FusedRow::Plain(x), shape));
        products.unwrap().swap_remove(0)
    }

    /// Every available backend that packs, with the types it packs and the tolerance of its products.
    fn kinds() -> Vec<(Backend, DType, f32)> {
        let mut kinds = Vec::new();
        if Backend::Avx512.is_available() {
            kinds.extend([DType::F32, DType::F16, DType::BF16].map(|dtype| (Backend::Avx512, dtype, 2e-6)));
        }
        if Backend::Avx512Bf16.is_available() {
            // The activations are rounded too.
            kinds.push((Backend::Avx512Bf16, DType::BF16, 4e-3));
        }
        if Backend::Amx.is_available() {
            // Sixteen bits of f32 are kept.
            kinds.extend([(Backend::Amx, DType::BF16, 4e-3), (Backend::Amx, DType::F32, 2e-5)]);
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
                let found = product(&Packed::new(&weight, backend).unwrap().unwrap(), &x);
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
    fn the_values_of_a_packed_matrix_come_back() {
        for (backend, dtype, _) in kinds() {
            let weight = random((130, 63), 3).to_dtype(dtype).unwrap();
            let packed = Packed::new(&weight, backend).unwrap().unwrap();
            let exact = numbers(&weight.to_dtype(DType::F32).unwrap());
            // An f32 matrix in two tiles keeps sixteen bits.
            let tolerance = if (backend, dtype) == (Backend::Amx, DType::F32) { 2e-5 } else { 0.0 };
            for (found, exact) in numbers(&packed.floats().unwrap()).iter().zip(&exact) {
                assert!((found - exact).abs() <= tolerance, "{backend:?} {dtype:?}: {found}, not {exact}");
            }
            assert_eq!(
                numbers(&packed.rows(&[129, 0]).unwrap())[..63],
                numbers(&packed.floats().unwrap())[129 * 63..]
            );
        }
    }

    #[test]
    fn threads_and_other_tokens_change_no_bit() {
        for (backend, dtype, _) in kinds() {
            let (x, weight) = (random((37, 300), 5), random((170, 300), 6).to_dtype(dtype).unwrap());
            let packed = Packed::new(&weight, backend).unwrap().unwrap();
            let by = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| numbers(&product(&packed, &x)))
            };
            let together = by(1);
            assert_eq!(together, by(3));
            for token in 0..37 {
                let alone = product(&packed, &x.narrow(0, token, 1).unwrap());
                assert_eq!(numbers(&alone), together[token * 170..][..170]);
            }
        }
    }
}
