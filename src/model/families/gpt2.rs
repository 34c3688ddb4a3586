//! GPT-2: learned positions, layer norms, matrices stored `[in, out]`.

use super::{Config, Family};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Activation, Architecture, BlockKind, Fused, Head, HeadNorm, Mlp, Names, NormKind, Norms,
};

/// The `gpt2` family.
pub(super) struct Gpt2;

impl Family for Gpt2 {
    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

pub(super) const NAMES: Names = Names {
    embed: "transformer.wte",
    positions: "transformer.wpe",
    segments: "",
    embed_norm: None,
    block: "transformer.h.",
    attention_norms: Norms::before("ln_1"),
    query: "attn.c_attn",
    key: "attn.c_attn",
    value: "attn.c_attn",
    query_norm: "",
    key_norm: "",
    output: "attn.c_proj",
    sinks: "",
    mlp_norms: Norms::before("ln_2"),
    gate: "",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    router: "",
    router_correction: "",
    expert: "",
    expert_gate: "",
    expert_up: "",
    expert_down: "",
    shared: "",
    shared_gate: "",
    norm: Some("transformer.ln_f"),
    head: "lm_head",
    ignored: &[],
};

fn architecture(config: &Config) -> Result<Architecture> {
    for (field, only) in [("scale_attn_by_inverse_layer_idx", false), ("scale_attn_weights", true)] {
        config.expect(config.flag_or(field, only)? == only, field, &only.to_string())?;
    }
    let (width, heads) = (config.count("n_embd")?, config.count("n_head")?);
    let context = config.count_or("n_positions", 1024)?;
    Ok(Architecture {
        hidden: config.count_or("n_inner", 4 * width)?,
        norm_epsilon: config.number_or("layer_norm_epsilon", 1e-5)?,
        blocks: vec![BlockKind::default(); config.blocks("n_layer")?],
        head: if config.flag_or("tie_word_embeddings", true)? { Head::Tied } else { Head::Own },
        ..shape(
            config,
            [width, heads, context],
            config.activation_or("activation_function", Activation::GeluTanh)?,
        )?
    })
}

/// What GPT-2 shares with other families of its time; the config's names for the rest differ between them.
pub(super) fn shape(
    config: &Config,
    [width, heads, context]: [usize; 3],
    activation: Activation,
) -> Result<Architecture> {
    let head_width = width / heads;
    Ok(Architecture {
        family: config.text("model_type")?.into(),
        width,
        heads,
        kv_heads: heads,
        head_width,
        hidden: 4 * width,
        vocabulary: config.count("vocab_size")?,
        context,
        causal: true,
        norm: NormKind::Layer,
        norm_epsilon: 1e-5,
        head_norm: HeadNorm::None,
        parallel: false,
        residual_scale: None,
        query_key_value: Fused::Stacked,
        query_key_value_bias: true,
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
        output_bias: true,
        mlp: Mlp::Plain,
        mlp_bias: true,
        activation,
        transposed: true,
        attention_scale: (head_width as f64).powf(-0.5),
        attention_cap: None,
        logit_cap: None,
        logit_scale: None,
        head_bias: false,
        embed_scale: None,
        ropes: Vec::new(),
        interleaved_pairs: false,
        positions: Some(context),
        segments: None,
        blocks: Vec::new(),
        prediction_blocks: 0,
        wrapped: false,
        experts: None,
        head: Head::Tied,
        names: NAMES,
    })
}
