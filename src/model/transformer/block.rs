//! One block of the forward pass with its hook sites: attention, then (or in parallel) an MLP or a mixture of experts.

use candle_core::Tensor;

use super::attention::Attention;
use super::delta_net::DeltaNet;
use super::mlp::Mlp;
use super::moe::Experts;
use super::pass::{Pass, call_hook, rows};
use super::streams::{AltUp, Laurel};
use crate::error::Result;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::{Norm, normed};
use crate::model::compute::ops::{add, gated};
use crate::model::compute::{Activation, Input};
use crate::model::hook::Hook;
use crate::model::site::{Point, Site};

pub(crate) struct Block {
    pub number: usize,
    pub mixer: Mixer,
    pub attention_norms: Norms,
    pub feed: FeedForward,
    pub mlp_norms: Norms,
    /// Whether attention and MLP read the same residual stream.
    pub parallel: bool,
    /// What it reads of the token itself.
    pub per_layer: Option<PerLayer>,
    /// The streams' prediction and correction, if there are several.
    pub streams: Option<Box<AltUp>>,
    /// The linear path beside attention.
    pub laurel: Option<Laurel>,
    /// Factor of the stream where it leaves the block.
    pub scale: Option<f64>,
    /// Factor of the outputs of attention and MLP where they are added to the residual stream.
    pub residual_scale: Option<f64>,
}

/// The way from what a block reads of the token itself to the stream.
pub(crate) struct PerLayer {
    /// From the stream, `[read width, width]`; its activation gates what is read.
    pub gate: Linear,
    /// `[width, read width]`
    pub projection: Linear,
    /// Of what is added to the stream.
    pub norm: Norm,
    pub activation: Activation,
}

/// What mixes the tokens of a row.
pub(crate) enum Mixer {
    Attention(Box<Attention>),
    DeltaNet(Box<DeltaNet>),
}

/// The norms around attention or MLP, each optional.
#[derive(Default)]
pub(crate) struct Norms {
    /// On the input.
    pub before: Option<Norm>,
    /// On the output, before it is added to the residual stream.
    pub output: Option<Norm>,
    /// On the residual stream, after the addition.
    pub after: Option<Norm>,
}

pub(crate) enum FeedForward {
    Mlp(Box<Mlp>),
    Experts(Box<Experts>),
    Both(Box<Both>),
}

/// An MLP and experts that read the same stream, each behind norms of its own but for the MLP's input, which is the block's.
pub(crate) struct Both {
    pub mlp: Mlp,
    pub mlp_output: Option<Norm>,
    pub experts: Experts,
    pub experts_input: Option<Norm>,
    pub experts_output: Option<Norm>,
}

impl Block {
    /// `x`: the incoming residual stream, `[tokens, width]`; gives the outgoing one. If the pass ends inside the block, the result is
    /// unspecified.
    pub fn forward(&self, x: Tensor, pass: &mut Pass, hook: &mut dyn Hook) -> Result<Tensor> {
        let site = |point| Site::Block(self.number, point);
        let x = call_hook(hook, site(Point::ResidPre), x, &pass.tokens)?;
        if pass.last <= site(Point::ResidPre) {
            return Ok(x);
        }
        let x = match &self.streams {
            Some(streams) => {
                let (first, others) = streams.predict(&x, &pass.streams)?;
                pass.streams = others;
                first
            }
            None => x,
        };
        let read = Input::normed(&x, &self.attention_norms.before);
        let wants_weights = hook.wants(site(Point::AttnWeights));
        let (heads, weights) = self.mixer.forward(self.number, &read, pass, wants_weights)?;
        if let Some(weights) = weights {
            // For reading only: what comes back is dropped.
            call_hook(hook, site(Point::AttnWeights), weights, &pass.tokens)?;
        }
        if pass.last <= site(Point::AttnWeights) {
            return Ok(x);
        }
        let heads = call_hook(hook, site(Point::AttnHeads), heads, &pass.tokens)?;
        if pass.last <= site(Point::AttnHeads) {
            return Ok(x);
        }
        let (x, heads) = pass.keep_needed(x, heads)?;
        let predicted = self.streams.as_ref().map(|_| x.clone());
        let beside = match &self.laurel {
            Some(laurel) => Some(laurel.forward(&Input::normed(&x, &self.attention_norms.before).tensor()?)?),
            None => None,
        };
        let wanted = hook.wants(site(Point::MlpHidden));
        let mut at = |point, activations| call_hook(hook, site(point), activations, &pass.tokens);
        let added = normed(&self.attention_norms.output, self.mixer.project(&heads)?)?;
        let added = self.scaled(at(Point::AttnOut, added)?)?;
        // The MLP reads the normed stream; the stream that its output is added to depends on the order.
        let (x, read) = match self.parallel {
            true => (add(&x, &added)?, Some(x)),
            false => {
                let sum = with_path(add(&x, &added)?, beside)?;
                (at(Point::ResidMid, normed(&self.attention_norms.after, sum)?)?, None)
            }
        };
        let stream = read.as_ref().unwrap_or(&x);
        let read = Input::normed(stream, &self.mlp_norms.before);
        let added = match &self.feed {
            FeedForward::Both(both) => {
                let routes = at(Point::Router, both.experts.route(stream)?)?;
                let given = match wanted {
                    true => {
                        let hidden = at(Point::MlpHidden, both.mlp.hidden(&read)?.input().tensor()?)?;
                        both.mlp.down.forward(&hidden)?
                    }
                    false => both.mlp.forward(&read)?,
                };
                let of_experts =
                    both.experts.forward(&Input::normed(stream, &both.experts_input).tensor()?, &routes)?;
                add(&normed(&both.mlp_output, given)?, &normed(&both.experts_output, of_experts)?)?
            }
            // The hidden layer is written to memory only if a hook reads it.
            FeedForward::Mlp(mlp) if wanted => {
                mlp.down.forward(&at(Point::MlpHidden, mlp.hidden(&read)?.input().tensor()?)?)?
            }
            FeedForward::Mlp(mlp) => mlp.forward(&read)?,
            FeedForward::Experts(experts) => {
                let read = read.tensor()?;
                experts.forward(&read, &at(Point::Router, experts.route(&read)?)?)?
            }
        };
        let added = self.scaled(at(Point::MlpOut, normed(&self.mlp_norms.output, added)?)?)?;
        let x = normed(&self.mlp_norms.after, add(&x, &added)?)?;
        let x = match (&self.streams, predicted) {
            (Some(streams), Some(first)) => {
                let (first, mut others) = streams.correct(&x, &first, &pass.streams)?;
                if let Some(read) = self.of_token(&streams.gating(&first)?, pass.per_layer.as_ref())? {
                    for other in &mut others {
                        *other = add(other, &read)?;
                    }
                }
                pass.streams = others;
                first
            }
            _ => match self.of_token(&x, pass.per_layer.as_ref())? {
                Some(read) => add(&x, &read)?,
                None => x,
            },
        };
        let x = match self.scale {
            Some(scale) => (x * scale)?,
            None => x,
        };
        call_hook(hook, site(Point::ResidPost), x, &pass.tokens)
    }
}

impl Block {
    /// What the block reads of the token itself, if it does, gated by the stream `x`.
    fn of_token(&self, x: &Tensor, per_layer: Option<&Tensor>) -> Result<Option<Tensor>> {
        let (Some(own), Some(all)) = (&self.per_layer, per_layer) else { return Ok(None) };
        let gate = own.gate.forward(x)?;
        let width = gate.dims2()?.1;
        let read = all.narrow(1, self.number * width, width)?.contiguous()?;
        let hidden = gated(&gate, &read, own.activation)?;
        Ok(Some(own.norm.forward(&own.projection.forward(&hidden)?)?))
    }

    /// What is added to the residual stream.
    fn scaled(&self, added: Tensor) -> Result<Tensor> {
        match self.residual_scale {
            Some(scale) => Ok((added * scale)?),
            None => Ok(added),
        }
    }
}

/// The stream after attention and the path beside it: the mean of both, times √2.
fn with_path(sum: Tensor, beside: Option<Tensor>) -> Result<Tensor> {
    match beside {
        Some(beside) => Ok(((sum + beside)? * 0.5f64.sqrt())?),
        None => Ok(sum),
    }
}

impl Mixer {
    /// The concatenated head outputs, and where they are wanted the attention weights, if there are any.
    fn forward(
        &self,
        block: usize,
        x: &Input,
        pass: &mut Pass,
        wants_weights: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let delta = match self {
            Mixer::Attention(attention) => return attention.forward(block, x, pass, wants_weights),
            Mixer::DeltaNet(delta) => delta,
        };
        let size = delta.shape.state();
        let heads = match &mut pass.cache {
            Some(cache) => delta.forward(x, cache.recur(block, &pass.tokens, size))?,
            None => {
                let rows = rows(&pass.tokens);
                let mut states = vec![0f32; size * rows.len()];
                delta.forward(x, rows.into_iter().zip(states.chunks_mut(size)).collect())?
            }
        };
        Ok((heads, None))
    }

    /// The head outputs, projected to the stream.
    fn project(&self, heads: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Mixer::Attention(attention) => attention.output.forward(heads)?,
            Mixer::DeltaNet(delta) => delta.project(heads)?,
        })
    }
}
