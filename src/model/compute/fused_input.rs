//! The input of a matrix product: a tensor, or a norm or activation that is computed row by row while the product reads it, so
//! that its result is never in memory.

use candle_core::{Result, Tensor};

use super::activation::Activation;
use super::cpu::fused_row::FusedRow;
use super::cpu::tensor_slice;
use super::norm::Norm;
use super::ops::{activate, gated};

pub(crate) enum Input<'a> {
    /// f32 `[tokens, inputs]`.
    Plain(&'a Tensor),
    Normed(&'a Tensor, &'a Norm),
    Active(&'a Tensor, Activation),
    /// `f(gate) · up`
    Gated(&'a Tensor, &'a Tensor, Activation),
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(x: &'a Tensor) -> Input<'a> {
        Input::Plain(x)
    }
}

impl<'a> Input<'a> {
    /// `x` after the norm, if there is one.
    pub fn normed(x: &'a Tensor, norm: &'a Option<Norm>) -> Input<'a> {
        match norm {
            Some(norm) => Input::Normed(x, norm),
            None => Input::Plain(x),
        }
    }

    /// The tensor that it is computed from (the gate, for [`Input::Gated`]).
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) fn source(&self) -> &'a Tensor {
        match self {
            Input::Plain(x) | Input::Normed(x, _) | Input::Active(x, _) | Input::Gated(x, ..) => x,
        }
    }

    /// Computes it as a tensor, with its gradient.
    pub fn tensor(&self) -> Result<Tensor> {
        match *self {
            Input::Plain(x) => Ok(x.clone()),
            Input::Normed(x, norm) => norm.forward(x),
            Input::Active(x, activation) => activate(x, activation),
            Input::Gated(gate, up, activation) => gated(gate, up, activation),
        }
    }

    /// Calls `with` on the operation that computes its rows.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) fn with_row<T>(&self, with: impl FnOnce(&FusedRow) -> Result<T>) -> Result<T> {
        match *self {
            Input::Plain(x) => tensor_slice::with([x], |[x]| with(&FusedRow::Plain(x))),
            Input::Normed(x, norm) => norm.with_row(x, with),
            Input::Active(x, activation) => {
                tensor_slice::with([x], |[x]| with(&FusedRow::Active(x, activation)))
            }
            Input::Gated(gate, up, activation) => {
                tensor_slice::with([gate, up], |[gate, up]| with(&FusedRow::Gated(gate, up, activation)))
            }
        }
    }
}
