//! Mistral: Llama whose tokens see a sliding window.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

pub(super) const FAMILY: Family = Family { model_type: "mistral", architecture };

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
