//! The MLP of a block, in the forms that families give it. It knows nothing of hooks.

use candle_core::{Result, Tensor};

use crate::model::compute::Activation;
use crate::model::compute::Input;
use crate::model::compute::linear::Linear;

/// What stands between a block's norm and its down projection, and that projection.
pub(crate) struct Mlp {
    /// Absent where the MLP has no gate.
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

/// What the down projection reads, before the activation.
pub(crate) struct Hidden {
    gate: Option<Tensor>,
    up: Tensor,
    activation: Activation,
}

impl Hidden {
    /// `[tokens, hidden]`
    pub fn input(&self) -> Input<'_> {
        match &self.gate {
            Some(gate) => Input::Gated(gate, &self.up, self.activation),
            None => Input::Active(&self.up, self.activation),
        }
    }
}

impl Mlp {
    pub fn hidden(&self, x: &Input) -> Result<Hidden> {
        let (gate, up) = match &self.gate {
            Some(gate) => {
                let [gate, up] = Linear::forward_all([gate, &self.up], x)?;
                (Some(gate), up)
            }
            None => (None, self.up.forward_input(x)?),
        };
        Ok(Hidden { gate, up, activation: self.activation })
    }

    pub fn forward(&self, x: &Input) -> Result<Tensor> {
        if let Some(gate) = &self.gate
            && let Some(out) = Linear::forward_gated([gate, &self.up, &self.down], self.activation, x)
        {
            return out;
        }
        self.down.forward_input(&self.hidden(x)?.input())
    }
}
