//! Mistral: Llama with a sliding window, and Ministral: the same where `layer_types` says which blocks have it.

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

/// The `ministral` family.
pub(super) struct Ministral;

impl Family for Ministral {
    fn model_type(&self) -> &'static str {
        "ministral"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = llama::architecture(config)?;
    llama::expect_no_bias(config, &["attention_bias", "mlp_bias"])?;
    // transformers takes a config with `layer_types` for a Ministral's.
    let window = config.count_or_null("sliding_window", Some(4096))?;
    let windows = config.windows(architecture.blocks.len(), window, |_| true)?;
    architecture.blocks.iter_mut().zip(windows).for_each(|(block, window)| block.window = window);
    Ok(Architecture { context: config.count_or("max_position_embeddings", 4096 * 32)?, ..architecture })
}
