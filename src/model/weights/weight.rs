//! A tensor that was taken from a checkpoint, in the type that it is kept in.
//! It knows nothing of files.

use std::str::FromStr;
use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

/// The type that a model's matrices are kept in. Its vectors (norms, biases) are f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    #[default]
    F32,
    Bf16,
    F16,
}

impl Dtype {
    /// Bytes of a number.
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

/// A model's tensor.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Numbers: f32, bf16 or f16.
    Tensor(Tensor),
    /// Quantised blocks, as they stand in the file.
    Blocks(Arc<QTensor>),
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Weight {
        Weight::Tensor(tensor)
    }
}

impl Weight {
    /// All of its numbers as f32: what a norm or a bias is used as.
    pub fn floats(&self) -> candle_core::Result<Tensor> {
        match self {
            Weight::Tensor(tensor) => tensor.to_dtype(DType::F32),
            Weight::Blocks(blocks) => blocks.dequantize(&blocks.device()),
        }
    }

    /// The rows with these numbers, as f32: a lookup in an embedding. `rows`: u32 `[count]`; gives `[count, width]`.
    pub fn rows(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Weight::Tensor(tensor) => tensor.index_select(rows, 0)?.to_dtype(DType::F32),
            Weight::Blocks(_) => self.floats()?.index_select(rows, 0),
        }
    }

    pub fn dims(&self) -> &[usize] {
        match self {
            Weight::Tensor(tensor) => tensor.dims(),
            Weight::Blocks(blocks) => blocks.shape().dims(),
        }
    }
}
