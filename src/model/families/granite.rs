//! Granite 3: Llama with factors of the embedding, the attention scores, the residual stream and the logits.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `granite` family.
pub(super) struct Granite;

impl Family for Granite {
    fn model_type(&self) -> &'static str {
        "granite"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let architecture = llama::with_defaults(config, Defaults::LLAMA)?;
    let rope = config.rope(architecture.head_width, 10_000.0, architecture.context)?;
    multiplied(config, Architecture { ropes: vec![rope], ..architecture })
}

/// The factors that Granite's models have in common.
pub(super) fn multiplied(config: &Config, architecture: Architecture) -> Result<Architecture> {
    let factor = |name: &str| match config.field(name) {
        Some(_) => config.positive(name),
        None => Ok(1.0),
    };
    let other_than_1 = |factor: f64| (factor != 1.0).then_some(factor);
    Ok(Architecture {
        embed_scale: other_than_1(factor("embedding_multiplier")?),
        attention_scale: factor("attention_multiplier")?,
        residual_scale: other_than_1(factor("residual_multiplier")?),
        logit_scale: other_than_1(1.0 / factor("logits_scaling")?),
        ..architecture
    })
}
