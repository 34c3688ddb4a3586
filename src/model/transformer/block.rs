//! One block of the forward pass with its hook sites: attention, then (or in parallel) an MLP or a mixture of experts.

use candle_core::Tensor;

use super::attention::Attention;
use super::delta_net::DeltaNet;
use super::mlp::Mlp;
use super::moe::Experts;
use super::pass::{Pass, call_hook, rows};
use crate::error::Result;
use crate::model::compute::Input;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::compute::ops::add;
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
    /// Factor of the outputs of attention and MLP where they are added to the residual stream.
    pub residual_scale: Option<f64>,
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
    Mlp(Mlp),
    Experts(Box<Experts>),
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
        let wanted = hook.wants(site(Point::MlpHidden));
        let mut at = |point, activations| call_hook(hook, site(point), activations, &pass.tokens);
        let added = norm(&self.attention_norms.output, self.mixer.output().forward(&heads)?)?;
        let added = self.scaled(at(Point::AttnOut, added)?)?;
        // The MLP reads the normed stream; the stream that its output is added to depends on the order.
        let (x, read) = match self.parallel {
            true => (add(&x, &added)?, Some(x)),
            false => (at(Point::ResidMid, norm(&self.attention_norms.after, add(&x, &added)?)?)?, None),
        };
        let read = Input::normed(read.as_ref().unwrap_or(&x), &self.mlp_norms.before);
        let added = match &self.feed {
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
        let added = self.scaled(at(Point::MlpOut, norm(&self.mlp_norms.output, added)?)?)?;
        at(Point::ResidPost, norm(&self.mlp_norms.after, add(&x, &added)?)?)
    }
}

impl Block {
    /// What is added to the residual stream.
    fn scaled(&self, added: Tensor) -> Result<Tensor> {
        match self.residual_scale {
            Some(scale) => Ok((added * scale)?),
            None => Ok(added),
        }
    }
}

fn norm(norm: &Option<Norm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => Ok(norm.forward(&x)?),
        None => Ok(x),
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

    /// The projection of the head outputs to the stream.
    fn output(&self) -> &Linear {
        match self {
            Mixer::Attention(attention) => &attention.output,
            Mixer::DeltaNet(delta) => &delta.output,
        }
    }
}
