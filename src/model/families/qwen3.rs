//! Qwen3: Llama with a norm on each head's query and key, and heads as wide as the config says.

use super::{Config, Family, llama, qwen2};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm};

pub(super) const FAMILY: Family = Family { model_type: "qwen3", architecture };

pub(super) fn architecture(config: &Config) -> Result<Architecture> {
    let head_width = config.count_or("head_dim", 128)?;
    let context = config.count_or("max_position_embeddings", 32_768)?;
    let mut architecture = llama::architecture(config)?;
    qwen2::windows(config, &mut architecture)?;
    Ok(Architecture {
        head_width,
        context,
        head_norm: HeadNorm::Each,
        mlp_bias: false,
        attention_scale: (head_width as f64).powf(-0.5),
        ropes: vec![config.rope(head_width, 10_000.0, context)?],
        ..architecture
    })
}
