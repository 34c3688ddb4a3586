//! Mistral: Llama with a sliding window.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `mistral` family.
pub(super) struct Mistral;

impl Family for Mistral {
    fn model_type(&self) -> &'static str {
        "mistral"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = llama::architecture(config)?;
    let window = config.optional_count("sliding_window")?;
    architecture.blocks.iter_mut().for_each(|block| block.window = window);
    Ok(Architecture {
        context: config.count_or("max_position_embeddings", 4096 * 32)?,
        query_key_value_bias: false,
        output_bias: false,
        mlp_bias: false,
        ..architecture
    })
}
