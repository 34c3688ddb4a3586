//! Numbers as they stand in a file, brought to the type that the model keeps.
//! It knows nothing of files or tensors' names.

use candle_core::{Device, Result, Tensor, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;

use super::place::{Part, Place};

/// A type of numbers in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    F64,
    F32,
    Bf16,
    F16,
}

impl Stored {
    pub fn size(self) -> usize {
        match self {
            Stored::F64 => 8,
            Stored::F32 => 4,
            Stored::Bf16 | Stored::F16 => 2,
        }
    }
}

/// A type that the model keeps.
pub(super) trait Kept: WithDType + Send {
    fn of(number: f32) -> Self;
    fn finite(self) -> bool;
}

impl Kept for f32 {
    fn of(number: f32) -> f32 {
        number
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Kept for bf16 {
    fn of(number: f32) -> bf16 {
        bf16::from_f32(number)
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Kept for f16 {
    fn of(number: f32) -> f16 {
        f16::from_f32(number)
    }
    fn finite(self) -> bool {
        self.is_finite()
    }
}

/// Numbers that a thread takes at once.
const STRETCH: usize = 1 << 18;

/// What is wrong with a tensor's numbers: one that is not finite, or not in the type that is kept, and its index.
#[derive(Debug, PartialEq)]
pub(super) struct Unfit {
    pub number: f64,
    pub index: usize,
}

/// The wanted part of a tensor whose bytes are `bytes`: the place was checked, and its shape is that of the bytes.
/// `done` is told which bytes were read and are wanted no more.
pub(super) fn read<T: Kept>(
    place: &Place,
    stored: Stored,
    bytes: &[u8],
    done: &(dyn Fn(std::ops::Range<usize>) + Sync),
) -> Result<std::result::Result<Tensor, Unfit>> {
    let shape = place.wanted();
    let mut out = vec![T::zero(); shape.iter().product()];
    let size = stored.size();
    let fit = match &place.part {
        Part::Columns(columns) => {
            let fit = transpose(stored, bytes, &place.shape, columns.start, &mut out);
            done(0..bytes.len());
            fit
        }
        part => {
            let width = place.row_width();
            let all = 0..out.len() / width.max(1);
            let ranges = match part {
                Part::Rows(rows) => rows.as_slice(),
                _ => std::slice::from_ref(&all),
            };
            let mut rest = out.as_mut_slice();
            ranges.iter().try_for_each(|range| {
                let (out, after) = std::mem::take(&mut rest).split_at_mut(range.len() * width);
                rest = after;
                let begin = range.start * width;
                out.par_chunks_mut(STRETCH).enumerate().try_for_each(|(number, out)| {
                    let begin = begin + number * STRETCH;
                    let at = begin * size..(begin + out.len()) * size;
                    let fit = fill(stored, &bytes[at.clone()], out);
                    done(at);
                    fit.map_err(|unfit| Unfit { index: begin + unfit.index, ..unfit })
                })
            })
        }
    };
    Ok(match fit {
        Ok(()) => Ok(Tensor::from_vec(out, shape, &Device::Cpu)?),
        Err(unfit) => Err(unfit),
    })
}

fn fill<T: Kept>(stored: Stored, bytes: &[u8], out: &mut [T]) -> std::result::Result<(), Unfit> {
    // The usual case costs one pass without a branch a number; which number it was is looked for only where one is.
    fn all<T: Kept, const N: usize>(bytes: &[u8], out: &mut [T], number: impl Fn([u8; N]) -> f32) -> bool {
        let mut finite = true;
        for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *out = T::of(number(bytes));
            finite &= out.finite();
        }
        finite
    }
    let finite = match stored {
        Stored::F64 => all(bytes, out, |b| f64::from_le_bytes(b) as f32),
        Stored::F32 => all(bytes, out, f32::from_le_bytes),
        Stored::Bf16 => all(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        Stored::F16 => all(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
    };
    match out.iter().position(|number| !finite && !number.finite()) {
        None => Ok(()),
        Some(index) => Err(Unfit { number: number(stored, bytes, index), index }),
    }
}

/// One number of the file.
fn number(stored: Stored, bytes: &[u8], index: usize) -> f64 {
    fn at<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
        bytes.as_chunks().0[index]
    }
    match stored {
        Stored::F64 => f64::from_le_bytes(at(bytes, index)),
        Stored::F32 => f32::from_le_bytes(at(bytes, index)).into(),
        Stored::Bf16 => bf16::from_le_bytes(at(bytes, index)).into(),
        Stored::F16 => f16::from_le_bytes(at(bytes, index)).into(),
    }
}

/// Columns of a matrix `[inputs, outputs]` from `begin` on, as rows of `inputs` numbers.
fn transpose<T: Kept>(
    stored: Stored,
    bytes: &[u8],
    shape: &[usize],
    begin: usize,
    out: &mut [T],
) -> std::result::Result<(), Unfit> {
    /// Columns that a thread takes at once: wide enough that a row's stretch fills cache lines.
    const COLUMNS: usize = 64;
    let [inputs, outputs] = [shape[0], shape[1]];
    let size = stored.size();
    out.par_chunks_mut((inputs * COLUMNS).max(1)).enumerate().try_for_each(|(chunk, out)| {
        let begin = begin + chunk * COLUMNS;
        let count = out.len() / inputs.max(1);
        let mut line = vec![T::zero(); count];
        (0..inputs).try_for_each(|input| {
            let at = input * outputs + begin;
            fill(stored, &bytes[at * size..(at + count) * size], &mut line)
                .map_err(|unfit| Unfit { index: at + unfit.index, ..unfit })?;
            line.iter().enumerate().for_each(|(column, number)| out[column * inputs + input] = *number);
            Ok(())
        })
    })
}
