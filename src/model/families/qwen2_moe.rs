//! Qwen2-MoE (and Qwen 1.5): Qwen2 with experts, and one that every token uses, scaled by a gate.

use super::llama::Defaults;
use super::{Config, Family, llama, qwen2, qwen3_moe};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Experts, SharedExpert};

/// The `qwen2_moe` family.
pub(super) struct Qwen2Moe;

impl Family for Qwen2Moe {
    fn model_type(&self) -> &'static str {
        "qwen2_moe"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults = Defaults { kv_heads: Some(16), context: 32_768, ..Defaults::LLAMA };
    let mut architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["attention_bias", "mlp_bias"])?;
    let rope = config.rope(architecture.head_width, 10_000.0, architecture.context)?;
    let window = qwen2::window(config)?;
    let last = config.count_from_0_or("max_window_layers", 28)?;
    let windows =
        config.windows(architecture.blocks.len(), window, |block| block % 2 == 0 && block < last)?;
    architecture.blocks.iter_mut().zip(windows).for_each(|(block, window)| block.window = window);
    let experts = Experts::plain(
        config.count_or("num_experts", 60)?,
        config.count_or("num_experts_per_tok", 4)?,
        config.count_or("moe_intermediate_size", 1408)?,
        config.flag_or("norm_topk_prob", false)?,
    );
    let hidden = config.count_or("shared_expert_intermediate_size", 5632)?;
    qwen3_moe::sparse_blocks(config, &mut architecture)?;
    Ok(Architecture {
        query_key_value_bias: config.flag_or("qkv_bias", true)?,
        output_bias: false,
        ropes: vec![rope],
        experts: Some(Experts { shared: Some(SharedExpert { hidden, gated: true }), ..experts }),
        ..architecture
    })
}
