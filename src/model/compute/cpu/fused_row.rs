//! Rowwise operations that are fused into the matrix product that follows them: norms and activations.

use super::activation::{active_row, gated_row};
use super::norms::{layer_row, rms_row};
use crate::model::compute::activation::Activation;

/// An operation and its f32 inputs, `[tokens, width]` each.
pub enum FusedRow<'a> {
    /// The row unchanged.
    Plain(&'a [f32]),
    /// RMS norm.
    Rms { x: &'a [f32], weight: &'a [f32], epsilon: f32 },
    /// Layer norm.
    Layer { x: &'a [f32], weight: &'a [f32], bias: &'a [f32], epsilon: f32 },
    /// `f(x)`.
    Active(&'a [f32], Activation),
    /// `f(gate) · up`.
    Gated(&'a [f32], &'a [f32], Activation),
}

impl FusedRow<'_> {
    /// Computes a token's row.
    #[inline(always)]
    pub fn write(&self, token: usize, out: &mut [f32]) {
        let at = token * out.len()..(token + 1) * out.len();
        match *self {
            FusedRow::Plain(x) => out.copy_from_slice(&x[at]),
            FusedRow::Rms { x, weight, epsilon } => rms_row(&x[at], weight, epsilon, out),
            FusedRow::Layer { x, weight, bias, epsilon } => layer_row(&x[at], weight, bias, epsilon, out),
            FusedRow::Active(x, activation) => active_row(&x[at], activation, out),
            FusedRow::Gated(gate, up, activation) => gated_row(&gate[at.clone()], &up[at], activation, out),
        }
    }
}
