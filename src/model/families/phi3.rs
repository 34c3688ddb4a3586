//! Phi-3 and Phi-4: Llama with fused query-key-value and gate-up tensors.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Activation, Architecture, Fused, Mlp, Names};
use crate::model::transformer::rope::Scaling;

/// The `phi3` family.
pub(super) struct Phi3;

impl Family for Phi3 {
    fn model_type(&self) -> &'static str {
        "phi3"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names = Names {
    query: "self_attn.qkv_proj",
    key: "self_attn.qkv_proj",
    value: "self_attn.qkv_proj",
    gate: "mlp.gate_up_proj",
    up: "mlp.gate_up_proj",
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let architecture = llama::shape(config, config.activation_or("hidden_act", Activation::Silu)?)?;
    llama::expect_no_bias(config, &["attention_bias", "mlp_bias", "lm_head_bias"])?;
    for field in ["full_attn_mod", "interpolate_factor"] {
        config.expect(config.count_or(field, 1)? == 1, field, "1")?;
    }
    let context = config.count_or("max_position_embeddings", 4096)?;
    let names = ["partial_rotary_factor", "rope_theta"];
    let rope = config.partial_rope(architecture.head_width, names, 1.0, context)?;
    // transformers takes it from here alone, whatever the parameters of the rotation say.
    let original = "original_max_position_embeddings";
    let known = config.is_of_gguf() || config.is_present(original);
    config.expect(known || !matches!(rope.scaling, Scaling::Long { .. }), original, "a whole number")?;
    let window = config.optional_count("sliding_window")?;
    let mut blocks = architecture.blocks;
    blocks.iter_mut().for_each(|block| block.window = window);
    Ok(Architecture {
        context,
        norm_epsilon: config.number_or("rms_norm_eps", 1e-5)?,
        query_key_value: Fused::Stacked,
        mlp: Mlp::Gated(Fused::Stacked),
        ropes: vec![rope],
        blocks,
        names: NAMES,
        ..architecture
    })
}
