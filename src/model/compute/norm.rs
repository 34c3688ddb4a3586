//! A norm with its weights. It knows nothing of where in a model it stands.

use candle_core::{Result, Tensor};

use super::cpu::fused_row::FusedRow;
use super::cpu::tensor_slice;
use super::ops::{layer_norm, rms_norm};

pub(crate) struct Norm {
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

    /// Calls `with` on what makes the norm of `x`, `[tokens, width]`, row by row.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn with_row<T>(&self, x: &Tensor, with: impl FnOnce(&FusedRow) -> Result<T>) -> Result<T> {
        let epsilon = self.epsilon as f32;
        match &self.bias {
            Some(bias) => tensor_slice::with([x, &self.weight, bias], |[x, weight, bias]| {
                with(&FusedRow::Layer { x, weight, bias, epsilon })
            }),
            None => tensor_slice::with([x, &self.weight], |[x, weight]| {
                with(&FusedRow::Rms { x, weight, epsilon })
            }),
        }
    }

    pub fn is_rms(&self) -> bool {
        self.bias.is_none()
    }

    /// Calls `with` on an RMS norm's weight and epsilon; a layer norm has none.
    pub fn with_rms<T>(&self, with: impl FnOnce(Option<(&[f32], f32)>) -> Result<T>) -> Result<T> {
        match &self.bias {
            Some(_) => with(None),
            None => tensor_slice::with([&self.weight], |[weight]| with(Some((weight, self.epsilon as f32)))),
        }
    }
}
