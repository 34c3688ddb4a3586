//! Qwen3: Llama with query and key norms on each head, and its own head width.

use super::{Config, Family, llama, qwen2};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm};

/// The `qwen3` family.
pub(super) struct Qwen3;

impl Family for Qwen3 {
    fn model_type(&self) -> &'static str {
        "qwen3"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

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
