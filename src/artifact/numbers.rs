//! A tensor to write, in memory.

use safetensors::{Dtype, View};

/// A tensor to write: element type, shape and little-endian bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Numbers {
    /// A tensor of f32, in row-major order whatever the array's memory layout.
    pub fn floats<D: ndarray::Dimension>(array: &ndarray::Array<f32, D>) -> Numbers {
        Numbers {
            dtype: Dtype::F32,
            shape: array.shape().to_vec(),
            bytes: array.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// A tensor of i64 with one dimension.
    pub fn integers(values: &[i64]) -> Numbers {
        Numbers {
            dtype: Dtype::I64,
            shape: vec![values.len()],
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// A tensor rounded to f16: half the bytes; values above 65,504 become infinite.
    pub fn halved<D: ndarray::Dimension>(array: &ndarray::Array<f32, D>) -> Numbers {
        Numbers {
            dtype: Dtype::F16,
            shape: array.shape().to_vec(),
            bytes: array.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect(),
        }
    }

    /// A tensor rounded to bf16: half the bytes, about three significant digits.
    pub fn rounded<D: ndarray::Dimension>(array: &ndarray::Array<f32, D>) -> Numbers {
        Numbers {
            dtype: Dtype::BF16,
            shape: array.shape().to_vec(),
            bytes: array.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect(),
        }
    }
}

impl View for Numbers {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
