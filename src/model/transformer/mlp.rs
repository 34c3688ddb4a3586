//! The MLP of a block, plain or gated.

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;

use super::architecture::Clamp;
use crate::model::compute::linear::Linear;
use crate::model::compute::{Activation, Input};

/// The projections of an MLP.
pub(crate) struct Mlp {
    /// Gated MLPs only.
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
    /// Standard deviations above a token's mean below which its gates are 0.
    pub sparsity: Option<f64>,
    /// The limits of a clamped gated unit, which then replaces the activation.
    pub clamp: Option<Clamp>,
}

/// The hidden layer before its activation.
pub(crate) struct Hidden {
    gate: Option<Tensor>,
    up: Tensor,
    activation: Activation,
}

impl Hidden {
    /// The hidden layer, `[tokens, hidden]`.
    pub fn input(&self) -> Input<'_> {
        match &self.gate {
            Some(gate) => Input::Gated(gate, &self.up, self.activation),
            None => Input::Active(&self.up, self.activation),
        }
    }
}

impl Mlp {
    /// The hidden layer before its activation; `x`: `[tokens, width]`.
    pub fn hidden(&self, x: &Input) -> Result<Hidden> {
        let (gate, up) = match &self.gate {
            Some(gate) => {
                let [gate, up] = Linear::forward_all([gate, &self.up], x)?;
                let gate = match self.sparsity {
                    Some(deviations) => sparse(&gate, deviations)?,
                    None => gate,
                };
                (Some(gate), up)
            }
            None => (None, self.up.forward_input(x)?),
        };
        Ok(Hidden { gate, up, activation: self.activation })
    }

    /// The MLP's output, `[tokens, width]`.
    pub fn forward(&self, x: &Input) -> Result<Tensor> {
        if let (Some(gate), Some(clamp)) = (&self.gate, self.clamp) {
            let [gate, up] = Linear::forward_all([gate, &self.up], x)?;
            return self.down.forward(&clamped(&gate, &up, clamp)?);
        }
        if let Some(gate) = &self.gate
            && self.sparsity.is_none()
            && let Some(out) = Linear::forward_gated([gate, &self.up, &self.down], self.activation, x)
        {
            return out;
        }
        self.down.forward_input(&self.hidden(x)?.input())
    }
}

/// `max(gate − mean − deviations · standard deviation, 0)` over each token's gates, `[tokens, hidden]`.
fn sparse(gate: &Tensor, deviations: f64) -> Result<Tensor> {
    let centred = gate.broadcast_sub(&gate.mean_keepdim(1)?)?;
    let spread = (centred.sqr()?.mean_keepdim(1)?.sqrt()? * deviations)?;
    centred.broadcast_sub(&spread)?.relu()
}

/// `min(gate, limit) · sigmoid(alpha · min(gate, limit)) · (clamp(up, ±limit) + 1)`
fn clamped(gate: &Tensor, up: &Tensor, Clamp { alpha, limit }: Clamp) -> Result<Tensor> {
    let gate = gate.minimum(limit)?;
    let share = sigmoid(&(&gate * alpha)?)?;
    (gate * share)?.mul(&(up.clamp(-limit, limit)? + 1.0)?)
}
