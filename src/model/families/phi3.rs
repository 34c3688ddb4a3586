//! Phi-3 and Phi-4: Llama with fused query-key-value and gate-up tensors.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Fused, Mlp, Names};

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
    let architecture = llama::architecture(config)?;
    let window = config.optional_count("sliding_window")?;
    let mut blocks = architecture.blocks;
    blocks.iter_mut().for_each(|block| block.window = window);
    Ok(Architecture {
        context: config.count_or("max_position_embeddings", 4096)?,
        norm_epsilon: config.number_or("rms_norm_eps", 1e-5)?,
        query_key_value: Fused::Stacked,
        query_key_value_bias: false,
        output_bias: false,
        mlp: Mlp::Gated(Fused::Stacked),
        mlp_bias: false,
        blocks,
        names: NAMES,
        ..architecture
    })
}
