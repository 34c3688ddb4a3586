//! Qwen3: Llama with query and key norms on each head, and its own head width.

use super::{Config, Family, llama, qwen2};
use crate::error::Result;
use crate::model::transformer::architecture::{Activation, Architecture, HeadNorm};

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

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = shape(config, config.count_or("head_dim", 128)?)?;
    qwen2::windows(config, &mut architecture, 28)?;
    Ok(architecture)
}

/// What Qwen3 shares with its mixture of experts: all but the windows.
pub(super) fn shape(config: &Config, head_width: usize) -> Result<Architecture> {
    let context = config.count_or("max_position_embeddings", 32_768)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let architecture = llama::shape(config, config.activation_or("hidden_act", Activation::Silu)?)?;
    Ok(Architecture {
        head_width,
        context,
        head_norm: HeadNorm::Each,
        attention_scale: (head_width as f64).powf(-0.5),
        ropes: vec![config.rope(head_width, 10_000.0, context)?],
        ..architecture
    })
}
