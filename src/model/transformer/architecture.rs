//! What differs between model families, as data: the forward pass reads it and nothing else.
//! It knows nothing of files or tensors.

use crate::error::{Error, Result};
pub use crate::model::compute::Activation;
use crate::model::site::{Point, Site};
use crate::model::transformer::rope::Rope;

/// Names of the vocabulary head's matrix in checkpoints. A tied model may hold a second copy of the embedding there.
const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

/// The shape and the choices of one transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// `model_type` of the config.
    pub family: String,
    /// Width of the residual stream.
    pub width: usize,
    pub heads: usize,
    /// Heads that keys and values have; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of one head; not always `width / heads`.
    pub head_width: usize,
    /// Width inside the MLP.
    pub hidden: usize,
    pub vocabulary: usize,
    /// Longest sequence that the model was made for, in tokens.
    pub context: usize,
    /// A token sees what came before it; without this, its whole row (encoders).
    pub causal: bool,
    pub norm: NormKind,
    /// Added to the mean square (or the variance) in every norm.
    pub norm_epsilon: f64,
    pub head_norm: HeadNorm,
    /// Attention and MLP read the same residual stream, and both are added to it at once (GPT-NeoX).
    pub parallel: bool,
    pub query_key_value: Fused,
    /// The query, key and value projections have a bias.
    pub query_key_value_bias: bool,
    /// The attention's output projection has a bias.
    pub output_bias: bool,
    pub mlp: Mlp,
    /// The MLP's projections have a bias.
    pub mlp_bias: bool,
    pub activation: Activation,
    /// Matrices are stored `[in, out]` (GPT-2's `Conv1D`).
    pub transposed: bool,
    /// Multiplies a query's product with a key.
    pub attention_scale: f64,
    /// Attention's scores are held inside ±cap (Gemma 2).
    pub attention_cap: Option<f64>,
    /// The vocabulary's scores are held inside ±cap (Gemma 2).
    pub logit_cap: Option<f64>,
    /// Multiplies the embedding (Gemma).
    pub embed_scale: Option<f64>,
    /// The rotations that blocks choose from; none where positions are learnt.
    pub ropes: Vec<Rope>,
    /// Tokens that a sequence can have where positions are learnt (GPT-2, BERT).
    pub positions: Option<usize>,
    /// Kinds of segments that the embedding tells apart (BERT); every token is of the first.
    pub segments: Option<usize>,
    pub blocks: Vec<BlockKind>,
    pub experts: Option<Experts>,
    pub head: Head,
    pub names: Names,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Zhang & Sennrich, arXiv 1910.07467.
    Rms,
    /// RMS norm whose weight is stored less 1 (Gemma).
    RmsLessOne,
    /// Ba et al., arXiv 1607.06450, with a bias.
    Layer,
}

/// A norm on queries and keys, before the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    None,
    /// Each head by itself (Qwen3, Gemma 3).
    Each,
    /// All heads together (OLMo 2).
    All,
}

/// How several matrices share one tensor of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    Separate,
    /// One after the other (Phi-3, GPT-2).
    Stacked,
    /// Head by head: its query, its key, its value (GPT-NeoX).
    Interleaved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(act(up(x)))`
    Plain,
    /// `down(act(gate(x)) · up(x))` (Shazeer, arXiv 2002.05202).
    Gated(Fused),
}

/// What differs between the blocks of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BlockKind {
    /// Attention sees so many tokens only.
    pub window: Option<usize>,
    /// Which of the model's rotations.
    pub rope: usize,
    /// Experts in place of one MLP.
    pub experts: bool,
}

/// Several MLPs, of which each token goes through few (Shazeer et al., arXiv 1701.06538).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    pub count: usize,
    /// How many a token goes through.
    pub chosen: usize,
    /// Width inside one.
    pub hidden: usize,
    /// The chosen ones' weights are scaled to add up to 1.
    pub normalised: bool,
}

/// The vocabulary product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// By the embedding's matrix.
    Tied,
    Own,
    /// None: the model reads only (encoders).
    None,
}

/// Where each tensor is found in a checkpoint, without `.weight` and `.bias`. Names inside a block come after `block`
/// and its number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Names {
    pub embed: &'static str,
    pub positions: &'static str,
    pub segments: &'static str,
    pub embed_norm: Option<&'static str>,
    pub block: &'static str,
    pub attention_norms: Norms,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub query_norm: &'static str,
    pub key_norm: &'static str,
    pub output: &'static str,
    pub mlp_norms: Norms,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub router: &'static str,
    /// An expert's own names come after this and its number.
    pub expert: &'static str,
    pub expert_gate: &'static str,
    pub expert_up: &'static str,
    pub expert_down: &'static str,
    pub norm: Option<&'static str>,
    pub head: &'static str,
    /// Tensors that belong to a task this program has no use for.
    pub ignored: &'static [&'static str],
}

/// The norms around attention or MLP: each family has some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// On what the part reads.
    pub before: Option<&'static str>,
    /// On what it adds to the residual stream.
    pub output: Option<&'static str>,
    /// On the residual stream, after the addition (BERT).
    pub after: Option<&'static str>,
}

impl Norms {
    pub const fn before(name: &'static str) -> Norms {
        Norms { before: Some(name), output: None, after: None }
    }
}

impl Architecture {
    /// Every site of the model, in the order of the forward pass.
    pub fn sites(&self) -> Vec<Site> {
        let mut sites = Site::all(self.blocks.len());
        sites.retain(|&site| self.has(site));
        sites
    }

    pub fn has(&self, site: Site) -> bool {
        let experts = |block: usize| self.blocks.get(block).is_some_and(|block| block.experts);
        match site {
            Site::Block(block, _) if block >= self.blocks.len() => false,
            // Nothing stands between attention and MLP where both read the same stream.
            Site::Block(_, Point::ResidMid) => !self.parallel,
            Site::Block(block, Point::Router) => experts(block),
            // Each token's experts are its own: their insides have no common width.
            Site::Block(block, Point::MlpHidden) => !experts(block),
            Site::Block(..) | Site::Embed => true,
            Site::FinalNorm => self.names.norm.is_some(),
            Site::Logits => self.head != Head::None,
        }
    }

    /// Reads a list of sites and sets of sites, as [`Site::parse_set`] does, of the sites that the model has.
    ///
    /// # Errors
    /// A site that the model lacks, or a set of which it has none.
    pub fn parse_sites(&self, text: &str) -> Result<Vec<Site>> {
        let sites = Site::parse_set(text, self.blocks.len())?;
        let (had, lacked): (Vec<Site>, Vec<Site>) = sites.into_iter().partition(|&site| self.has(site));
        // A set with a star means what there is; a site that was spelled out must be there.
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
        let copied_head = self.head == Head::Tied && HEADS.contains(&tensor);
        copied_head || self.names.ignored.iter().any(other_task)
    }

    /// Width of the activations at a site.
    pub fn site_width(&self, site: Site) -> usize {
        match site {
            Site::Block(_, Point::AttnHeads) => self.heads * self.head_width,
            Site::Block(_, Point::MlpHidden) => self.hidden,
            Site::Block(_, Point::Router) => self.experts.map_or(0, |experts| experts.count),
            Site::Logits => self.vocabulary,
            _ => self.width,
        }
    }
}
