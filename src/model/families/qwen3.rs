//! Qwen3: Llama with a norm on each head's query and key, and heads as wide as the config says.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::architecture::Architecture;

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3",
    architecture,
};

fn architecture(config: &Config) -> Result<Architecture> {
    Ok(Architecture {
        family: FAMILY.model_type.into(),
        head_width: config.count_or("head_dim", 128)?,
        context: config.count_or("max_position_embeddings", 32_768)?,
        query_key_norm: true,
        mlp_bias: false,
        ..llama::architecture(config)?
    })
}
