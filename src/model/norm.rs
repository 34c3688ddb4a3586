//! A norm with its weights. It knows nothing of where in a model it stands.

use candle_core::{Result, Tensor};

use crate::model::operations::{layer_norm, rms_norm};

pub(super) struct Norm {
    weight: Tensor,
    /// Layer norms have one.
    bias: Option<Tensor>,
    epsilon: f64,
}

impl Norm {
    /// An RMS norm without a bias, a layer norm with one; both `[width]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, epsilon: f64) -> Norm {
        Norm { weight, bias, epsilon }
    }

    pub fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// `x`: `[…, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => layer_norm(x, &self.weight, bias, self.epsilon),
            None => rms_norm(x, &self.weight, self.epsilon),
        }
    }
}
