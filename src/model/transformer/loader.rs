//! Construction of the layers of a transformer from its architecture: which tensors they take from a checkpoint, of which shapes.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::architecture;
use super::architecture::{Architecture, Fused, Head, Names, NormKind};
use super::attention::Attention;
use super::block::{Block, Both, FeedForward, Mixer, Norms, PerLayer};
use super::mlp::Mlp;
use super::per_layer::PerLayerEmbed;
use super::streams::Streams;
use crate::error::Result;
use crate::model::compute::backend::to_compute_device;
use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::weights::{TensorRef, Weight};

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
    pub(super) fn unweighted(&self, width: usize) -> Result<Norm> {
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
            Some(shape) if shape.beside => {
                let mut norm = |name: &str| self.norm(Some(format!("{prefix}{name}")), a.width);
                let (mlp_output, experts_input, experts_output) = (
                    norm("post_feedforward_layernorm_1")?,
                    norm("pre_feedforward_layernorm_2")?,
                    norm("post_feedforward_layernorm_2")?,
                );
                let (mlp, experts) = (self.mlp(number, &prefix)?, self.experts(shape, &prefix)?);
                FeedForward::Both(Box::new(Both { mlp, mlp_output, experts, experts_input, experts_output }))
            }
            Some(shape) => FeedForward::Experts(Box::new(self.experts(shape, &prefix)?)),
            None => FeedForward::Mlp(Box::new(self.mlp(number, &prefix)?)),
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

/// All rows of a tensor.
pub(super) fn whole_tensor(rows: usize) -> RowRanges {
    contiguous(rows, 0..rows)
}

/// One range of rows.
pub(super) fn contiguous(total: usize, rows: Range<usize>) -> RowRanges {
    RowRanges { total, rows: std::iter::once(rows).collect() }
}
