//! The product by candle's own operations, wherever the matrix lies: the way of a device.
//! It knows nothing of models.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use super::backend::placed;
use crate::model::weights::Weight;

/// Numbers of a matrix that are widened at once.
const STRETCH: usize = 1 << 26;

/// A matrix `[outputs, inputs]` where it is multiplied.
pub(super) enum Composed {
    /// The product is taken in f32, with what the numbers widen to.
    Whole(Tensor),
    /// Of bf16 numbers: the device's own product adds up in f32, but what goes in and comes out is rounded to bf16.
    Rounded(Tensor),
    Blocks(Arc<QTensor>),
}

impl Composed {
    /// Brings a matrix to the device.
    pub fn new(weight: &Weight, device: &Device) -> Result<Composed> {
        match weight {
            Weight::Tensor(tensor) if tensor.dtype() == DType::BF16 => Ok(Composed::Rounded(placed(tensor)?)),
            Weight::Tensor(tensor) => Ok(Composed::Whole(placed(tensor)?)),
            Weight::Blocks(blocks) => {
                let bytes = Cow::Borrowed(blocks.bytes(0..blocks.rows()));
                let storage = QStorage::from_data(bytes, device, blocks.kind().into())?;
                Ok(Composed::Blocks(Arc::new(QTensor::new(storage, blocks.dims())?)))
            }
        }
    }

    /// The same for a matrix whose results are held against each other (the vocabulary, a router): nothing is rounded.
    pub fn table(weight: &Weight, device: &Device) -> Result<Composed> {
        match Composed::new(weight, device)? {
            Composed::Rounded(tensor) => Ok(Composed::Whole(tensor)),
            other => Ok(other),
        }
    }

    /// Rows of the matrix, as f32: `[rows, inputs]`.
    pub fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        match self {
            Composed::Whole(matrix) | Composed::Rounded(matrix) => {
                matrix.index_select(&Tensor::new(rows, matrix.device())?, 0)?.to_dtype(DType::F32)
            }
            Composed::Blocks(blocks) => blocks.embedding(&Tensor::new(rows, &blocks.device())?),
        }
    }

    /// `x · matrixᵀ`. `x`: f32 `[tokens, inputs]`, where the matrix is; gives f32 `[tokens, outputs]`.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let x = &x.contiguous()?;
        match self {
            Composed::Rounded(matrix) => x.to_dtype(DType::BF16)?.matmul(&matrix.t()?)?.to_dtype(DType::F32),
            Composed::Whole(matrix) if matrix.dtype() == DType::F32 => x.matmul(&matrix.t()?),
            Composed::Whole(matrix) => {
                let (outputs, inputs) = matrix.dims2()?;
                let many = (STRETCH / inputs.max(1)).clamp(1, outputs.max(1));
                let part = |begin: usize| {
                    let rows = matrix.narrow(0, begin, many.min(outputs - begin))?;
                    x.matmul(&rows.to_dtype(DType::F32)?.t()?)
                };
                let parts: Vec<Tensor> = (0..outputs).step_by(many).map(part).collect::<Result<_>>()?;
                Tensor::cat(&parts, 1)
            }
            // On the processor, candle would quantise `x`.
            Composed::Blocks(blocks) if blocks.device().is_cpu() => {
                x.matmul(&blocks.dequantize(x.device())?.t()?)
            }
            Composed::Blocks(blocks) => QMatMul::from_arc(blocks.clone())?.forward(x),
        }
    }
}
