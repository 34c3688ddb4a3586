//! A norm layer with its weights: RMS norm, or layer norm with a bias.

use candle_core::{Result, Tensor};

use super::cpu::fused_row::FusedRow;
use super::cpu::tensor_slice;
use super::ops::{layer_norm, rms_norm};

pub(crate) struct Norm {
    weight: Tensor,
    /// Layer norms only.
    bias: Option<Tensor>,
    epsilon: f64,
}

/// `x`, normalised where there is a norm.
pub(crate) fn normed(norm: &Option<Norm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => Ok(x),
    }
}

impl Norm {
    /// An RMS norm without a bias, or a layer norm with one; both are f32 `[width]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, epsilon: f64) -> Norm {
        Norm { weight, bias, epsilon }
    }

    /// Number of elements of the weight.
    pub fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// Normalises `x`, f32 `[…, width]`, over its last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => layer_norm(x, &self.weight, bias, self.epsilon),
            None => rms_norm(x, &self.weight, self.epsilon),
        }
    }

    /// Calls `with` on the operation that normalises the rows of `x`, `[tokens, width]`.
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

    /// Whether it is an RMS norm.
    pub fn is_rms(&self) -> bool {
        self.bias.is_none()
    }

    /// Calls `with` on the weight and epsilon of an RMS norm; none for a layer norm.
    pub fn with_rms<T>(&self, with: impl FnOnce(Option<(&[f32], f32)>) -> Result<T>) -> Result<T> {
        match &self.bias {
            Some(_) => with(None),
            None => tensor_slice::with([&self.weight], |[weight]| with(Some((weight, self.epsilon as f32)))),
        }
    }
}
