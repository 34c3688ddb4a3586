//! Qwen 2 and 2.5 (and DeepSeek-R1-Distill-Qwen): Llama with query, key and value biases.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `qwen2` family.
pub(super) struct Qwen2;

impl Family for Qwen2 {
    fn model_type(&self) -> &'static str {
        "qwen2"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = llama::architecture(config)?;
    windows(config, &mut architecture)?;
    Ok(Architecture {
        context: config.count_or("max_position_embeddings", 32_768)?,
        query_key_value_bias: true,
        output_bias: false,
        mlp_bias: false,
        ..architecture
    })
}

/// The blocks with a sliding window: those that `layer_types` names, or all from `max_window_layers` on.
pub(super) fn windows(config: &Config, architecture: &mut Architecture) -> Result<()> {
    if !config.flag_or("use_sliding_window", false)? {
        return Ok(());
    }
    let Some(window) = config.optional_count("sliding_window")? else { return Ok(()) };
    let first = config.count_or("max_window_layers", 28)?;
    let sliding = config.sliding(architecture.blocks.len(), |block| block >= first)?;
    for (block, sliding) in architecture.blocks.iter_mut().zip(sliding) {
        block.window = sliding.then_some(window);
    }
    Ok(())
}
