//! Linear layers by candle's operations, which run on any device.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use crate::model::compute::backend::to_compute_device;
#[cfg(feature = "cuda")]
use crate::model::compute::cuda::bf16_gemm::Product;
use crate::model::weights::Weight;

/// Elements of a matrix that are converted to f32 at once.
const UPCAST_ELEMENTS: usize = 1 << 26;

/// A matrix `[outputs, inputs]` on the device that multiplies it.
pub(crate) enum CandleLinear {
    /// f32, bf16 or f16.
    Dense(Tensor),
    Quantized(Arc<QTensor>),
}

impl CandleLinear {
    /// Moves a matrix to the device.
    pub fn new(weight: &Weight, device: &Device) -> Result<CandleLinear> {
        match weight {
            Weight::Tensor(tensor) => Ok(CandleLinear::Dense(to_compute_device(tensor)?.contiguous()?)),
            Weight::Quantized(blocks) => {
                // Formats that candle does not have become f32.
                let Some(kind) = blocks.kind().candle() else {
                    return Ok(CandleLinear::Dense(to_compute_device(&weight.floats()?)?.contiguous()?));
                };
                let bytes = Cow::Borrowed(blocks.bytes(0..blocks.rows()));
                let storage = QStorage::from_data(bytes, device, kind)?;
                Ok(CandleLinear::Quantized(Arc::new(QTensor::new(storage, blocks.dims())?)))
            }
        }
    }

    /// Rows of the matrix by index, as f32 `[rows, inputs]`.
    pub fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        match self {
            CandleLinear::Dense(matrix) => {
                matrix.index_select(&Tensor::new(rows, matrix.device())?, 0)?.to_dtype(DType::F32)
            }
            CandleLinear::Quantized(blocks) => blocks.embedding(&Tensor::new(rows, &blocks.device())?),
        }
    }

    /// `x · matrixᵀ`, accumulated in f32. `x`: f32 `[tokens, inputs]`, on the matrix's device; it is rounded to bf16 if the matrix is
    /// bf16. Gives f32 `[tokens, outputs]`.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        match self {
            CandleLinear::Dense(matrix) => match matrix.dtype() {
                DType::F32 => x.matmul(&matrix.t()?),
                DType::BF16 => bf16_product(&x.to_dtype(DType::BF16)?, matrix),
                _ => upcast_product(&x, matrix),
            },
            // On the CPU, candle would quantise `x`.
            CandleLinear::Quantized(blocks) if blocks.device().is_cpu() => {
                x.matmul(&blocks.dequantize(x.device())?.t()?)
            }
            CandleLinear::Quantized(blocks) => QMatMul::from_arc(blocks.clone())?.forward(&x),
        }
    }
}

/// The product of two bf16 matrices. Candle's own product would round the result to bf16.
fn bf16_product(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return x.apply_op2_no_bwd(matrix, &Product);
    }
    upcast_product(&x.to_dtype(DType::F32)?, matrix)
}

/// The product with a matrix that is converted to f32, some rows at a time.
fn upcast_product(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let (outputs, inputs) = matrix.dims2()?;
    let many = (UPCAST_ELEMENTS / inputs.max(1)).clamp(1, outputs.max(1));
    let part = |begin: usize| {
        let rows = matrix.narrow(0, begin, many.min(outputs - begin))?;
        x.matmul(&rows.to_dtype(DType::F32)?.t()?)
    };
    let parts: Vec<Tensor> = (0..outputs).step_by(many).map(part).collect::<Result<_>>()?;
    Tensor::cat(&parts, 1)
}
