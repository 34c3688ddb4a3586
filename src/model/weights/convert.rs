//! Conversion of tensor data from a file's element type to the type in memory.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::element::Element;
use super::quantized::QuantFormat;
use super::tensor_ref::{Part, TensorRef};

/// The element type of a tensor in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredDtype {
    F64,
    F32,
    Bf16,
    F16,
    Quantized(QuantFormat),
}

impl StoredDtype {
    /// Name in reports.
    pub fn name(self) -> String {
        match self {
            StoredDtype::F64 => "f64".into(),
            StoredDtype::F32 => "f32".into(),
            StoredDtype::Bf16 => "bf16".into(),
            StoredDtype::F16 => "f16".into(),
            StoredDtype::Quantized(kind) => kind.name().to_lowercase(),
        }
    }

    /// Bytes of so many values; for quantised types, a whole number of blocks.
    pub fn size(self, numbers: usize) -> usize {
        match self {
            StoredDtype::F64 => 8 * numbers,
            StoredDtype::F32 => 4 * numbers,
            StoredDtype::Bf16 | StoredDtype::F16 => 2 * numbers,
            StoredDtype::Quantized(kind) => numbers / kind.numbers() * kind.bytes(),
        }
    }
}

/// Values that a thread converts at once; its source bytes are released after each chunk.
const CHUNK: usize = 1 << 18;

/// A value that is not finite in the type in memory, with its index in the tensor.
#[derive(Debug, PartialEq)]
pub(super) struct NonFinite {
    /// The value in the file.
    pub number: f64,
    /// Its index in the tensor.
    pub index: usize,
}

/// A result, or the first value that is not finite.
type Fit<T> = std::result::Result<T, NonFinite>;

/// Converts the part of a tensor that `place` asks for. `bytes`: the whole tensor, whose shape was checked; of quantised types,
/// whole rows are asked for. Calls `done` with each range of bytes that isn't needed any more.
pub(super) fn read<T: Element>(
    place: &TensorRef,
    stored: StoredDtype,
    bytes: &[u8],
    done: &(dyn Fn(&[u8]) + Sync),
) -> Result<Fit<Tensor>> {
    let shape = place.part_shape();
    let mut out = T::zeros(shape.iter().product());
    let fit = match &place.part {
        Part::Columns(columns) => {
            let fit = transpose(stored, bytes, &place.shape, columns.start, 1, &mut out);
            done(bytes);
            fit
        }
        &Part::Strided { matrix, first, step } => {
            let shape = match *place.shape.as_slice() {
                [_, inputs, all] => [inputs, all],
                [_, all] => [1, all],
                _ => [0, 0],
            };
            let size = stored.size(shape[0] * shape[1]);
            let fit = transpose(stored, &bytes[matrix * size..][..size], &shape, first, step, &mut out);
            done(bytes);
            fit
        }
        Part::Transposed => {
            let (outputs, inputs) = (place.row_width(), shape.get(1).copied().unwrap_or(0));
            let size = outputs * inputs;
            let fit = out.par_chunks_mut(size.max(1)).enumerate().try_for_each(|(matrix, out)| {
                let begin = matrix * size;
                let mut whole = T::zeros(size);
                fill(stored, &bytes[stored.size(begin)..stored.size(begin + size)], &mut whole)
                    .map_err(|non_finite| NonFinite { index: begin + non_finite.index, ..non_finite })?;
                for (at, number) in whole.iter().enumerate() {
                    out[at % outputs * inputs + at / outputs] = *number;
                }
                Ok(())
            });
            done(bytes);
            fit
        }
        part => {
            let width = place.row_width();
            let all = 0..out.len() / width.max(1);
            let ranges = ranges(part, &all);
            let mut rest = out.as_mut_slice();
            ranges.iter().try_for_each(|range| {
                let (out, after) = std::mem::take(&mut rest).split_at_mut(range.len() * width);
                rest = after;
                let begin = range.start * width;
                out.par_chunks_mut(CHUNK).enumerate().try_for_each(|(number, out)| {
                    let begin = begin + number * CHUNK;
                    let bytes = &bytes[stored.size(begin)..stored.size(begin + out.len())];
                    let fit = fill(stored, bytes, out);
                    done(bytes);
                    fit.map_err(|non_finite| NonFinite { index: begin + non_finite.index, ..non_finite })
                })
            })
        }
    };
    Ok(match fit {
        Ok(()) => Ok(Tensor::from_vec(out, shape, &Device::Cpu)?),
        Err(non_finite) => Err(non_finite),
    })
}

/// Copies the quantised rows that `place` asks for to `out`, which has their size. Fails at the first block with a scale that is
/// not finite.
pub(super) fn gather(
    place: &TensorRef,
    kind: QuantFormat,
    bytes: &[u8],
    out: &mut [u8],
    done: &(dyn Fn(&[u8]) + Sync),
) -> Fit<()> {
    let stored = StoredDtype::Quantized(kind);
    let width = place.row_width();
    let all = 0..stored_rows(place);
    let mut rest = out;
    let stretch = stored.size(CHUNK);
    ranges(&place.part, &all).iter().try_for_each(|range| {
        let (out, after) = std::mem::take(&mut rest).split_at_mut(stored.size(range.len() * width));
        rest = after;
        let bytes = &bytes[stored.size(range.start * width)..stored.size(range.end * width)];
        out.par_chunks_mut(stretch).zip(bytes.par_chunks(stretch)).enumerate().try_for_each(
            |(number, (out, bytes))| {
                out.copy_from_slice(bytes);
                done(bytes);
                match kind.non_finite(out) {
                    None => Ok(()),
                    Some(block) => {
                        let index = range.start * width + number * CHUNK + block * kind.numbers();
                        Err(NonFinite { number: f64::NAN, index })
                    }
                }
            },
        )
    })
}

fn stored_rows(place: &TensorRef) -> usize {
    place.shape.iter().product::<usize>() / place.row_width().max(1)
}

/// The rows of a part, where `all` is the range of the whole tensor.
fn ranges<'a>(part: &'a Part, all: &'a Range<usize>) -> &'a [Range<usize>] {
    match part {
        Part::Rows(rows) => rows,
        _ => std::slice::from_ref(all),
    }
}

/// Converts values to the type in memory.
fn fill<T: Element>(stored: StoredDtype, bytes: &[u8], out: &mut [T]) -> Fit<()> {
    let mut finite = true;
    let same = matches!(
        (stored, T::DTYPE),
        (StoredDtype::F32, candle_core::DType::F32)
            | (StoredDtype::Bf16, candle_core::DType::BF16)
            | (StoredDtype::F16, candle_core::DType::F16)
    );
    if same {
        T::read_le(bytes, out);
    } else {
        // Through f32, in pieces that stay in the nearest cache.
        let mut wide = [0f32; 1024];
        for (bytes, out) in bytes.chunks(stored.size(wide.len())).zip(out.chunks_mut(wide.len())) {
            let wide = &mut wide[..out.len()];
            finite &= to_f32(stored, bytes, wide);
            T::downcast(wide, out);
        }
    }
    // The usual case takes one pass without branches; the index is searched for only after a failure.
    finite &= out.iter().fold(true, |finite, number| finite & number.finite());
    if finite {
        return Ok(());
    }
    let non_finite = (0..out.len()).map(|index| NonFinite { number: number(stored, bytes, index), index });
    match non_finite.zip(out.iter()).find(|(non_finite, out)| !non_finite.number.is_finite() || !out.finite())
    {
        Some((non_finite, _)) => Err(non_finite),
        None => Ok(()),
    }
}

/// Converts to f32; gives whether all values are finite.
fn to_f32(stored: StoredDtype, bytes: &[u8], out: &mut [f32]) -> bool {
    fn each<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> (f32, bool)) -> bool {
        let mut all = true;
        for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            let (number, finite) = number(bytes);
            *out = number;
            all &= finite;
        }
        all
    }
    fn checked<T: Element>(number: T) -> (f32, bool) {
        (number.upcast(), number.finite())
    }
    match stored {
        StoredDtype::F64 => each(bytes, out, |b| checked(f64::from_le_bytes(b) as f32)),
        StoredDtype::F32 => each(bytes, out, |b| checked(f32::from_le_bytes(b))),
        StoredDtype::Bf16 => each(bytes, out, |b| checked(bf16::from_le_bytes(b))),
        StoredDtype::F16 => each(bytes, out, |b| checked(f16::from_le_bytes(b))),
        StoredDtype::Quantized(kind) => {
            kind.dequantize(bytes, out);
            out.iter().fold(true, |all, number| all & number.is_finite())
        }
    }
}

/// One value of the file.
fn number(stored: StoredDtype, bytes: &[u8], index: usize) -> f64 {
    fn at<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
        bytes.as_chunks().0[index]
    }
    match stored {
        StoredDtype::F64 => f64::from_le_bytes(at(bytes, index)),
        StoredDtype::F32 => f32::from_le_bytes(at(bytes, index)).into(),
        StoredDtype::Bf16 => bf16::from_le_bytes(at(bytes, index)).into(),
        StoredDtype::F16 => f16::from_le_bytes(at(bytes, index)).into(),
        StoredDtype::Quantized(kind) => {
            let block = index / kind.numbers();
            let mut numbers = [0f32; 256];
            kind.dequantize(&bytes[block * kind.bytes()..][..kind.bytes()], &mut numbers[..kind.numbers()]);
            numbers[index % kind.numbers()].into()
        }
    }
}

/// Every `step`-th column of a matrix `[inputs, outputs]` from `begin` on, as rows of `inputs` values.
fn transpose<T: Element>(
    stored: StoredDtype,
    bytes: &[u8],
    shape: &[usize],
    begin: usize,
    step: usize,
    out: &mut [T],
) -> Fit<()> {
    /// Columns that a thread transposes at once: wide enough that a part of a row fills cache lines.
    const COLUMNS: usize = 64;
    let [inputs, outputs] = [shape[0], shape[1]];
    out.par_chunks_mut((inputs * COLUMNS).max(1)).enumerate().try_for_each(|(chunk, out)| {
        let begin = begin + chunk * COLUMNS * step;
        let count = (out.len() / inputs.max(1)).saturating_sub(1) * step + 1;
        let mut line = T::zeros(count);
        (0..inputs).try_for_each(|input| {
            let at = input * outputs + begin;
            fill(stored, &bytes[stored.size(at)..stored.size(at + count)], &mut line)
                .map_err(|non_finite| NonFinite { index: at + non_finite.index, ..non_finite })?;
            line.iter()
                .step_by(step)
                .enumerate()
                .for_each(|(column, number)| out[column * inputs + input] = *number);
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_blocks_are_the_columns_of_their_numbers() {
        // Q8_0: a scale of 2, and numbers from 0 up.
        let row = |row: u8| {
            let numbers = (0..32).map(move |number| number + 32 * row);
            f16::from_f32(2.0).to_le_bytes().into_iter().chain(numbers)
        };
        let bytes: Vec<u8> = (0..2).flat_map(row).collect();
        let place = TensorRef { part: Part::Transposed, ..TensorRef::whole("keys", &[1, 2, 32]) };
        let stored = StoredDtype::Quantized(QuantFormat::Q8_0);
        let found = read::<f32>(&place, stored, &bytes, &|_| ()).unwrap().unwrap();
        assert_eq!(found.dims(), [32, 2]);
        assert_eq!(found.to_vec2::<f32>().unwrap()[5], [10.0, 74.0]);
    }
}
