//! Matrices in MXFP4 (OCP Microscaling Formats 1.0): blocks of 32 four-bit floats with a common power of two, in the layout of gpt-oss.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::file::File;
use super::{Dtype, Part, TensorRef, Weight, Weights};
use crate::error::Result;

/// Numbers that share a scale.
const NUMBERS: usize = 32;
/// Bytes of a block: the low half of a byte is the earlier number.
const BYTES: usize = 16;
/// The numbers of four bits: sign, two bits of exponent, one of mantissa (E2M1).
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
/// Scales are powers of two with this bias (E8M0).
const BIAS: i32 = 127;

/// Some rows of one matrix of `[matrices, rows, blocks, 16]`.
pub(super) struct Blocks<'a> {
    name: &'a str,
    file: &'a File,
    bytes: &'a [u8],
    scales: &'a [u8],
    /// Numbers of a row.
    width: usize,
    /// The rows that are read.
    rows: Vec<usize>,
}

impl Weights {
    /// The blocks of a tensor that a family has transposed, where the checkpoint has `NAME_blocks` and `NAME_scales` in its place.
    ///
    /// # Errors
    /// Blocks or scales of another shape or type.
    pub(super) fn mxfp4(&self, place: &TensorRef) -> Result<Option<Blocks<'_>>> {
        let (&Part::Strided { matrix, first, step }, &[count, inputs, all]) =
            (&place.part, place.shape.as_slice())
        else {
            return Ok(None);
        };
        // transformers may have a row's blocks in one dimension.
        let whole = |end: &str, shape: &[usize], flat: &[usize]| -> Result<Option<(&str, &File, &[u8])>> {
            let Some((name, found)) = self.find(&format!("{}{end}", place.name)) else { return Ok(None) };
            found.taken.store(true, std::sync::atomic::Ordering::Relaxed);
            let file = &self.files[found.file];
            let (kind, dims, bytes) = file.raw(name)?;
            if kind != "U8" || (dims != shape && dims != flat) || !inputs.is_multiple_of(NUMBERS) {
                let found = format!("tensor {name} of type {kind} and shape {dims:?}");
                return Err(file.wrong(found, format!("U8 of shape {shape:?}")));
            }
            Ok(Some((name, file, bytes)))
        };
        let in_row = inputs / NUMBERS;
        let blocks = whole("_blocks", &[count, all, in_row, BYTES], &[count, all, inputs / 2])?;
        let scales = whole("_scales", &[count, all, in_row], &[])?;
        let Some(((name, file, bytes), (_, _, scales))) = blocks.zip(scales) else { return Ok(None) };
        place.check()?;
        let rows = (first..all).step_by(step.max(1)).map(|row| matrix * all + row).collect();
        Ok(Some(Blocks { name, file, bytes, scales, width: inputs, rows }))
    }
}

impl Blocks<'_> {
    /// The rows as a dense matrix `[rows, width]`.
    ///
    /// # Errors
    /// A scale that stands for no number, or a number out of the type's range.
    pub fn read(&self, dtype: Dtype) -> Result<Weight> {
        let mut out = vec![0f32; self.rows.len() * self.width];
        let in_row = self.width / NUMBERS;
        out.par_chunks_mut(self.width.max(1)).zip(&self.rows).for_each(|(out, row)| {
            let scales = &self.scales[row * in_row..][..in_row];
            let blocks = self.bytes[row * in_row * BYTES..].chunks_exact(BYTES);
            for ((out, scale), block) in out.chunks_exact_mut(NUMBERS).zip(scales).zip(blocks) {
                let scale = match scale {
                    // E8M0 has no infinity: this is its NaN.
                    0xFF => f32::NAN,
                    scale => ((*scale as i32 - BIAS) as f32).exp2(),
                };
                for (pair, byte) in out.chunks_exact_mut(2).zip(block) {
                    pair[0] = E2M1[(byte & 0xF) as usize] * scale;
                    pair[1] = E2M1[(byte >> 4) as usize] * scale;
                }
            }
        });
        self.file.release(self.bytes);
        if let Some(index) = out.iter().position(|number| !number.is_finite()) {
            let found = format!("{} at index {index} of the rows of tensor {}", out[index], self.name);
            return Err(self.file.wrong(found, "finite values"));
        }
        let tensor = Tensor::from_vec(out, (self.rows.len(), self.width), &Device::Cpu)?;
        Ok(Weight::Tensor(tensor.to_dtype(dtype.into())?))
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype as Stored, TensorView, serialize_to_file};

    use super::*;

    /// One matrix of two rows of 32 numbers: gate and up in turn, each row with a scale of its own.
    fn checkpoint(scales: [u8; 2]) -> Weights {
        let folder = tempfile::tempdir().unwrap();
        let blocks: Vec<u8> = (0..32).map(|byte| if byte < 16 { 0x21 + byte } else { 0xF0 }).collect();
        let view = |bytes, shape: &[usize]| TensorView::new(Stored::U8, shape.to_vec(), bytes).unwrap();
        let tensors = [("x_blocks", view(&blocks, &[1, 2, 1, 16])), ("x_scales", view(&scales, &[1, 2, 1]))];
        serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
        Weights::open(folder.path()).unwrap()
    }

    fn row(weights: &Weights, first: usize) -> Result<Vec<f32>> {
        let part = Part::Strided { matrix: 0, first, step: 2 };
        let place = TensorRef { name: "x".into(), shape: vec![1, 32, 2], part };
        weights.check(&place)?;
        Ok(weights.take(&place, Dtype::Bf16)?.floats()?.flatten_all()?.to_vec1()?)
    }

    #[test]
    fn halves_of_bytes_are_numbers_with_the_scale_of_their_block() {
        let weights = checkpoint([128, 126]);
        // 0x21: 0.5 (1) and then 1.0 (2), doubled; 0x30: 0 and 1.5.
        let first = row(&weights, 0).unwrap();
        assert_eq!(first[..4], [1.0, 2.0, 2.0, 2.0]);
        assert_eq!(first[30..], [0.0, 3.0]);
        assert_eq!(row(&weights, 1).unwrap()[..2], [0.0, -3.0]);
        weights.refuse_extra(|_| false).unwrap();
    }

    #[test]
    fn a_scale_that_is_no_number_is_refused() {
        let error = row(&checkpoint([255, 127]), 0).unwrap_err().to_string();
        assert!(error.contains("NaN at index 0 of the rows of tensor x_blocks"), "{error}");
    }
}
