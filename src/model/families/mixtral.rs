//! Mixtral: Mistral with experts in the place of the MLP.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Experts, Names};

/// The `mixtral` family.
pub(super) struct Mixtral;

impl Family for Mixtral {
    fn model_type(&self) -> &'static str {
        "mixtral"
    }

    /// Noise of training.
    fn ignored(&self) -> &'static [&'static str] {
        &["router_jitter_noise"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

pub(super) const NAMES: Names = Names {
    router: "block_sparse_moe.gate",
    expert: "block_sparse_moe.experts.",
    expert_gate: "w1",
    expert_up: "w3",
    expert_down: "w2",
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let architecture = shape(config)?;
    llama::expect_no_bias(config, &["attention_bias", "mlp_bias"])?;
    let experts = Experts::plain(
        config.count_or("num_local_experts", 8)?,
        config.count_or("num_experts_per_tok", 2)?,
        architecture.hidden,
        true,
    );
    Ok(Architecture { experts: Some(experts), ..architecture })
}

/// What Mixtral shares with Phi-3.5-MoE: all but the experts.
pub(super) fn shape(config: &Config) -> Result<Architecture> {
    let defaults = Defaults { kv_heads: Some(8), context: 4096 * 32, epsilon: 1e-5, ..Defaults::LLAMA };
    let mut architecture = llama::with_defaults(config, defaults)?;
    let rope = config.rope(architecture.head_width, 1e6, architecture.context)?;
    let window = config.optional_count("sliding_window")?;
    for block in &mut architecture.blocks {
        (block.window, block.experts) = (window, true);
    }
    Ok(Architecture { ropes: vec![rope], names: NAMES, ..architecture })
}
