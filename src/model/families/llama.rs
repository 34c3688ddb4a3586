//! Llama 2 and 3, and the tensor names that most later families share.

use super::{Config, Family};
use crate::error::Result;
use crate::model::architecture::{Architecture, Names};

pub(super) const FAMILY: Family = Family {
    model_type: "llama",
    architecture,
};

pub(super) const NAMES: Names = Names {
    embed: "model.embed_tokens.weight",
    block: "model.layers.",
    attention_norm: "input_layernorm.weight",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    query_norm: "self_attn.q_norm.weight",
    key_norm: "self_attn.k_norm.weight",
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm.weight",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    norm: "model.norm.weight",
    head: "lm_head.weight",
};

pub(super) fn architecture(config: &Config) -> Result<Architecture> {
    config.expect_silu()?;
    let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
    let bias = config.flag_or("attention_bias", false)?;
    Ok(Architecture {
        family: FAMILY.model_type.into(),
        width,
        blocks: config.count("num_hidden_layers")?,
        heads,
        kv_heads: config.count_or("num_key_value_heads", heads)?,
        head_width: config.count_or("head_dim", width / heads)?,
        hidden: config.count("intermediate_size")?,
        vocabulary: config.count("vocab_size")?,
        context: config.count_or("max_position_embeddings", 2048)?,
        norm_epsilon: config.number_or("rms_norm_eps", 1e-6)?,
        query_key_norm: false,
        query_key_value_bias: bias,
        output_bias: bias,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        rope: config.rope(10_000.0)?,
        tied: config.flag_or("tie_word_embeddings", false)?,
        names: NAMES,
    })
}
