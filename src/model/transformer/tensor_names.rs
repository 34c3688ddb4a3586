//! Names of tensors in checkpoints: those that a family takes, and those that text models have no use for.

/// Heads of other tasks on top of the last hidden state: classifiers, reward models, value heads, question answering.
pub(super) const OTHER_HEADS: [&str; 12] = [
    "score.",
    "classifier.",
    "classification_head.",
    "v_head.",
    "value_head.",
    "reward_head.",
    "rm_head.",
    "regression_head.",
    "qa_outputs.",
    "regression_layer.",
    "gating.",
    "linear.weight",
];

/// Towers for images and sound, and their projections, beside a text model.
pub(super) const TOWERS: [&str; 9] = [
    "vision_tower.",
    "vision_model.",
    "visual.",
    "multi_modal_projector.",
    "mm_projector.",
    "audio_tower.",
    "embed_vision.",
    "embed_audio.",
    "image_newline",
];

/// Tensor names in a checkpoint, without `.weight` and `.bias`. Names of a block follow `block` and its number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Names {
    /// Token embedding.
    pub embed: &'static str,
    /// Learned position embedding.
    pub positions: &'static str,
    /// Segment embedding.
    pub segments: &'static str,
    /// Norm of the embedding.
    pub embed_norm: Option<&'static str>,
    /// Prefix of a block, before its number.
    pub block: &'static str,
    /// Norms around attention.
    pub attention_norms: Norms,
    /// Query projection.
    pub query: &'static str,
    /// Key projection.
    pub key: &'static str,
    /// Value projection.
    pub value: &'static str,
    /// Norm of queries.
    pub query_norm: &'static str,
    /// Norm of keys.
    pub key_norm: &'static str,
    /// Output projection of attention.
    pub output: &'static str,
    /// Scores of the attention sinks: the tensor's whole name.
    pub sinks: &'static str,
    /// Norms around the MLP.
    pub mlp_norms: Norms,
    /// Gate projection.
    pub gate: &'static str,
    /// Up projection.
    pub up: &'static str,
    /// Down projection.
    pub down: &'static str,
    /// Router of the experts.
    pub router: &'static str,
    /// Correction of the router's choice: the tensor's whole name.
    pub router_correction: &'static str,
    /// Names of an expert follow this and its number; or, where one tensor holds all, this alone.
    pub expert: &'static str,
    /// Gate projection of an expert.
    pub expert_gate: &'static str,
    /// Up projection of an expert.
    pub expert_up: &'static str,
    /// Down projection of an expert.
    pub expert_down: &'static str,
    /// Prefix of the shared expert, whose projections are named as those of a block's MLP.
    pub shared: &'static str,
    /// Projection that scales the shared expert's output.
    pub shared_gate: &'static str,
    /// Final norm.
    pub norm: Option<&'static str>,
    /// Vocabulary head.
    pub head: &'static str,
    /// Prefixes of tensors for other tasks, which are ignored.
    pub ignored: &'static [&'static str],
}

/// The norms around attention or MLP, each optional.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// On the input.
    pub before: Option<&'static str>,
    /// On the output, before it is added to the residual stream.
    pub output: Option<&'static str>,
    /// On the residual stream, after the addition (BERT).
    pub after: Option<&'static str>,
}

impl Norms {
    /// A norm on the input alone.
    pub const fn before(name: &'static str) -> Norms {
        Norms { before: Some(name), output: None, after: None }
    }
}
