//! A weight in memory, dense or quantised, and the types of dense weights.

use std::str::FromStr;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::quantized::QuantizedMatrix;
use crate::error::{Error, Result};

/// The type of a model's dense matrices. Vectors (norms, biases) are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    #[default]
    /// IEEE single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Dtype {
    /// Bytes of a value.
    pub fn size(self) -> usize {
        DType::from(self).size_in_bytes()
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        })
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Dtype> {
        let all = [Dtype::F32, Dtype::Bf16, Dtype::F16];
        let found = all.into_iter().find(|dtype| dtype.to_string() == text);
        found.ok_or_else(|| Error::input("type of the weights", format!("{text:?}"), "f32, bf16 or f16"))
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> DType {
        match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::BF16,
            Dtype::F16 => DType::F16,
        }
    }
}

/// A weight in memory.
#[derive(Clone, Debug)]
pub enum Weight {
    /// A dense tensor: f32, bf16 or f16.
    Tensor(Tensor),
    /// A matrix in quantised blocks, as in the file.
    Quantized(Arc<QuantizedMatrix>),
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Weight {
        Weight::Tensor(tensor)
    }
}

impl Weight {
    /// All values as f32.
    ///
    /// # Errors
    /// A failure of the conversion.
    pub fn floats(&self) -> candle_core::Result<Tensor> {
        match self {
            Weight::Tensor(tensor) => tensor.to_dtype(DType::F32),
            Weight::Quantized(blocks) => {
                let mut numbers = vec![0f32; blocks.dims().iter().product()];
                blocks.dequantize(0..blocks.rows(), &mut numbers);
                Tensor::from_vec(numbers, blocks.dims(), &Device::Cpu)
            }
        }
    }

    /// Rows by index, as f32 (an embedding lookup). `rows`: u32 `[count]`; gives `[count, width]`.
    ///
    /// # Errors
    /// An index outside the matrix.
    pub fn rows(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Weight::Tensor(tensor) => tensor.index_select(rows, 0)?.to_dtype(DType::F32),
            Weight::Quantized(blocks) => {
                let (rows, width) = (rows.to_vec1::<u32>()?, blocks.width());
                let mut numbers = vec![0f32; rows.len() * width];
                for (row, out) in rows.iter().map(|row| *row as usize).zip(numbers.chunks_mut(width.max(1))) {
                    if row >= blocks.rows() {
                        let found = format!("row {row} of a matrix of {}", blocks.rows());
                        return Err(candle_core::Error::Msg(found));
                    }
                    blocks.dequantize(row..row + 1, out);
                }
                Tensor::from_vec(numbers, (rows.len(), width), &Device::Cpu)
            }
        }
    }

    /// Name of the type: f32, bf16, f16 or a quantised format.
    pub fn type_name(&self) -> String {
        match self {
            Weight::Tensor(tensor) => tensor.dtype().as_str().into(),
            Weight::Quantized(blocks) => blocks.kind().name().to_lowercase(),
        }
    }

    /// Shape.
    pub fn dims(&self) -> &[usize] {
        match self {
            Weight::Tensor(tensor) => tensor.dims(),
            Weight::Quantized(blocks) => blocks.dims(),
        }
    }
}
