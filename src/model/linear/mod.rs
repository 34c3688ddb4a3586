//! The matrix product of a layer: the seam where the types that a matrix is kept in come in.
//! It knows nothing of what the product is for.

pub mod backend;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod packed;
mod rows;

use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};

use super::weights::Weight;

use backend::Backend;
#[cfg(target_arch = "x86_64")]
use packed::Packed;

/// `x · weightᵀ + bias`.
pub struct Linear {
    /// `[out, in]`.
    weight: Kept,
    bias: Option<Tensor>,
}

enum Kept {
    /// As it was read: rows end to end, or quantised blocks.
    Read(Weight),
    #[cfg(target_arch = "x86_64")]
    Packed(Packed),
}

impl Linear {
    /// Packs the matrix where that pays: then the packed copy takes the place of the one that was read.
    pub fn new(weight: Weight, bias: Option<Tensor>) -> Result<Linear> {
        #[cfg(target_arch = "x86_64")]
        if let Weight::Tensor(tensor) = &weight
            && !tensor.track_op()
            && let Some(packed) = Packed::new(tensor, Backend::current())?
        {
            return Ok(Linear { weight: Kept::Packed(packed), bias });
        }
        Ok(Linear::unpacked(weight, bias))
    }

    /// Keeps the matrix as it was read: one that others hold too (a tied embedding), or that is used for few tokens.
    pub fn unpacked(weight: Weight, bias: Option<Tensor>) -> Linear {
        Linear { weight: Kept::Read(weight), bias }
    }

    /// `x`: f32 `[tokens, in]`; gives f32 `[tokens, out]`. Gradients flow where they are asked for, but not through
    /// quantised blocks or packed matrices.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = match &self.weight {
            #[cfg(target_arch = "x86_64")]
            Kept::Packed(packed) => packed.product(x)?,
            // Our own products leave no trace for a gradient to follow.
            Kept::Read(Weight::Tensor(weight)) if x.track_op() || weight.track_op() => {
                x.matmul(&weight.to_dtype(DType::F32)?.t()?)?
            }
            Kept::Read(Weight::Tensor(weight)) => match weight.dtype() {
                DType::BF16 => rows::product::<bf16>(x, weight)?,
                DType::F16 => rows::product::<f16>(x, weight)?,
                _ => rows::product::<f32>(x, weight)?,
            },
            Kept::Read(Weight::Blocks(blocks)) => rows::product_with_blocks(x, blocks)?,
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}
