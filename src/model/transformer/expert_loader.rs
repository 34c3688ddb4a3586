//! Construction of a mixture of experts: the router, the experts in each layout of checkpoints, and the shared expert.

use super::architecture;
use super::architecture::{ExpertLayout, Router};
use super::loader::{TensorSource, whole_tensor};
use super::mlp::Mlp;
use super::moe::Experts;
use crate::error::Result;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::weights::{Part, TensorRef, Weight};

impl TensorSource<'_> {
    pub(super) fn experts(&mut self, shape: architecture::Experts, prefix: &str) -> Result<Experts> {
        let a = self.architecture;
        let names = a.names;
        let router = format!("{prefix}{}", names.router);
        let router = self.linear(&router, a.width, shape.bias, whole_tensor(shape.count))?;
        let (router_norm, factors) = match shape.beside {
            true => {
                let scale = self.floats(&TensorRef::whole(format!("{prefix}router.scale"), &[a.width]))?;
                let scale = (scale * (a.width as f64).powf(-0.5))?;
                let name = format!("{prefix}router.per_expert_scale");
                let factors = (self.take)(&TensorRef::whole(name, &[shape.count]))?.floats()?.to_vec1()?;
                (Some(Norm::new(scale, None, a.norm_epsilon)), Some(factors))
            }
            false => (None, None),
        };
        let correction = match shape.router {
            Router::Sigmoid { .. } => {
                let place = TensorRef::whole(format!("{prefix}{}", names.router_correction), &[shape.count]);
                Some((self.take)(&place)?.floats()?.to_vec1()?)
            }
            Router::Softmax
            | Router::GroupLimited { .. }
            | Router::ScaledInput
            | Router::SparseMixer { .. } => None,
        };
        let expert = |number: usize| -> Result<Mlp> {
            Ok(Mlp {
                gate: Some(self.expert_matrix(shape, prefix, number, ExpertMatrix::Gate)?),
                up: self.expert_matrix(shape, prefix, number, ExpertMatrix::Up)?,
                down: self.expert_matrix(shape, prefix, number, ExpertMatrix::Down)?,
                activation: a.activation,
                sparsity: None,
                clamp: shape.clamp,
            })
        };
        let experts = (0..shape.count).map(expert).collect::<Result<_>>()?;
        let shared = match shape.shared {
            Some(shared) => {
                let mut linear = |name: &str, inputs: usize, outputs: usize| {
                    self.linear(&format!("{prefix}{name}"), inputs, false, whole_tensor(outputs))
                };
                let mlp = Mlp {
                    gate: Some(linear(&format!("{}gate_proj", names.shared), a.width, shared.hidden)?),
                    up: linear(&format!("{}up_proj", names.shared), a.width, shared.hidden)?,
                    down: linear(&format!("{}down_proj", names.shared), shared.hidden, a.width)?,
                    activation: a.activation,
                    sparsity: None,
                    clamp: None,
                };
                let gate = match shared.gated {
                    true => Some(linear(names.shared_gate, a.width, 1)?),
                    false => None,
                };
                Some((mlp, gate))
            }
            None => None,
        };
        Ok(Experts { shape, router, router_norm, factors, correction, experts, shared })
    }

    /// One projection of one expert.
    fn expert_matrix(
        &mut self,
        shape: architecture::Experts,
        prefix: &str,
        number: usize,
        which: ExpertMatrix,
    ) -> Result<Linear> {
        let a = self.architecture;
        let (names, hidden) = (a.names, shape.hidden);
        let separate = match which {
            ExpertMatrix::Gate => names.expert_gate,
            ExpertMatrix::Up => names.expert_up,
            ExpertMatrix::Down => names.expert_down,
        };
        let (inputs, outputs, all) = match which {
            ExpertMatrix::Gate | ExpertMatrix::Up => (a.width, hidden, 2 * hidden),
            ExpertMatrix::Down => (hidden, a.width, a.width),
        };
        let together = format!("{prefix}{}{separate}", names.expert);
        let begin = match which {
            ExpertMatrix::Up => hidden,
            ExpertMatrix::Gate | ExpertMatrix::Down => 0,
        };
        match shape.layout {
            ExpertLayout::Separate => {
                let name = format!("{prefix}{}{number}.{separate}", names.expert);
                self.linear(&name, inputs, shape.bias, whole_tensor(outputs))
            }
            ExpertLayout::Stacked => {
                let begin = number * all + begin;
                let rows = std::iter::once(begin..begin + outputs);
                let name = format!("{together}.weight");
                let weight = (self.take)(&TensorRef::rows(name, &[shape.count, all, inputs], rows))?;
                Ok(Linear::new(weight, None)?)
            }
            ExpertLayout::TransposedHalves => {
                // The whole matrix of an expert `[in, out]`, of which gate and up each take a half.
                let rows = std::iter::once(number * inputs..(number + 1) * inputs);
                let whole = match (self.take)(&TensorRef::rows(together, &[shape.count, inputs, all], rows))?
                {
                    Weight::Tensor(tensor) => tensor,
                    other => other.floats()?,
                };
                let part = whole.narrow(1, begin, outputs)?.t()?;
                // What is only checked is one zero, broadcast: nothing of the matrix's size is made of it.
                let part = if whole.is_contiguous() { part.contiguous()? } else { part };
                Ok(Linear::new(Weight::Tensor(part), None)?)
            }
            ExpertLayout::Transposed => {
                // Gate and up are in turn: every other column.
                let (first, step) = match which {
                    ExpertMatrix::Gate => (0, 2),
                    ExpertMatrix::Up => (1, 2),
                    ExpertMatrix::Down => (0, 1),
                };
                let place = TensorRef {
                    name: together.clone(),
                    shape: vec![shape.count, inputs, all],
                    part: Part::Strided { matrix: number, first, step },
                };
                let weight = (self.take)(&place)?;
                let bias = TensorRef {
                    name: format!("{together}_bias"),
                    shape: vec![shape.count, all],
                    part: Part::Strided { matrix: number, first, step },
                };
                let bias = self.floats(&bias)?;
                Ok(Linear::new(weight, Some(bias))?)
            }
        }
    }
}

/// A projection of an expert.
#[derive(Clone, Copy)]
enum ExpertMatrix {
    Gate,
    Up,
    Down,
}
