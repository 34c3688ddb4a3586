//! The MLP of a block, in the forms that families give it. It knows nothing of hooks.

use candle_core::{Result, Tensor};

use super::linear::Linear;
use crate::model::operations::{Activation, activate, gated};

/// What stands between a block's norm and its down projection, and that projection.
pub(super) struct Mlp {
    /// Absent where the MLP has no gate.
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

impl Mlp {
    /// The input of the down projection: `[tokens, hidden]`.
    pub fn hidden(&self, x: &Tensor) -> Result<Tensor> {
        let up = self.up.forward(x)?;
        match &self.gate {
            Some(gate) => gated(&gate.forward(x)?, &up, self.activation),
            None => activate(&up, self.activation),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.hidden(x)?)
    }
}
