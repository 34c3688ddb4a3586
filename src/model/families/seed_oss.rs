//! Seed-OSS: Llama with biases of query, key and value, and its own head width.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `seed_oss` family.
pub(super) struct SeedOss;

impl Family for SeedOss {
    fn model_type(&self) -> &'static str {
        "seed_oss"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults = Defaults { kv_heads: Some(8), head_width: Some(128), context: 524_288, ..Defaults::LLAMA };
    let architecture = llama::with_defaults(config, defaults)?;
    let rope = config.rope(architecture.head_width, 10_000.0, architecture.context)?;
    Ok(Architecture {
        query_key_value_bias: config.flag_or("attention_bias", true)?,
        output_bias: config.flag_or("attention_out_bias", false)?,
        ropes: vec![rope],
        ..architecture
    })
}
