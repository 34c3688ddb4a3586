//! GPT-NeoX (Pythia): parallel attention and MLP, partial rotation, one interleaved query-key-value tensor.

use super::{Config, Family, gpt2};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Activation, Architecture, BlockKind, Fused, Head, Names, Norms,
};

/// The `gpt_neox` family.
pub(super) struct GptNeox;

impl Family for GptNeox {
    fn model_type(&self) -> &'static str {
        "gpt_neox"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names = Names {
    embed: "gpt_neox.embed_in",
    positions: "",
    block: "gpt_neox.layers.",
    attention_norms: Norms::before("input_layernorm"),
    query: "attention.query_key_value",
    key: "attention.query_key_value",
    value: "attention.query_key_value",
    output: "attention.dense",
    mlp_norms: Norms::before("post_attention_layernorm"),
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    norm: Some("gpt_neox.final_layer_norm"),
    head: "embed_out",
    ..gpt2::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
    let context = config.count_or("max_position_embeddings", 2048)?;
    let bias = config.flag_or("attention_bias", true)?;
    let rope = config.partial_rope(width / heads, ["rotary_pct", "rotary_emb_base"], 0.25, context)?;
    Ok(Architecture {
        hidden: config.count("intermediate_size")?,
        norm_epsilon: config.number_or("layer_norm_eps", 1e-5)?,
        parallel: config.flag_or("use_parallel_residual", true)?,
        query_key_value: Fused::Interleaved,
        query_key_value_bias: bias,
        output_bias: bias,
        transposed: false,
        ropes: vec![rope],
        positions: None,
        blocks: vec![BlockKind::default(); config.blocks("num_hidden_layers")?],
        head: if config.flag_or("tie_word_embeddings", false)? { Head::Tied } else { Head::Own },
        names: NAMES,
        ..gpt2::shape(config, [width, heads, context], config.activation_or("hidden_act", Activation::Gelu)?)?
    })
}
