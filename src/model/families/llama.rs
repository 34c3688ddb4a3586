//! Llama 2 and 3, whose tensor names most later families share.

use super::{Config, Family};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Activation, Architecture, BlockKind, Fused, Head, HeadNorm, Mlp, Names, NormKind, Norms,
};

/// The `llama` family.
pub(super) struct Llama;

impl Family for Llama {
    fn model_type(&self) -> &'static str {
        "llama"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

pub(super) const NAMES: Names = Names {
    embed: "model.embed_tokens",
    positions: "",
    segments: "",
    embed_norm: None,
    block: "model.layers.",
    attention_norms: Norms::before("input_layernorm"),
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    output: "self_attn.o_proj",
    sinks: "self_attn.sinks",
    mlp_norms: Norms::before("post_attention_layernorm"),
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    router: "mlp.gate",
    router_correction: "mlp.gate.e_score_correction_bias",
    expert: "mlp.experts.",
    expert_gate: "gate_proj",
    expert_up: "up_proj",
    expert_down: "down_proj",
    shared: "mlp.shared_expert.",
    shared_gate: "mlp.shared_expert_gate",
    norm: Some("model.norm"),
    head: "lm_head",
    ignored: &[],
};

pub(super) fn architecture(config: &Config) -> Result<Architecture> {
    let architecture = shape(config, config.activation_or("hidden_act", Activation::Silu)?)?;
    let rope = config.rope(architecture.head_width, 10_000.0, architecture.context)?;
    Ok(Architecture { ropes: vec![rope], ..architecture })
}

/// Refuses the biases of these fields, which the families that ask for this don't have: transformers ignores the fields.
pub(super) fn expect_no_bias(config: &Config, fields: &[&str]) -> Result<()> {
    fields.iter().try_for_each(|field| config.expect(!config.flag_or(field, false)?, field, "false"))
}

/// The defaults in which the families that Llama's code serves differ.
pub(super) struct Defaults {
    /// Key and value heads; none for as many as query heads.
    pub kv_heads: Option<usize>,
    /// Width of a head; none for the width over the heads.
    pub head_width: Option<usize>,
    /// Context length in tokens.
    pub context: usize,
    /// ε of the norms.
    pub epsilon: f64,
    /// Whether the vocabulary head is tied to the embedding.
    pub tied: bool,
}

impl Defaults {
    /// Those of Llama.
    pub const LLAMA: Defaults =
        Defaults { kv_heads: None, head_width: None, context: 2048, epsilon: 1e-6, tied: false };
}

/// As [`shape`], with a family's own defaults.
pub(super) fn with_defaults(config: &Config, defaults: Defaults) -> Result<Architecture> {
    let architecture = shape(config, config.activation_or("hidden_act", Activation::Silu)?)?;
    let (width, heads) = (architecture.width, architecture.heads);
    let head_width = config.count_or_null("head_dim", defaults.head_width)?.unwrap_or(width / heads);
    Ok(Architecture {
        kv_heads: config.count_or_null("num_key_value_heads", defaults.kv_heads)?.unwrap_or(heads),
        head_width,
        attention_scale: (head_width as f64).powf(-0.5),
        context: config.count_or("max_position_embeddings", defaults.context)?,
        norm_epsilon: config.number_or("rms_norm_eps", defaults.epsilon)?,
        head: if config.flag_or("tie_word_embeddings", defaults.tied)? { Head::Tied } else { Head::Own },
        ..architecture
    })
}

/// As [`architecture`] without rotary embeddings, for families with rotations or activations of their own.
pub(super) fn shape(config: &Config, activation: Activation) -> Result<Architecture> {
    let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
    let head_width = config.count_or("head_dim", width / heads)?;
    let bias = config.flag_or("attention_bias", false)?;
    let context = config.count_or("max_position_embeddings", 2048)?;
    Ok(Architecture {
        family: config.text("model_type")?.into(),
        width,
        heads,
        kv_heads: config.count_or("num_key_value_heads", heads)?,
        head_width,
        hidden: config.count("intermediate_size")?,
        vocabulary: config.count("vocab_size")?,
        context,
        causal: true,
        norm: NormKind::Rms,
        norm_epsilon: config.number_or("rms_norm_eps", 1e-6)?,
        head_norm: HeadNorm::None,
        parallel: false,
        residual_scale: None,
        query_key_value: Fused::Separate,
        query_key_value_bias: bias,
        gated_heads: false,
        streams: None,
        laurel: None,
        per_layer: None,
        value_norm: false,
        block_scale: false,
        delta: None,
        latent: None,
        query_key_value_clip: None,
        query_growth: None,
        sinks: false,
        output_bias: bias,
        mlp: Mlp::Gated(Fused::Separate),
        mlp_bias: config.flag_or("mlp_bias", false)?,
        activation,
        transposed: false,
        attention_scale: (head_width as f64).powf(-0.5),
        attention_cap: None,
        logit_cap: None,
        logit_scale: None,
        head_bias: false,
        embed_scale: None,
        ropes: Vec::new(),
        interleaved_pairs: false,
        positions: None,
        segments: None,
        blocks: vec![BlockKind::default(); config.blocks("num_hidden_layers")?],
        prediction_blocks: 0,
        wrapped: false,
        experts: None,
        head: if config.flag_or("tie_word_embeddings", false)? { Head::Tied } else { Head::Own },
        names: NAMES,
    })
}
