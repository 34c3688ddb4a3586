//! A gated delta net in place of attention (Yang et al., arXiv 2412.06464; Qwen3-Next): projections around a recurrent state.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};

use crate::model::compute::Input;
use crate::model::compute::delta_rule::{DeltaInput, DeltaShape, DeltaWeights, gated_delta_rule};
use crate::model::compute::linear::Linear;

pub(crate) struct DeltaNet {
    pub shape: DeltaShape,
    /// To queries, keys and values before the convolution, `[channels, width]`.
    pub mixed: Linear,
    /// To the gates of the head outputs.
    pub gate: Linear,
    /// To the rates of what is written, one a value head.
    pub rate: Linear,
    /// To the steps of the decay, one a value head.
    pub step: Linear,
    pub weights: DeltaWeights,
    pub output: Linear,
    /// The head output that each of the output projection's columns is of, where they stand in another order.
    pub order: Option<Tensor>,
}

impl DeltaNet {
    /// The gated head outputs, projected to the stream.
    pub fn project(&self, heads: &Tensor) -> Result<Tensor> {
        match &self.order {
            Some(order) => self.output.forward(&heads.contiguous()?.index_select(order, 1)?),
            None => self.output.forward(heads),
        }
    }

    /// The gated head outputs, `[tokens, value heads × value width]`. `rows`: each row's tokens, and its state, which becomes that after
    /// them.
    pub fn forward(&self, x: &Input, rows: Vec<(Range<usize>, &mut [f32])>) -> Result<Tensor> {
        let projected = Linear::forward_all([&self.mixed, &self.gate, &self.rate, &self.step], x)?;
        let device = projected[0].device().clone();
        let (tokens, width) = projected[1].dims2()?;
        let [mixed, gate, rate, step] = projected.map(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        let (mixed, gate, rate, step) = (mixed?, gate?, rate?, step?);
        let input = DeltaInput { mixed: &mixed, gate: &gate, rate: &rate, step: &step };
        let out = gated_delta_rule(self.shape, &self.weights, &input, rows);
        Tensor::from_vec(out, (tokens, width), &Device::Cpu)?.to_device(&device)
    }
}
