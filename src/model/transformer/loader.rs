//! Construction of the layers of a transformer from its architecture: which tensors they take from a checkpoint, of which shapes.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::architecture;
use super::architecture::{Architecture, Fused, Head, HeadNorm, Names, NormKind};
use super::attention::{Attention, KeySource};
use super::block::{Block, FeedForward, Mixer, Norms, PerLayer};
use super::latent::Latent;
use super::mlp::Mlp;
use super::per_layer::PerLayerEmbed;
use super::streams::Streams;
use crate::error::Result;
use crate::model::compute::Heads;
use crate::model::compute::backend::to_compute_device;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::weights::{TensorRef, Weight};

/// ε of the norms of narrow vectors, whatever that of the other norms is.
const NARROW_EPSILON: f64 = 1e-6;

/// Norms of queries and keys, and the factors after them.
type HeadNorms = (Option<[Norm; 2]>, Option<[Tensor; 2]>);

/// All layers of a transformer.
pub(crate) struct Layers {
    pub embed: Embed,
    pub blocks: Vec<Block>,
    /// Residual streams beside the first.
    pub streams: Option<Streams>,
    pub norm: Option<Norm>,
    /// The vocabulary head, unless it is tied to the embedding.
    pub head: Option<Linear>,
    /// `[vocabulary]`: the vocabulary head's bias.
    pub head_bias: Option<Tensor>,
}

/// The embedding layers.
pub(crate) struct Embed {
    /// `[vocabulary, width]`.
    pub words: Linear,
    /// `[positions, width]`, if positions are learned.
    pub positions: Option<Linear>,
    /// `[1, width]`: the embedding of the first segment.
    pub segment: Option<Tensor>,
    pub norm: Option<Norm>,
    /// What each block reads of the token itself.
    pub per_layer: Option<PerLayerEmbed>,
}

/// Takes tensors of a checkpoint.
pub(super) struct TensorSource<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) take: &'a mut dyn FnMut(&TensorRef) -> Result<Weight>,
}

/// Rows of a tensor that may hold several matrices.
pub(super) struct RowRanges {
    /// Rows of the whole tensor.
    pub(super) total: usize,
    pub(super) rows: Vec<Range<usize>>,
}

pub(crate) fn build(
    architecture: &Architecture,
    take: &mut dyn FnMut(&TensorRef) -> Result<Weight>,
) -> Result<Layers> {
    let a = architecture;
    let names = &a.names;
    let mut source = TensorSource { architecture, take };
    let words = Linear::table(source.table(names.embed, a.vocabulary)?)?;
    let embed = Embed {
        positions: a
            .positions
            .map(|count| -> Result<Linear> { Ok(Linear::table(source.table(names.positions, count)?)?) })
            .transpose()?,
        segment: a.segments.map(|count| source.segment(count)).transpose()?,
        norm: source.norm(names.embed_norm.map(String::from), a.width)?,
        per_layer: a.per_layer.map(|shape| source.per_layer_embed(shape)).transpose()?,
        words,
    };
    let blocks = (0..a.blocks.len()).map(|number| source.block(number)).collect::<Result<_>>()?;
    let streams = a.streams.map(|shape| source.streams(shape)).transpose()?;
    let norm = source.norm(names.norm.map(String::from), a.width)?;
    let head = match a.head {
        Head::Own => Some(Linear::table(source.table(names.head, a.vocabulary)?)?),
        Head::Tied | Head::None => None,
    };
    let head_bias = match (a.head, a.head_bias) {
        (Head::None, _) | (_, false) => None,
        (_, true) => Some(source.floats(&TensorRef::whole(format!("{}.bias", names.head), &[a.vocabulary]))?),
    };
    Ok(Layers { embed, blocks, streams, norm, head, head_bias })
}

impl Architecture {
    /// Every tensor that the model takes from a checkpoint, in the order in which it loads them.
    ///
    /// # Errors
    /// A shape that no tensor can have.
    pub fn tensors(&self) -> Result<Vec<TensorRef>> {
        let mut tensors = Vec::new();
        self.for_each_tensor(&mut |tensor| {
            // A norm may serve twice: before attention and before a parallel MLP.
            if !tensors.contains(tensor) {
                tensors.push(tensor.clone());
            }
            Ok(())
        })?;
        Ok(tensors)
    }

    /// Calls `check` with every tensor that the model takes from a checkpoint. A tensor is checked before anything of its size
    /// is made.
    ///
    /// # Errors
    /// The first error of `check`.
    pub(crate) fn for_each_tensor(&self, check: &mut dyn FnMut(&TensorRef) -> Result<()>) -> Result<()> {
        build(self, &mut |tensor| {
            check(tensor)?;
            // One zero, broadcast to the shape: nothing is computed with it.
            let shape = tensor.part_shape();
            Ok(Weight::Tensor(Tensor::zeros(1, DType::F32, &Device::Cpu)?.broadcast_as(shape)?))
        })
        .map(drop)
    }

    /// Number of parameters; a tied embedding counts once.
    ///
    /// # Errors
    /// A shape that no tensor can have.
    pub fn parameters(&self) -> Result<usize> {
        Ok(self.tensors()?.iter().map(|tensor| tensor.part_shape().iter().product::<usize>()).sum())
    }
}

impl TensorSource<'_> {
    /// `[count, width]`, which every family stores in this layout.
    fn table(&mut self, name: &str, count: usize) -> Result<Weight> {
        (self.take)(&TensorRef::whole(format!("{name}.weight"), &[count, self.architecture.width]))
    }

    /// A norm's weight or a bias: f32, on the device of the forward pass.
    pub(super) fn floats(&mut self, place: &TensorRef) -> Result<Tensor> {
        Ok(to_compute_device(&(self.take)(place)?.floats()?)?)
    }

    /// A norm without weights.
    fn unweighted(&self, width: usize) -> Result<Norm> {
        let ones = to_compute_device(&Tensor::ones(width, DType::F32, &Device::Cpu)?)?;
        Ok(Norm::new(ones, None, self.architecture.norm_epsilon))
    }

    fn per_layer_embed(&mut self, shape: architecture::PerLayer) -> Result<PerLayerEmbed> {
        let a = self.architecture;
        let all = a.blocks.len() * shape.width;
        let words =
            (self.take)(&TensorRef::whole("model.embed_tokens_per_layer.weight", &[shape.vocabulary, all]))?;
        Ok(PerLayerEmbed {
            vocabulary: shape.vocabulary,
            words: Linear::table(words)?,
            projection: self.linear("model.per_layer_model_projection", a.width, false, whole_tensor(all))?,
            norm: self.norm_with("model.per_layer_projection_norm", shape.width, a.norm_epsilon)?,
        })
    }

    fn per_layer(&mut self, prefix: &str, shape: architecture::PerLayer) -> Result<PerLayer> {
        let a = self.architecture;
        let name = |name: &str| format!("{prefix}{name}");
        Ok(PerLayer {
            gate: self.linear(&name("per_layer_input_gate"), a.width, false, whole_tensor(shape.width))?,
            projection: self.linear(
                &name("per_layer_projection"),
                shape.width,
                false,
                whole_tensor(a.width),
            )?,
            norm: self.norm_with(&name("post_per_layer_input_norm"), a.width, a.norm_epsilon)?,
            activation: a.activation,
        })
    }

    fn segment(&mut self, count: usize) -> Result<Tensor> {
        let name = format!("{}.weight", self.architecture.names.segments);
        let first = std::iter::once(0..1);
        self.floats(&TensorRef::rows(name, &[count, self.architecture.width], first))
    }

    pub(super) fn norm(&mut self, name: Option<String>, width: usize) -> Result<Option<Norm>> {
        let epsilon = self.architecture.norm_epsilon;
        name.map(|name| self.norm_with(&name, width, epsilon)).transpose()
    }

    pub(super) fn norm_with(&mut self, name: &str, width: usize, epsilon: f64) -> Result<Norm> {
        let a = self.architecture;
        let mut vector = |what: &str| -> Result<Tensor> {
            self.floats(&TensorRef::whole(format!("{name}.{what}"), &[width]))
        };
        let weight = vector("weight")?;
        let (weight, bias) = match a.norm {
            NormKind::Rms => (weight, None),
            NormKind::RmsLessOne => (weight.affine(1.0, 1.0)?, None),
            NormKind::Layer => (weight, Some(vector("bias")?)),
            NormKind::LayerUnbiased => {
                let bias = weight.zeros_like()?;
                (weight, Some(bias))
            }
        };
        Ok(Norm::new(weight, bias, epsilon))
    }

    fn norms(&mut self, block: &str, names: &architecture::Norms) -> Result<Norms> {
        let width = self.architecture.width;
        let mut norm = |name: Option<&str>| self.norm(name.map(|name| format!("{block}{name}")), width);
        Ok(Norms { before: norm(names.before)?, output: norm(names.output)?, after: norm(names.after)? })
    }

    pub(super) fn linear(
        &mut self,
        name: &str,
        inputs: usize,
        bias: bool,
        ranges: RowRanges,
    ) -> Result<Linear> {
        let RowRanges { total, rows } = ranges;
        let whole = rows.first() == Some(&(0..total));
        let weight = format!("{name}.weight");
        let weight = match (self.architecture.transposed, rows.as_slice()) {
            (true, [rows]) => TensorRef::columns(weight, [inputs, total], rows.clone()),
            (_, _) if whole => TensorRef::whole(weight, &[total, inputs]),
            (_, rows) => TensorRef::rows(weight, &[total, inputs], rows.iter().cloned()),
        };
        let weight = (self.take)(&weight)?;
        let bias = match bias {
            true if whole => Some(TensorRef::whole(format!("{name}.bias"), &[total])),
            true => Some(TensorRef::rows(format!("{name}.bias"), &[total], rows)),
            false => None,
        };
        let bias = bias.map(|place| self.floats(&place)).transpose()?;
        Ok(Linear::new(weight, bias)?)
    }

    fn block(&mut self, number: usize) -> Result<Block> {
        let a = self.architecture;
        let prefix = format!("{}{number}.", a.names.block);
        let delta = a.delta.filter(|_| a.blocks[number].delta);
        let mixer = match delta {
            Some(delta) => Mixer::DeltaNet(Box::new(self.delta_net(&prefix, delta)?)),
            None => Mixer::Attention(Box::new(self.attention(number, &prefix)?)),
        };
        // Matrices before norms: the order in which training draws its random numbers.
        let feed = match a.experts.filter(|_| a.blocks[number].experts) {
            Some(shape) => FeedForward::Experts(Box::new(self.experts(shape, &prefix)?)),
            None => FeedForward::Mlp(self.mlp(number, &prefix)?),
        };
        let mixer = match mixer {
            Mixer::Attention(attention) => {
                let (head_norms, head_factors) = self.head_norms(number, &prefix)?;
                Mixer::Attention(Box::new(Attention { head_norms, head_factors, ..*attention }))
            }
            Mixer::DeltaNet(delta) => Mixer::DeltaNet(delta),
        };
        Ok(Block {
            number,
            mixer,
            attention_norms: self.norms(&prefix, &a.names.attention_norms)?,
            feed,
            mlp_norms: self.norms(&prefix, &a.names.mlp_norms)?,
            per_layer: a.per_layer.map(|shape| self.per_layer(&prefix, shape)).transpose()?,
            streams: a.streams.map(|shape| self.alternating(&prefix, shape)).transpose()?.map(Box::new),
            laurel: a.laurel.map(|rank| self.laurel(&prefix, rank)).transpose()?,
            scale: match a.block_scale {
                true => {
                    let scale = (self.take)(&TensorRef::whole(format!("{prefix}layer_scalar"), &[1]))?;
                    Some(f64::from(scale.floats()?.to_vec1::<f32>()?.first().copied().unwrap_or(1.0)))
                }
                false => None,
            },
            parallel: a.parallel,
            residual_scale: a.residual_scale,
        })
    }

    /// Without the query and key norms.
    fn attention(&mut self, number: usize, prefix: &str) -> Result<Attention> {
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
    fn head_norms(&mut self, number: usize, prefix: &str) -> Result<HeadNorms> {
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
                Ok(factors.index_select(&order, 1)?)
            }
            None => Ok(factors),
        }
    }

    fn mlp(&mut self, number: usize, prefix: &str) -> Result<Mlp> {
        let a = self.architecture;
        let (Names { gate, up, down, .. }, hidden) = (a.names, a.hidden_of(number));
        let (for_gate, for_up) = match a.mlp {
            architecture::Mlp::Plain => (None, whole_tensor(hidden)),
            architecture::Mlp::Gated(Fused::Separate) => (Some(whole_tensor(hidden)), whole_tensor(hidden)),
            architecture::Mlp::Gated(_) => {
                let half = |begin: usize| contiguous(2 * hidden, begin..begin + hidden);
                (Some(half(0)), half(hidden))
            }
        };
        let mut linear = |name: &str, inputs: usize, ranges: RowRanges| {
            self.linear(&format!("{prefix}{name}"), inputs, a.mlp_bias, ranges)
        };
        Ok(Mlp {
            gate: for_gate.map(|ranges| linear(gate, a.width, ranges)).transpose()?,
            up: linear(up, a.width, for_up)?,
            down: linear(down, hidden, whole_tensor(a.width))?,
            activation: a.activation,
            sparsity: a.blocks[number].sparsity,
            clamp: None,
        })
    }
}

/// The order of a head's elements in which the rotated pairs are the two halves of its rotated part; none if they are so in the
/// checkpoint. Queries and keys in another order have the same scores.
fn rotated_order(a: &Architecture) -> Option<Vec<usize>> {
    let rotated = a.ropes.first().filter(|_| a.interleaved_pairs)?.width;
    let pairs = (0..rotated).step_by(2).chain((1..rotated).step_by(2));
    Some(pairs.chain(rotated..a.head_width).collect())
}

/// All rows of a tensor.
pub(super) fn whole_tensor(rows: usize) -> RowRanges {
    contiguous(rows, 0..rows)
}

/// One range of rows.
fn contiguous(total: usize, rows: Range<usize>) -> RowRanges {
    RowRanges { total, rows: std::iter::once(rows).collect() }
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
