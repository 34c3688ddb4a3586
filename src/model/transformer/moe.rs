//! A mixture of experts with top-k routing (Shazeer et al., arXiv 1701.06538).

use candle_core::{Result, Tensor};
use candle_nn::ops::softmax;

use super::architecture;
use super::mlp::Mlp;
use crate::model::compute::linear::Linear;

pub(crate) struct Experts {
    /// Number of experts, and how many a token uses.
    pub shape: architecture::Experts,
    /// `[experts, width]`.
    pub router: Linear,
    /// The experts, in the router's order.
    pub experts: Vec<Mlp>,
}

impl Experts {
    /// Router probabilities, `[tokens, experts]`; each row sums to 1.
    pub fn route(&self, x: &Tensor) -> Result<Tensor> {
        softmax(&self.router.forward(x)?, 1)
    }

    /// `x`: `[tokens, width]`; `routes`: router probabilities; gives `[tokens, width]`.
    pub fn forward(&self, x: &Tensor, routes: &Tensor) -> Result<Tensor> {
        let mut assigned: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); self.experts.len()];
        for (token, weights) in routes.to_vec2::<f32>()?.iter().enumerate() {
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
            order.truncate(self.shape.chosen);
            let sum: f32 = order.iter().map(|&expert| weights[expert]).sum();
            let whole = if self.shape.normalised { sum } else { 1.0 };
            for expert in order {
                assigned[expert].0.push(token as u32);
                assigned[expert].1.push(weights[expert] / whole);
            }
        }
        let mut out = x.zeros_like()?;
        for (expert, (tokens, weights)) in self.experts.iter().zip(assigned) {
            if tokens.is_empty() {
                continue;
            }
            let count = weights.len();
            let tokens = Tensor::new(tokens, x.device())?;
            let weights = Tensor::from_vec(weights, (count, 1), x.device())?;
            let given = expert.forward(&(&x.index_select(&tokens, 0)?).into())?.broadcast_mul(&weights)?;
            out = out.index_add(&tokens, &given, 0)?;
        }
        Ok(out)
    }
}
