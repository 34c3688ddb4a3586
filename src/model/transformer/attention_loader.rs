//! Construction of attention: which rows of which tensors queries, keys and values are, and their norms.

use candle_core::{DType, Device, Tensor};

use super::architecture;
use super::architecture::{Architecture, Fused, HeadNorm, Names};
use super::attention::{Attention, KeySource};
use super::latent::Latent;
use super::loader::{RowRanges, TensorSource, contiguous, whole_tensor};
use crate::error::Result;
use crate::model::compute::Heads;
use crate::model::compute::backend::to_compute_device;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::weights::TensorRef;

/// ε of the norms of narrow vectors, whatever that of the other norms is.
const NARROW_EPSILON: f64 = 1e-6;

/// Norms of queries and keys, and the factors after them.
type HeadNorms = (Option<[Norm; 2]>, Option<[Tensor; 2]>);

impl TensorSource<'_> {
    /// Without the query and key norms.
    pub(super) fn attention(&mut self, number: usize, prefix: &str) -> Result<Attention> {
        let a = self.architecture;
        let kind = a.blocks[number];
        let [key_heads, width] = a.heads_of(number);
        let value_width = if a.latent.is_some() { a.value_width() } else { width };
        let (query, source) = match a.latent {
            Some(latent) => self.latent_projections(prefix, latent)?,
            None => self.projections(number, prefix)?,
        };
        let output = format!("{prefix}{}", a.names.output);
        Ok(Attention {
            heads: Heads {
                queries: a.heads,
                keys: key_heads,
                width,
                scale: a.attention_scale as f32,
                causal: a.causal,
                window: kind.window,
                chunk: kind.chunk,
                cap: a.attention_cap.map(|cap| cap as f32),
                // Near a tie of the router, a little more noise would send a token to another expert.
                round_to_bf16: query.rounds_to_bf16() && a.experts.is_none(),
            },
            rope: (!a.ropes.is_empty() && !kind.unrotated).then_some(kind.rope),
            query,
            source,
            value_width,
            value_norm: a.value_norm.then(|| self.unweighted(width)).transpose()?,
            is_shared: a.blocks.iter().any(|block| block.shares == Some(number)),
            gate: match a.gated_heads {
                true => {
                    let gate = |head: usize| (2 * head + 1) * a.head_width..(2 * head + 2) * a.head_width;
                    let rows = (0..a.heads).map(gate).collect();
                    let ranges = RowRanges { total: 2 * a.heads * a.head_width, rows };
                    Some(self.linear(
                        &format!("{prefix}{}", a.names.query),
                        a.width,
                        a.query_key_value_bias,
                        ranges,
                    )?)
                }
                false => None,
            },
            head_norms: None,
            head_factors: None,
            clip: a.query_key_value_clip,
            growth: a.query_growth.filter(|growth| kind.unrotated || !growth.unrotated),
            sinks: match a.sinks {
                true => {
                    let sinks =
                        (self.take)(&TensorRef::whole(format!("{prefix}{}", a.names.sinks), &[a.heads]))?;
                    Some(sinks.floats()?.to_vec1()?.into())
                }
                false => None,
            },
            output: self.linear(&output, a.heads * value_width, a.output_bias, whole_tensor(a.width))?,
        })
    }

    /// The query projection, and those of keys and values, from the stream.
    fn projections(&mut self, number: usize, prefix: &str) -> Result<(Linear, KeySource)> {
        let a = self.architecture;
        let kind = a.blocks[number];
        let mut projection = |which: usize, name: &str| {
            let ranges = query_key_value(a, number, which);
            self.linear(&format!("{prefix}{name}"), a.width, a.query_key_value_bias, ranges)
        };
        let Names { query, key, value, .. } = a.names;
        let query = projection(0, query)?;
        if let Some(source) = kind.shares {
            return Ok((query, KeySource::Shared(source)));
        }
        let value = if kind.keys_as_values { key } else { value };
        Ok((query, KeySource::Stream { key: projection(1, key)?, value: projection(2, value)? }))
    }

    /// The same through narrow vectors. The rotated elements of a head come first, their pairs in two halves: queries and keys in
    /// another order have the same scores.
    fn latent_projections(
        &mut self,
        prefix: &str,
        latent: architecture::Latent,
    ) -> Result<(Linear, KeySource)> {
        let a = self.architecture;
        let architecture::Latent { query_rank, rank, plain, rotated, value_width, interleaved, bias } =
            latent;
        let name = |name: &str| format!("{prefix}self_attn.{name}");
        let pairs: Vec<usize> = match interleaved {
            true => (0..rotated).step_by(2).chain((1..rotated).step_by(2)).collect(),
            false => (0..rotated).collect(),
        };
        let width = plain + rotated;
        // In the checkpoint, the rotated elements are the last of a head.
        let one = |row: usize| row..row + 1;
        let of_head = |head: usize| {
            let begin = head * width;
            let first: Vec<_> = pairs.iter().map(|pair| one(begin + plain + pair)).collect();
            first.into_iter().chain(std::iter::once(begin..begin + plain))
        };
        let queries = RowRanges { total: a.heads * width, rows: (0..a.heads).flat_map(of_head).collect() };
        let (query, query_down) = match query_rank {
            Some(narrow) => {
                let down = self.linear(&name("q_a_proj"), a.width, bias, whole_tensor(narrow))?;
                let norm = self.norm_with(&name("q_a_layernorm"), narrow, NARROW_EPSILON)?;
                (self.linear(&name("q_b_proj"), narrow, false, queries)?, Some((down, norm)))
            }
            None => (self.linear(&name("q_proj"), a.width, false, queries)?, None),
        };
        let shared = pairs.iter().map(|pair| one(rank + pair));
        let rows = std::iter::once(0..rank).chain(shared).collect();
        let down = RowRanges { total: rank + rotated, rows };
        let down = self.linear(&name("kv_a_proj_with_mqa"), a.width, bias, down)?;
        let norm = self.norm_with(&name("kv_a_layernorm"), rank, NARROW_EPSILON)?;
        let mut up = |begin: usize, count: usize| {
            let both = plain + value_width;
            let rows = (0..a.heads).map(|head| head * both + begin..head * both + begin + count).collect();
            self.linear(&name("kv_b_proj"), rank, false, RowRanges { total: a.heads * both, rows })
        };
        let (key, value) = (up(0, plain)?, up(plain, value_width)?);
        Ok((query, KeySource::Latent(Box::new(Latent { query_down, down, norm, key, value }))))
    }

    /// The norms of queries and keys, and the factors after them where each head has its own.
    pub(super) fn head_norms(&mut self, number: usize, prefix: &str) -> Result<HeadNorms> {
        let a = self.architecture;
        let names = [a.names.query_norm, a.names.key_norm].map(|name| format!("{prefix}{name}"));
        let query_name = names[0].clone();
        let widths = match a.head_norm {
            HeadNorm::None => return Ok((None, None)),
            HeadNorm::Unweighted if a.blocks[number].unrotated => return Ok((None, None)),
            HeadNorm::Unweighted => {
                // A norm without weights commutes with the rotation that comes before it there.
                return Ok((Some([self.unweighted(a.head_width)?, self.unweighted(a.head_width)?]), None));
            }
            HeadNorm::Each if a.blocks[number].shares.is_some() => {
                let width = a.heads_of(number)[1];
                // No key of its own is normed.
                let key = self.unweighted(width)?;
                return Ok((self.norm(Some(query_name), width)?.map(|query| [query, key]), None));
            }
            HeadNorm::Each => [a.heads_of(number)[1]; 2],
            HeadNorm::All => [a.heads * a.head_width, a.kv_heads * a.head_width],
            HeadNorm::Own | HeadNorm::OwnTensors => {
                let [query, key] = names;
                let factors = [self.head_factors(&query, a.heads)?, self.head_factors(&key, a.kv_heads)?];
                let plain = || -> Result<Norm> {
                    let ones = to_compute_device(&Tensor::ones(a.head_width, DType::F32, &Device::Cpu)?)?;
                    let zeros = ones.zeros_like()?;
                    Ok(Norm::new(ones, Some(zeros), a.norm_epsilon))
                };
                return Ok((Some([plain()?, plain()?]), Some(factors)));
            }
        };
        let [query, key] = names;
        let query = self.norm(Some(query), widths[0])?;
        let key = self.norm(Some(key), widths[1])?;
        Ok((query.zip(key).map(<[Norm; 2]>::from), None))
    }

    /// The weights of a norm that each head has its own of, `[heads, head width]`, with rotated pairs in halves.
    fn head_factors(&mut self, name: &str, heads: usize) -> Result<Tensor> {
        let a = self.architecture;
        let width = a.head_width;
        let factors = match a.head_norm {
            HeadNorm::OwnTensors => {
                let one =
                    |head| self.floats(&TensorRef::whole(format!("{name}.norms.{head}.weight"), &[width]));
                Tensor::stack(&(0..heads).map(one).collect::<Result<Vec<_>>>()?, 0)?
            }
            _ => self.floats(&TensorRef::whole(format!("{name}.weight"), &[heads, width]))?,
        };
        match rotated_order(a) {
            Some(order) => {
                let order =
                    Tensor::new(order.iter().map(|&at| at as u32).collect::<Vec<_>>(), factors.device())?;
                // What is only checked is one zero, broadcast.
                Ok(factors.contiguous()?.index_select(&order, 1)?)
            }
            None => Ok(factors),
        }
    }
}

/// The order of a head's elements in which the rotated pairs are the two halves of its rotated part; none if they are so in the
/// checkpoint. Queries and keys in another order have the same scores.
fn rotated_order(a: &Architecture) -> Option<Vec<usize>> {
    let rotated = a.ropes.first().filter(|_| a.interleaved_pairs)?.width;
    let pairs = (0..rotated).step_by(2).chain((1..rotated).step_by(2));
    Some(pairs.chain(rotated..a.head_width).collect())
}

/// The rows of queries (0), keys (1) or values (2) in the tensor that holds them.
fn query_key_value(a: &Architecture, block: usize, which: usize) -> RowRanges {
    let [key_heads, width] = a.heads_of(block);
    let keys = key_heads * width;
    let sizes = [a.heads * width, keys, keys];
    let total = sizes.iter().sum();
    match a.query_key_value {
        // The query of each head, then its gate.
        Fused::Separate if which == 0 && a.gated_heads => {
            let query = |head: usize| 2 * head * a.head_width..(2 * head + 1) * a.head_width;
            RowRanges { total: 2 * sizes[0], rows: (0..a.heads).map(query).collect() }
        }
        Fused::Separate => match rotated_order(a).filter(|_| which < 2) {
            Some(order) => {
                let row = |head: usize, at: usize| head * a.head_width + at..head * a.head_width + at + 1;
                let heads = 0..sizes[which] / a.head_width;
                let rows = heads.flat_map(|head| order.iter().map(move |&at| row(head, at)));
                RowRanges { total: sizes[which], rows: rows.collect() }
            }
            None => whole_tensor(sizes[which]),
        },
        Fused::Stacked => {
            let begin = sizes[..which].iter().sum();
            contiguous(total, begin..begin + sizes[which])
        }
        Fused::Interleaved => {
            let begin = |head: usize| (3 * head + which) * a.head_width;
            let rows = (0..a.heads).map(|head| begin(head)..begin(head) + a.head_width);
            RowRanges { total, rows: rows.collect() }
        }
    }
}
