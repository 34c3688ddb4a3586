//! A mixture of experts: routers, top-k choice and the experts' weighted sum (Shazeer et al., arXiv 1701.06538).

use candle_core::{Result, Tensor};
use candle_nn::ops::{sigmoid, softmax};

use super::architecture;
use super::architecture::Router;
use super::mlp::Mlp;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::{Norm, normed};

pub(crate) struct Experts {
    /// Number of experts, how many a token uses, and how they are chosen.
    pub shape: architecture::Experts,
    /// `[experts, width]`.
    pub router: Linear,
    /// Of what the router reads, where it is not normed already.
    pub router_norm: Option<Norm>,
    /// Factor of what each expert gives.
    pub factors: Option<Vec<f32>>,
    /// Sigmoid routing: added to the scores for the choice alone, one number an expert.
    pub correction: Option<Vec<f32>>,
    /// The experts, in the router's order.
    pub experts: Vec<Mlp>,
    /// The expert that every token uses, and the projection `[1, width]` whose sigmoid scales it.
    pub shared: Option<(Mlp, Option<Linear>)>,
}

impl Experts {
    /// Router probabilities, `[tokens, experts]`: each row sums to 1, or, of sigmoid routers, each number is from 0 to 1.
    pub fn route(&self, x: &Tensor) -> Result<Tensor> {
        let scores = self.router.forward(&normed(&self.router_norm, x.clone())?)?;
        match self.shape.router {
            Router::Sigmoid { .. } | Router::ScaledInput => sigmoid(&scores),
            Router::Softmax | Router::GroupLimited { .. } | Router::SparseMixer { .. } => softmax(&scores, 1),
        }
    }

    /// `x`: `[tokens, width]`; `routes`: router probabilities; gives `[tokens, width]`.
    pub fn forward(&self, x: &Tensor, routes: &Tensor) -> Result<Tensor> {
        let mut assigned: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); self.experts.len()];
        let routes = routes.to_vec2::<f32>()?;
        // SparseMixer compares the scores themselves, which probabilities tell up to a constant.
        let constants: Vec<f32> = match self.shape.router {
            Router::SparseMixer { .. } => self.router.forward(x)?.log_sum_exp(1)?.to_vec1()?,
            _ => Vec::new(),
        };
        for (token, probabilities) in routes.iter().enumerate() {
            for (expert, weight) in self.chosen(probabilities, constants.get(token).copied()) {
                assigned[expert].0.push(token as u32);
                assigned[expert].1.push(weight);
            }
        }
        let mut out = match &self.shared {
            Some((shared, gate)) => {
                let given = shared.forward(&x.into())?;
                match gate {
                    Some(gate) => given.broadcast_mul(&sigmoid(&gate.forward(x)?)?)?,
                    None => given,
                }
            }
            None => x.zeros_like()?,
        };
        for (expert, (tokens, weights)) in self.experts.iter().zip(assigned) {
            if tokens.is_empty() {
                continue;
            }
            let count = weights.len();
            let tokens = Tensor::new(tokens, x.device())?;
            let weights = Tensor::from_vec(weights, (count, 1), x.device())?;
            let read = x.index_select(&tokens, 0)?;
            let given = match self.shape.router {
                Router::ScaledInput => expert.forward(&(&read.broadcast_mul(&weights)?).into())?,
                _ => expert.forward(&(&read).into())?.broadcast_mul(&weights)?,
            };
            out = out.index_add(&tokens, &given, 0)?;
        }
        Ok(out)
    }

    /// A token's experts and their weights. `constant`: the logarithm of the sum of its exponentiated scores.
    fn chosen(&self, probabilities: &[f32], constant: Option<f32>) -> Vec<(usize, f32)> {
        let shape = &self.shape;
        let (mut chosen, smallest) = match shape.router {
            Router::Softmax | Router::ScaledInput => (largest(probabilities, shape.chosen), 0.0),
            Router::Sigmoid { groups, chosen_groups } => {
                let correction = self.correction.iter().flatten().copied().chain(std::iter::repeat(0.0));
                let corrected: Vec<f32> = probabilities.iter().zip(correction).map(|(p, c)| p + c).collect();
                (of_best_groups(&corrected, groups, [2, chosen_groups], shape.chosen), 1e-20)
            }
            Router::GroupLimited { groups, chosen_groups } => {
                (of_best_groups(probabilities, groups, [1, chosen_groups], shape.chosen), 0.0)
            }
            Router::SparseMixer { jitter } => {
                let constant = constant.unwrap_or(0.0);
                let scores: Vec<f32> = probabilities.iter().map(|p| p.ln() + constant).collect();
                return sparse_mixer(&scores, jitter as f32, shape.chosen);
            }
        };
        let whole = match shape.normalised {
            true => chosen.iter().map(|&expert| probabilities[expert]).sum::<f32>() + smallest,
            false => 1.0,
        };
        let scale = shape.scale as f32;
        let factor = |expert: usize| {
            self.factors
                .as_ref()
                .and_then(|factors| factors.get(expert))
                .map_or(scale, |factor| factor * scale)
        };
        chosen.drain(..).map(|expert| (expert, probabilities[expert] / whole * factor(expert))).collect()
    }
}

/// Indices of the `count` largest numbers, the largest first; of equal ones, the first.
fn largest(numbers: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// The `count` largest of the best groups: those whose `counted` largest numbers have the largest sums.
fn of_best_groups(
    numbers: &[f32],
    groups: usize,
    [counted, chosen_groups]: [usize; 2],
    count: usize,
) -> Vec<usize> {
    if groups <= 1 {
        return largest(numbers, count);
    }
    let size = (numbers.len() / groups).max(1);
    let sums: Vec<f32> = numbers
        .chunks(size)
        .map(|group| largest(group, counted).into_iter().map(|at| group[at]).sum())
        .collect();
    let mut masked = vec![f32::NEG_INFINITY; numbers.len()];
    for group in largest(&sums, chosen_groups) {
        let at = group * size..(group + 1) * size;
        masked[at.clone()].copy_from_slice(&numbers[at]);
    }
    largest(&masked, count)
}

/// SparseMixer without sampling (arXiv 2409.12136): the experts with the largest scores in turn; the weight of each is its softmax among
/// the scores that are left and within twice the jitter of it, relative to the larger of the two.
fn sparse_mixer(scores: &[f32], jitter: f32, count: usize) -> Vec<(usize, f32)> {
    let mut left = scores.to_vec();
    (0..count)
        .filter_map(|_| {
            let best = *largest(&left, 1).first()?;
            let top = left[best];
            let competes = |&(number, left): &(usize, &f32)| {
                let distance = (top - scores[number]) / scores[number].abs().max(top);
                left.is_finite() && (distance.is_nan() || distance <= 2.0 * jitter)
            };
            let sum: f32 = left.iter().enumerate().filter(competes).map(|(_, x)| (x - top).exp()).sum();
            left[best] = f32::NEG_INFINITY;
            Some((best, 1.0 / sum))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_come_from_the_groups_with_the_best_pairs() {
        // Sums of the two best: 1.0, 1.1, 0.9; the largest single number is in the group that is left out.
        let numbers = [0.5, 0.5, 0.1, 0.5, 0.6, 0.2, 0.85, 0.05, 0.0];
        assert_eq!(of_best_groups(&numbers, 3, [2, 2], 3), [4, 0, 1]);
        assert_eq!(of_best_groups(&numbers, 3, [1, 2], 3), [6, 4, 3]);
        assert_eq!(of_best_groups(&numbers, 1, [2, 1], 2), [6, 4]);
    }

    #[test]
    fn sparse_mixer_weighs_an_expert_among_its_close_rivals_only() {
        // 2.0 and 1.99 are within 2%, 1.0 is not; the second choice has no rival left.
        let chosen = sparse_mixer(&[1.0, 2.0, 1.99], 0.01, 2);
        assert_eq!(chosen.iter().map(|(expert, _)| *expert).collect::<Vec<_>>(), [1, 2]);
        assert!((chosen[0].1 - 1.0 / (1.0 + (-0.01f32).exp())).abs() < 1e-6);
        assert_eq!(chosen[1].1, 1.0);
    }
}
