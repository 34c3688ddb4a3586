//! Attention of one block: projections, norms and rotations of queries and keys, the cache, and the mix of values.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use candle_nn::ops::sigmoid;

use super::architecture::QueryGrowth;
use super::latent::Latent;
use super::pass::{Pass, rows};
use crate::error::{Error, Result};
use crate::model::compute::attention_weights::attention_weights;
use crate::model::compute::backend::uses_candle;
use crate::model::compute::candle::ops as candle_ops;
use crate::model::compute::cpu::attention::attend;
use crate::model::compute::cpu::kv_segment::KvSegment;
use crate::model::compute::cpu::rotary::prepare_heads;
use crate::model::compute::cpu::tensor_slice;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::{Norm, normed};
use crate::model::compute::ops::{attention, rotate};
use crate::model::compute::{Angles, Heads, Input};
use crate::model::token::Token;

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
    /// Norm of values on each head.
    pub value_norm: Option<Norm>,
    /// Whether a later block uses the keys and values of this one.
    pub is_shared: bool,
    /// Projection whose sigmoid scales the head outputs.
    pub gate: Option<Linear>,
    pub output: Linear,
}

/// Where keys and values come from.
pub(crate) enum KeySource {
    /// The stream.
    Stream { key: Linear, value: Linear },
    /// A narrow vector.
    Latent(Box<Latent>),
    /// An earlier block, whose keys and values are used again.
    Shared(usize),
}

impl Attention {
    /// The concatenated head outputs, `[tokens, heads × head width]`, and where they are wanted the attention weights,
    /// `[tokens, heads × keys]`.
    pub fn forward(
        &self,
        block: usize,
        x: &Input,
        pass: &mut Pass,
        wants_weights: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let heads = self.heads;
        let count = pass.tokens.len();
        let (gate, query, sides) = match (&self.source, &self.gate) {
            (KeySource::Stream { key, value }, None) => {
                let [query, key, value] = Linear::forward_all([&self.query, key, value], x)?;
                (None, query, Some([key, value]))
            }
            (KeySource::Stream { key, value }, Some(gate)) => {
                let [query, key, value, gate] = Linear::forward_all([&self.query, key, value, gate], x)?;
                (Some(gate), query, Some([key, value]))
            }
            (KeySource::Latent(latent), _) => {
                let [query, key, value] = latent.forward(&self.query, x, heads)?;
                (None, query, Some([key, value]))
            }
            (KeySource::Shared(_), _) => (None, self.query.forward_input(x)?, None),
        };
        let angles = self.rope.map(|rope| &pass.angles[rope]);
        let query = self.prepared(query, 0, angles)?;
        let sides = match sides {
            Some([key, value]) => {
                let key = self.prepared(key, 1, angles)?;
                let value = clipped(value, self.clip)?.reshape((count, heads.keys, heads.width))?;
                Some([key, normed(&self.value_norm, value)?])
            }
            None => None,
        };
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
                let [key, value] = match (sides, &self.source) {
                    (Some(sides), _) => {
                        if self.is_shared {
                            pass.kept.insert(block, sides.clone());
                        }
                        sides
                    }
                    (None, KeySource::Shared(source)) => {
                        pass.kept.get(source).cloned().ok_or_else(missing)?
                    }
                    (None, _) => return Err(missing()),
                };
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
                let segments = match (&sides, &self.source) {
                    (Some([key, value]), _) => cache.extend_tensors(block, &pass.tokens, [key, value])?,
                    (None, KeySource::Shared(source)) => cache.shared_tensors(block, *source, &pass.tokens),
                    (None, _) => return Err(missing()),
                };
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
            Some(cache) => {
                let mut mix = |query: &[f32], segments: &[KvSegment]| {
                    if wants_weights {
                        let rows: Vec<_> =
                            segments.iter().map(|one| (one.tokens.clone(), one.keys)).collect();
                        weights = Some(attention_weights(query, heads, own, &rows));
                    }
                    Tensor::new(attend(query, heads, own, segments), &Device::Cpu)
                };
                let width = heads.keys * heads.width;
                match (&sides, &self.source) {
                    (Some([key, value]), _) => {
                        tensor_slice::with([&query, key, value], |[query, keys, values]| {
                            mix(query, &cache.extend(block, &pass.tokens, keys, values, width))
                        })?
                    }
                    (None, KeySource::Shared(source)) => tensor_slice::with([&query], |[query]| {
                        mix(query, &cache.shared(block, *source, &pass.tokens))
                    })?,
                    (None, _) => return Err(missing()),
                }
            }
        };
        let mixed = match self.value_width < heads.width {
            true => mixed
                .reshape((count, heads.queries, heads.width))?
                .narrow(2, 0, self.value_width)?
                .contiguous()?,
            false => mixed,
        };
        let mixed = mixed.reshape((count, heads.queries * self.value_width))?;
        let mixed = match gate {
            Some(gate) => (mixed * sigmoid(&gate)?)?,
            None => mixed,
        };
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

/// No pass comes to a block that shares keys and values before the block that has them.
fn missing() -> Error {
    Error::Tensor(candle_core::Error::Msg("keys and values of a block that wasn't run".into()))
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
        let contexts = ((token.position as f64 + growth.first) / growth.context).floor();
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
