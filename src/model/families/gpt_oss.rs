//! gpt-oss: experts with clamped gated units, attention sinks, and a sliding window in every other block.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Activation, Architecture, Clamp, ExpertLayout, Experts, Names,
};
use crate::model::transformer::rope::{Rope, Scaling};

/// The `gpt_oss` family.
pub(super) struct GptOss;

impl Family for GptOss {
    fn model_type(&self) -> &'static str {
        "gpt_oss"
    }

    /// transformers reads no activation here: the clamped unit is fixed.
    fn ignored(&self) -> &'static [&'static str] {
        &["experts_per_token"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names = Names {
    router: "mlp.router",
    expert: "mlp.experts.",
    expert_gate: "gate_up_proj",
    expert_up: "gate_up_proj",
    expert_down: "down_proj",
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults =
        Defaults { kv_heads: Some(8), head_width: Some(64), context: 131_072, epsilon: 1e-5, tied: false };
    let mut architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    config.expect(architecture.activation == Activation::Silu, "hidden_act", "silu")?;
    let window = config.count_or_null("sliding_window", Some(128))?;
    let windows = config.windows(architecture.blocks.len(), window, |block| block % 2 == 0)?;
    for (block, window) in architecture.blocks.iter_mut().zip(windows) {
        (block.window, block.experts) = (window, true);
    }
    let bias = config.flag_or("attention_bias", true)?;
    let experts = Experts::plain(
        config.count_or("num_local_experts", config.count_or("num_experts", 128)?)?,
        config.count_or("num_experts_per_tok", 4)?,
        architecture.hidden,
        true,
    );
    let number = |name: &str, default: f64| match config.field(name) {
        Some(_) => config.positive(name),
        None => Ok(default),
    };
    let clamp = Clamp { alpha: number("swiglu_alpha", 1.702)?, limit: number("swiglu_limit", 7.0)? };
    Ok(Architecture {
        query_key_value_bias: bias,
        output_bias: bias,
        sinks: true,
        ropes: vec![rope(config, architecture.head_width, architecture.context)?],
        experts: Some(Experts {
            layout: ExpertLayout::Transposed,
            clamp: Some(clamp),
            bias: true,
            ..experts
        }),
        names: NAMES,
        ..architecture
    })
}

/// The rotation; without any parameters, YaRN as the first checkpoints have it.
fn rope(config: &Config, width: usize, context: usize) -> Result<Rope> {
    let rope = config.rope(width, 150_000.0, context)?;
    let said = ["rope_scaling", "rope_parameters"].iter().any(|name| config.value(name).is_some());
    if said {
        return Ok(rope);
    }
    let factor: f64 = 32.0;
    let scaling = Scaling::Yarn {
        factor,
        fast: 32.0,
        slow: 1.0,
        original_context: 4096.0,
        truncate: false,
        attention: 0.1 * factor.ln() + 1.0,
    };
    Ok(Rope { scaling, ..rope })
}
