//! The matrix product of a layer: the seam where the types that a matrix is kept in come in.
//! It knows nothing of what the product is for.

mod lanes;
mod rows;

use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};

use super::weights::Weight;

/// `x · weightᵀ + bias`.
pub struct Linear {
    /// `[out, in]`.
    weight: Weight,
    bias: Option<Tensor>,
}

impl Linear {
    pub fn new(weight: Weight, bias: Option<Tensor>) -> Linear {
        Linear { weight, bias }
    }

    /// `x`: f32 `[tokens, in]`; gives f32 `[tokens, out]`. Gradients flow where they are asked for, but not through
    /// quantised blocks.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = match &self.weight {
            // Our own products leave no trace for a gradient to follow.
            Weight::Tensor(weight) if x.track_op() || weight.track_op() => {
                x.matmul(&weight.to_dtype(DType::F32)?.t()?)?
            }
            Weight::Tensor(weight) => match weight.dtype() {
                DType::BF16 => rows::product::<bf16>(x, weight)?,
                DType::F16 => rows::product::<f16>(x, weight)?,
                _ => rows::product::<f32>(x, weight)?,
            },
            Weight::Blocks(blocks) => rows::product_with_blocks(x, blocks)?,
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}
