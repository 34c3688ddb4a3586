//! The matrix product of a layer: the seam where backends come in.
//! It knows nothing of what the product is for.

use candle_core::{Result, Tensor};

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

    /// `x`: `[tokens, in]`; gives `[tokens, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = x.matmul(&self.weight.floats()?.t()?)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}
