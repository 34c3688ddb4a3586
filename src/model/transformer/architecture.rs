//! The architecture of a transformer as data: everything in which the families differ. The forward pass and the loader read
//! nothing else.

pub use super::expert_shape::{Clamp, ExpertLayout, Experts, Router, SharedExpert};
use super::rope::Rope;
pub use super::tensor_names::{Names, Norms};
use super::tensor_names::{OTHER_HEADS, TOWERS};
use crate::error::{Error, Result};
pub use crate::model::compute::Activation;
pub use crate::model::compute::delta_rule::DeltaShape;
use crate::model::site::{Point, Site};
use crate::model::weights::text_name;

/// Names of the vocabulary head's matrix in checkpoints. A tied model may hold a second copy of the embedding there.
const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

/// The architecture of one transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// `model_type` of the config.
    pub family: String,
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of one head; not always `width / heads`.
    pub head_width: usize,
    /// Width of the MLP's hidden layer.
    pub hidden: usize,
    /// Number of token embeddings.
    pub vocabulary: usize,
    /// Context length in tokens.
    pub context: usize,
    /// Causal attention; encoders (`false`) attend to the whole row.
    pub causal: bool,
    /// The norm of every layer.
    pub norm: NormKind,
    /// ε, added to the mean square or the variance in every norm.
    pub norm_epsilon: f64,
    /// The norm of queries and keys.
    pub head_norm: HeadNorm,
    /// Parallel residual: attention and MLP read the same residual stream (GPT-NeoX).
    pub parallel: bool,
    /// Factor of the outputs of attention and MLP where they are added to the residual stream (Granite).
    pub residual_scale: Option<f64>,
    /// Layout of the query, key and value projections.
    pub query_key_value: Fused,
    /// Whether the query, key and value projections have biases.
    pub query_key_value_bias: bool,
    /// Whether the sigmoid of a projection of the stream scales the head outputs; the query projection's tensor holds it, head by head
    /// (Qwen3-Next).
    pub gated_heads: bool,
    /// The gated delta net of the blocks that have one in place of attention (Qwen3-Next).
    pub delta: Option<DeltaNet>,
    /// Latent attention, in place of separate projections of keys and values (DeepSeek).
    pub latent: Option<Latent>,
    /// Largest absolute value of queries, keys and values, which are clipped to it (OLMoE).
    pub query_key_value_clip: Option<f64>,
    /// Growth of the queries with their position (Ministral 3).
    pub query_growth: Option<QueryGrowth>,
    /// Whether each query head has a learned score that takes a share of the attention weights and has no value (gpt-oss).
    pub sinks: bool,
    /// Whether the attention's output projection has a bias.
    pub output_bias: bool,
    /// The form of the MLP.
    pub mlp: Mlp,
    /// Whether the MLP's projections have biases.
    pub mlp_bias: bool,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether matrices are stored `[in, out]` (GPT-2's `Conv1D`).
    pub transposed: bool,
    /// Factor of the attention scores `q · k`.
    pub attention_scale: f64,
    /// Soft cap of the attention scores (Gemma 2).
    pub attention_cap: Option<f64>,
    /// Soft cap of the logits (Gemma 2).
    pub logit_cap: Option<f64>,
    /// Factor of the logits (Granite, Cohere).
    pub logit_scale: Option<f64>,
    /// Whether the vocabulary head has a bias (Phi-3.5-MoE).
    pub head_bias: bool,
    /// Factor of the embedding (Gemma).
    pub embed_scale: Option<f64>,
    /// Residual streams that predict and correct each other around every block (Gemma 3n); one stream otherwise. Sites are those of the
    /// first.
    pub streams: Option<Streams>,
    /// Rank of a linear path beside attention (LAuReL, Menghani et al., arXiv 2411.07501; Gemma 3n).
    pub laurel: Option<usize>,
    /// What each block reads of the token itself (Gemma 3n and 4).
    pub per_layer: Option<PerLayer>,
    /// Whether values have a norm without weights on each head (Gemma 4).
    pub value_norm: bool,
    /// Whether a learned number scales the stream where it leaves a block (Gemma 4).
    pub block_scale: bool,
    /// Rotary embeddings that blocks choose from; empty with learned positions.
    pub ropes: Vec<Rope>,
    /// Whether neighbouring elements of a head form the rotated pairs (GLM, Cohere), rather than the two halves of its rotated
    /// part. The loader then reorders the rows of the query and key projections.
    pub interleaved_pairs: bool,
    /// Number of learned positions, if any (GPT-2, BERT).
    pub positions: Option<usize>,
    /// Number of segment embeddings, if any (BERT); every token is in the first segment.
    pub segments: Option<usize>,
    /// One entry per block.
    pub blocks: Vec<BlockKind>,
    /// Blocks after the last that predict further tokens, whose tensors are ignored (GLM-4.5).
    pub prediction_blocks: usize,
    /// Whether the checkpoint has towers for images or sound beside the text model, whose tensors are ignored.
    pub wrapped: bool,
    /// The mixture of experts, if some block has one.
    pub experts: Option<Experts>,
    /// The vocabulary head.
    pub head: Head,
    /// Tensor names in the checkpoint.
    pub names: Names,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// A kind of norm.
pub enum NormKind {
    /// RMS norm (Zhang & Sennrich, arXiv 1910.07467).
    Rms,
    /// RMS norm whose stored weight is the factor minus 1 (Gemma).
    RmsLessOne,
    /// Layer norm with a bias (Ba et al., arXiv 1607.06450).
    Layer,
    /// Layer norm without a bias (Cohere).
    LayerUnbiased,
}

/// The norm of queries and keys, before the rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// No norm.
    None,
    /// On each head (Qwen3, Gemma 3).
    Each,
    /// On each head, without weights, in blocks that rotate (Llama 4).
    Unweighted,
    /// On all heads together (OLMo 2).
    All,
    /// Layer norm without a bias on each head, with a weight of its own in one tensor `[heads, head width]` (Cohere).
    Own,
    /// The same, with one tensor a head (StableLM).
    OwnTensors,
}

/// Latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are projections of one narrow vector, beside a rotated part of the
/// keys that all heads share. A head is `rotated + plain` wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Width of the vector that queries are projected from; none for the residual stream itself.
    pub query_rank: Option<usize>,
    /// Width of the vector that keys and values are projected from.
    pub rank: usize,
    /// Elements of a head that are not rotated.
    pub plain: usize,
    /// Elements of a head that are rotated.
    pub rotated: usize,
    /// Width of a head's values, at most that of its keys.
    pub value_width: usize,
    /// Whether neighbouring elements form the rotated pairs.
    pub interleaved: bool,
    /// Whether the projections to the narrow vectors have biases.
    pub bias: bool,
}

/// Growth of the queries with their position p: `1 + beta · ln(1 + ⌊(p + first) / context⌋)` (Llama 4, Ministral 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryGrowth {
    /// Factor of the logarithm.
    pub beta: f64,
    /// Context length of pre-training, in tokens.
    pub context: f64,
    /// Position of the first token.
    pub first: f64,
    /// Whether it is that of blocks without a rotation alone.
    pub unrotated: bool,
}

/// How several matrices share one tensor of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    /// One tensor per matrix.
    Separate,
    /// Concatenated (Phi-3, GPT-2).
    Stacked,
    /// Query, key and value of each head in turn (GPT-NeoX).
    Interleaved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// A form of MLP.
pub enum Mlp {
    /// `down(act(up(x)))`
    Plain,
    /// `down(act(gate(x)) · up(x))` (Shazeer, arXiv 2002.05202).
    Gated(Fused),
}

/// The properties in which the blocks of one model differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BlockKind {
    /// Sliding window of attention, in tokens.
    pub window: Option<usize>,
    /// Chunks of so many tokens, in each of which attention stays.
    pub chunk: Option<usize>,
    /// Index into [`Architecture::ropes`].
    pub rope: usize,
    /// Whether queries and keys are not rotated (SmolLM3, Cohere 2).
    pub unrotated: bool,
    /// Whether it has a mixture of experts in place of the MLP.
    pub experts: bool,
    /// Whether it has a gated delta net in place of attention.
    pub delta: bool,
    /// Key heads and the width of a head, where they aren't the model's.
    pub heads: Option<[usize; 2]>,
    /// Whether keys before norm and rotation are the values as well.
    pub keys_as_values: bool,
    /// An earlier block whose keys and values it uses in place of its own.
    pub shares: Option<usize>,
    /// Width of the MLP's hidden layer, where it isn't the model's.
    pub hidden: Option<usize>,
    /// Standard deviations above a token's mean below which its gates are 0 (Gemma 3n).
    pub sparsity: Option<f64>,
}

/// Residual streams of alternating updates (AltUp, Baykal et al., arXiv 2301.13310).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Number of streams.
    pub count: usize,
    /// Whether a learned factor scales the corrected stream that gates what a block reads of the token.
    pub scaled: bool,
}

/// Embeddings of tokens that each block reads for itself (Gemma 3n and 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerLayer {
    /// Width of what one block reads.
    pub width: usize,
    /// Number of embeddings.
    pub vocabulary: usize,
    /// Whether tokens beyond these have the first one's (Gemma 3n).
    pub first_beyond: bool,
}

/// A gated delta net (Yang et al., arXiv 2412.06464).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaNet {
    /// Heads and their widths.
    pub shape: DeltaShape,
    /// Whether two tensors hold all projections, key head by key head (Qwen3-Next); otherwise there are four (Qwen3.5).
    pub fused: bool,
    /// Whether the output projection's columns are in the order of [`DeltaShape::tiled`] (GGUF).
    pub tiled: bool,
}

/// The vocabulary head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It shares the embedding's matrix.
    Tied,
    /// It has its own matrix.
    Own,
    /// None: an encoder, for reading only.
    None,
}

impl Architecture {
    /// Every site of the model, in the order of the forward pass.
    pub fn sites(&self) -> Vec<Site> {
        let mut sites = Site::all(self.blocks.len());
        sites.retain(|&site| self.has(site));
        sites
    }

    /// Whether the model has a site.
    pub fn has(&self, site: Site) -> bool {
        let experts = |block: usize| self.blocks.get(block).is_some_and(|block| block.experts);
        match site {
            Site::Block(block, _) if block >= self.blocks.len() => false,
            // With a parallel residual, there is no stream between attention and MLP.
            Site::Block(_, Point::ResidMid) => !self.parallel,
            Site::Block(block, Point::Router) => experts(block),
            Site::Block(block, Point::AttnWeights) => !self.blocks[block].delta,
            // Each token has its own experts: their hidden layers have no common width.
            Site::Block(block, Point::MlpHidden) => {
                !experts(block) || self.experts.is_some_and(|experts| experts.beside)
            }
            Site::Block(..) | Site::Embed => true,
            Site::FinalNorm => self.names.norm.is_some(),
            Site::Logits => self.head != Head::None,
        }
    }

    /// Parses a list of sites and sets of sites, as [`Site::parse_set`] does, restricted to the sites of the model.
    ///
    /// # Errors
    /// A site that the model lacks, or a set that is empty in this model.
    pub fn parse_sites(&self, text: &str) -> Result<Vec<Site>> {
        let sites = Site::parse_set(text, self.blocks.len())?;
        if let Some(site) = sites.iter().find(|site| matches!(site, Site::Block(_, Point::AttnWeights))) {
            let found = "as many columns as a dialogue has tokens, for reading only";
            return Err(Error::input(
                format!("site {site}"),
                found,
                "a site of one width; `pearl attention` reads this one a dialogue at a time",
            ));
        }
        let (had, lacked): (Vec<Site>, Vec<Site>) = sites.into_iter().partition(|&site| self.has(site));
        // A set with a star means the sites that exist; a single site must exist.
        let spelled = !text.contains('*') && !text.split([',', ' ']).any(|part| part == "all");
        match lacked.first() {
            Some(site) if spelled || had.is_empty() => {
                let found = format!("a model of family {} has no such site", self.family);
                Err(Error::input(format!("site {site}"), found, "one that `pearl inspect` lists"))
            }
            _ => Ok(had),
        }
    }

    /// Whether the model has no use for a tensor of a checkpoint: it belongs to another task (as a pooler does), or it is a
    /// second copy of the embedding for a tied vocabulary head.
    pub fn ignores(&self, tensor: &str) -> bool {
        let inner = tensor.split_once('.').map(|(_, rest)| rest);
        let other_task =
            |part: &&str| tensor.starts_with(*part) || inner.is_some_and(|rest| rest.starts_with(*part));
        let copied_head = self.head == Head::Tied && HEADS.contains(&text_name(tensor).as_ref());
        let tower = self.wrapped && TOWERS.iter().any(other_task);
        copied_head
            || tower
            || self.predicts(&text_name(tensor))
            || self.is_shared(&text_name(tensor))
            || self.names.ignored.iter().chain(&OTHER_HEADS).any(other_task)
    }

    /// Whether a tensor belongs to a block that predicts further tokens.
    fn predicts(&self, tensor: &str) -> bool {
        let number = tensor.strip_prefix(self.names.block).and_then(|rest| rest.split('.').next());
        let number = number.and_then(|number| number.parse::<usize>().ok());
        let blocks = self.blocks.len();
        number.is_some_and(|number| (blocks..blocks + self.prediction_blocks).contains(&number))
    }

    /// The points at which the residual stream is read after a write to it, each once: the embedding, and the stream after
    /// attention and after the MLP of every block.
    pub fn stream_sites(&self) -> Vec<Site> {
        let blocks = 0..self.blocks.len();
        let points = blocks
            .flat_map(|block| [Point::ResidMid, Point::ResidPost].map(|point| Site::Block(block, point)));
        std::iter::once(Site::Embed).chain(points).filter(|&site| self.has(site)).collect()
    }

    /// Width of a head's values.
    pub fn value_width(&self) -> usize {
        self.latent.map_or(self.head_width, |latent| latent.value_width)
    }

    /// Width of the concatenated head outputs of a block.
    fn heads_width(&self, block: usize) -> usize {
        let is_delta = self.blocks.get(block).is_some_and(|block| block.delta);
        match self.delta.filter(|_| is_delta) {
            Some(delta) => delta.shape.values_width(),
            None if self.latent.is_some() => self.heads * self.value_width(),
            None => self.heads * self.heads_of(block)[1],
        }
    }

    /// Key heads of a block, and the width of a head.
    pub fn heads_of(&self, block: usize) -> [usize; 2] {
        let own = self.blocks.get(block).and_then(|block| block.heads);
        own.unwrap_or([self.kv_heads, self.head_width])
    }

    /// Width of the hidden layer of a block's MLP.
    pub fn hidden_of(&self, block: usize) -> usize {
        self.blocks.get(block).and_then(|block| block.hidden).unwrap_or(self.hidden)
    }

    /// Whether a tensor is of keys and values that a block shares, of which checkpoints may have copies.
    fn is_shared(&self, tensor: &str) -> bool {
        let Some((number, rest)) =
            tensor.strip_prefix(self.names.block).and_then(|rest| rest.split_once('.'))
        else {
            return false;
        };
        let shares = number.parse().ok().and_then(|number: usize| self.blocks.get(number)?.shares);
        let parts = ["self_attn.k_proj.", "self_attn.v_proj.", "self_attn.k_norm."];
        shares.is_some() && parts.iter().any(|part| rest.starts_with(part))
    }

    /// Whether some block keeps a recurrent state, which can't be cut back to fewer tokens.
    pub fn is_recurrent(&self) -> bool {
        self.blocks.iter().any(|block| block.delta)
    }

    /// Width of the activations at a site; 0 at `attn_weights`, whose width is that of the batch.
    pub fn site_width(&self, site: Site) -> usize {
        match site {
            Site::Block(_, Point::AttnWeights) => 0,
            Site::Block(block, Point::AttnHeads) => self.heads_width(block),
            Site::Block(block, Point::MlpHidden) => self.hidden_of(block),
            Site::Block(_, Point::Router) => self.experts.map_or(0, |experts| experts.count),
            Site::Logits => self.vocabulary,
            _ => self.width,
        }
    }
}
