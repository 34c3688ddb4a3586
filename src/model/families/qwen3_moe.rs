//! Qwen3 with a mixture of experts: in most blocks a router sends each token to a few of many small MLPs.

use super::{Config, Family, qwen2, qwen3};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Experts};

/// The `qwen3_moe` family.
pub(super) struct Qwen3Moe;

impl Family for Qwen3Moe {
    fn model_type(&self) -> &'static str {
        "qwen3_moe"
    }

    fn ignored(&self) -> &'static [&'static str] {
        &["max_window_layers"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let width = config.count("hidden_size")?;
    let heads = config.count("num_attention_heads")?;
    let mut architecture = qwen3::shape(config, config.count_or("head_dim", width / heads)?)?;
    // Here a window is that of every block, whatever the other fields say.
    let window = qwen2::window(config)?;
    config.expect(
        config.value("layer_types").is_none(),
        "layer_types",
        "none: transformers ignores it here",
    )?;
    architecture.blocks.iter_mut().for_each(|block| block.window = window);
    let experts = Experts::plain(
        config.count_or("num_experts", config.count_or("num_local_experts", 128)?)?,
        config.count_or("num_experts_per_tok", 8)?,
        config.count_or("moe_intermediate_size", 768)?,
        config.flag_or("norm_topk_prob", false)?,
    );
    sparse_blocks(config, &mut architecture)?;
    Ok(Architecture { experts: Some(experts), ..architecture })
}

/// Marks the blocks that have experts.
pub(super) fn sparse_blocks(config: &Config, architecture: &mut Architecture) -> Result<()> {
    let step = config.count_or("decoder_sparse_step", 1)?;
    let plain = config.counts_or_empty("mlp_only_layers")?;
    for (number, block) in architecture.blocks.iter_mut().enumerate() {
        block.experts = (number + 1) % step == 0 && !plain.contains(&number);
    }
    Ok(())
}
