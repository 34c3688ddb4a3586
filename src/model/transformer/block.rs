//! One block of the forward pass with its hook sites: attention, then (or in parallel) an MLP or a mixture of experts.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{D, Device, Tensor};

use super::architecture::QueryGrowth;
use super::kv_cache::Cache;
use super::latent::Latent;
use super::mlp::Mlp;
use super::moe::Experts;
use crate::error::{Error, Result};
use crate::model::compute::attention_weights::attention_weights;
use crate::model::compute::backend::uses_candle;
use crate::model::compute::candle::ops as candle_ops;
use crate::model::compute::cpu::attention::attend;
use crate::model::compute::cpu::rotary::prepare_heads;
use crate::model::compute::cpu::tensor_slice;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::compute::ops::{add, attention, rotate};
use crate::model::compute::{Angles, Heads, Input};
use crate::model::hook::Hook;
use crate::model::site::{Point, Site};
use crate::model::token::Token;

pub(crate) struct Block {
    pub number: usize,
    pub attention: Attention,
    pub attention_norms: Norms,
    pub feed: FeedForward,
    pub mlp_norms: Norms,
    /// Whether attention and MLP read the same residual stream.
    pub parallel: bool,
    /// Factor of the outputs of attention and MLP where they are added to the residual stream.
    pub residual_scale: Option<f64>,
}

pub(crate) struct Attention {
    pub heads: Heads,
    /// Index of the rotary embedding, if the model has one.
    pub rope: Option<usize>,
    pub query: Linear,
    pub source: KeySource,
    /// Width of a head's values.
    pub value_width: usize,
    /// Norms of queries and keys, as wide as one head or as all.
    pub head_norms: Option<[Norm; 2]>,
    /// Factors `[heads, head width]` of normed queries and keys, where each head has its own.
    pub head_factors: Option<[Tensor; 2]>,
    /// Largest absolute value of queries, keys and values.
    pub clip: Option<f64>,
    pub growth: Option<QueryGrowth>,
    /// The score of each query head's sink.
    pub sinks: Option<Arc<[f32]>>,
    pub output: Linear,
}

/// Where keys and values come from.
pub(crate) enum KeySource {
    /// The stream.
    Stream { key: Linear, value: Linear },
    /// A narrow vector.
    Latent(Box<Latent>),
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

/// The state that all blocks of one pass share.
pub(crate) struct Pass<'a> {
    pub tokens: Cow<'a, [Token]>,
    /// One per rotary embedding of the model.
    pub angles: Vec<Angles>,
    pub cache: Option<&'a mut Cache>,
    /// The last site that the pass must reach.
    pub last: Site,
    /// Past the attention of the last block: the tokens whose results are used; none for all.
    pub needed: Option<Vec<usize>>,
}

impl Pass<'_> {
    /// Drops the tokens whose results nobody uses.
    fn keep_needed(&mut self, x: Tensor, heads: Tensor) -> Result<(Tensor, Tensor)> {
        let Some(needed) = self.needed.take() else { return Ok((x, heads)) };
        self.tokens = needed.iter().map(|&at| self.tokens[at].clone()).collect();
        let at = Tensor::new(needed.iter().map(|&at| at as u32).collect::<Vec<_>>(), x.device())?;
        Ok((x.index_select(&at, 0)?, heads.index_select(&at, 0)?))
    }
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
        let (heads, weights) = self.attention.forward(self.number, &read, pass, wants_weights)?;
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
        let added = norm(&self.attention_norms.output, self.attention.output.forward(&heads)?)?;
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

impl Attention {
    /// The concatenated head outputs, `[tokens, heads × head width]`, and where they are wanted the attention weights,
    /// `[tokens, heads × keys]`.
    fn forward(
        &self,
        block: usize,
        x: &Input,
        pass: &mut Pass,
        wants_weights: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let heads = self.heads;
        let count = pass.tokens.len();
        let [query, key, value] = match &self.source {
            KeySource::Stream { key, value } => Linear::forward_all([&self.query, key, value], x)?,
            KeySource::Latent(latent) => latent.forward(&self.query, x, heads)?,
        };
        let angles = self.rope.map(|rope| &pass.angles[rope]);
        let query = self.prepared(query, 0, angles)?;
        let key = self.prepared(key, 1, angles)?;
        let value = clipped(value, self.clip)?.reshape((count, heads.keys, heads.width))?;
        let query = match self.growth {
            Some(growth) => grown(query, growth, &pass.tokens)?,
            None => query,
        };
        let sinks = self.sinks.as_ref();
        let own = sinks.map(|sinks| &**sinks);
        let mut weights = None;
        let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let mixed = match &mut pass.cache {
            None => {
                if wants_weights {
                    let (query, key) = (flat(&query)?, flat(&key)?);
                    let token = heads.keys * heads.width;
                    let row =
                        |row: std::ops::Range<usize>| (row.clone(), &key[row.start * token..row.end * token]);
                    let rows: Vec<_> = rows(&pass.tokens).into_iter().map(row).collect();
                    weights = Some(attention_weights(&query, heads, own, &rows));
                }
                attention(&query, &key, &value, heads, sinks, rows(&pass.tokens))?
            }
            Some(cache) if uses_candle(&query) => {
                let segments = cache.extend_tensors(block, &pass.tokens, [&key, &value])?;
                if wants_weights {
                    let keys = segments
                        .iter()
                        .map(|one| flat(&one.keys))
                        .collect::<candle_core::Result<Vec<_>>>()?;
                    let row = |(one, keys): (&candle_ops::KvSegment, _)| (one.tokens.clone(), keys);
                    let rows: Vec<_> = segments.iter().zip(keys.iter().map(Vec::as_slice)).map(row).collect();
                    weights = Some(attention_weights(&flat(&query)?, heads, own, &rows));
                }
                candle_ops::attend(&query, heads, own, &segments)?
            }
            Some(cache) => tensor_slice::with([&query, &key, &value], |[query, keys, values]| {
                let segments = cache.extend(block, &pass.tokens, keys, values, heads.keys * heads.width);
                if wants_weights {
                    let rows: Vec<_> = segments.iter().map(|one| (one.tokens.clone(), one.keys)).collect();
                    weights = Some(attention_weights(query, heads, own, &rows));
                }
                Tensor::new(attend(query, heads, own, &segments), &Device::Cpu)
            })?,
        };
        let mixed = match self.value_width < heads.width {
            true => mixed
                .reshape((count, heads.queries, heads.width))?
                .narrow(2, 0, self.value_width)?
                .contiguous()?,
            false => mixed,
        };
        let mixed = mixed.reshape((count, heads.queries * self.value_width))?;
        let weights = weights.map(|weights| {
            let width = weights.len() / count.max(1);
            Tensor::from_vec(weights, (count, width), &Device::Cpu)
        });
        Ok((mixed, weights.transpose()?))
    }
}

impl Attention {
    /// Queries (0) or keys (1) after norm, clipping and rotary embedding, `[tokens, heads, width]`.
    fn prepared(&self, x: Tensor, which: usize, angles: Option<&Angles>) -> Result<Tensor> {
        let width = self.heads.width;
        let norm = self.head_norms.as_ref().map(|norms| &norms[which]);
        if self.clip.is_none() && self.head_factors.is_none() {
            return norm_and_rotate(x, width, norm, angles);
        }
        let mut x = norm_and_rotate(x, width, norm, None)?;
        if let Some(factors) = &self.head_factors {
            x = x.broadcast_mul(&factors[which])?;
        }
        let x = clipped(x, self.clip)?;
        angles.map_or(Ok(x.clone()), |angles| Ok(rotate(&x, angles)?))
    }
}

fn clipped(x: Tensor, clip: Option<f64>) -> Result<Tensor> {
    match clip {
        Some(clip) => Ok(x.clamp(-clip, clip)?),
        None => Ok(x),
    }
}

/// Queries `[tokens, heads, width]` times the growth at each token's position.
fn grown(queries: Tensor, growth: QueryGrowth, tokens: &[Token]) -> Result<Tensor> {
    let factor = |token: &Token| {
        let contexts = (token.position as f64 / growth.context).floor();
        (1.0 + growth.beta * (1.0 + contexts).ln()) as f32
    };
    let factors: Vec<f32> = tokens.iter().map(factor).collect();
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(queries);
    }
    let factors = Tensor::from_vec(factors, (tokens.len(), 1, 1), queries.device())?;
    Ok(queries.broadcast_mul(&factors)?)
}

/// Queries or keys after norm and rotary embedding, `[tokens, heads, width]`.
fn norm_and_rotate(x: Tensor, width: usize, norm: Option<&Norm>, angles: Option<&Angles>) -> Result<Tensor> {
    let count = x.dim(0)?;
    if uses_candle(&x) || x.track_op() || norm.is_some_and(|norm| !norm.is_rms()) {
        let x = match norm {
            Some(norm) => norm.forward(&x.reshape((count, (), norm.width()))?)?,
            None => x,
        };
        let x = x.reshape((count, (), width))?;
        return Ok(angles.map_or(Ok(x.clone()), |angles| rotate(&x, angles))?);
    }
    match norm {
        Some(norm) => norm.with_rms(|norm| prepare_heads(&x, width, norm, angles))?,
        None => prepare_heads(&x, width, None, angles)?,
    }
    Ok(x.reshape((count, (), width))?)
}

fn norm(norm: &Option<Norm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => Ok(norm.forward(&x)?),
        None => Ok(x),
    }
}

/// Calls the hook if it wants the site, and refuses a result of another shape.
pub(crate) fn call_hook(
    hook: &mut dyn Hook,
    site: Site,
    activations: Tensor,
    tokens: &[Token],
) -> Result<Tensor> {
    if !hook.wants(site) {
        return Ok(activations);
    }
    let shape = activations.shape().clone();
    let changed = hook.call(site, activations, tokens)?;
    if *changed.shape() != shape {
        let width = shape.dim(D::Minus1)?;
        return Err(Error::input(
            format!("hook at {site}"),
            format!("a result of shape {:?}", changed.shape()),
            format!("[{}, {width}], the shape of its input", tokens.len()),
        ));
    }
    Ok(changed)
}

/// The token range of each row of a batch.
pub(crate) fn rows(tokens: &[Token]) -> Vec<std::ops::Range<usize>> {
    let mut begin = 0;
    let chunks = tokens.chunk_by(|a, b| a.row == b.row);
    chunks
        .map(|row| {
            let range = begin..begin + row.len();
            begin = range.end;
            range
        })
        .collect()
}
