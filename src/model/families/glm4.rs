//! GLM-4 (dense): a part of each head rotated in neighbouring pairs, biases of query, key and value, gate and up in one tensor; the
//! second generation has norms after attention and MLP as well.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Fused, Mlp, Names, Norms};

/// The `glm` family.
pub(super) struct Glm;

impl Family for Glm {
    fn model_type(&self) -> &'static str {
        "glm"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

/// The `glm4` family.
pub(super) struct Glm4;

impl Family for Glm4 {
    fn model_type(&self) -> &'static str {
        "glm4"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        Ok(Architecture { names: NORMS_AFTER, ..architecture(config)? })
    }
}

const NAMES: Names = Names { gate: "mlp.gate_up_proj", up: "mlp.gate_up_proj", ..llama::NAMES };

const NORMS_AFTER: Names = Names {
    attention_norms: Norms {
        before: Some("input_layernorm"),
        output: Some("post_self_attn_layernorm"),
        after: None,
    },
    mlp_norms: Norms {
        before: Some("post_attention_layernorm"),
        output: Some("post_mlp_layernorm"),
        after: None,
    },
    ..NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults = Defaults {
        kv_heads: Some(2),
        head_width: Some(128),
        context: 131_072,
        epsilon: 0.000_000_156_25,
        tied: false,
    };
    let architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let names = ["partial_rotary_factor", "rope_theta"];
    let rope = config.partial_rope(architecture.head_width, names, 0.5, architecture.context)?;
    Ok(Architecture {
        query_key_value_bias: config.flag_or("attention_bias", true)?,
        output_bias: false,
        mlp: Mlp::Gated(Fused::Stacked),
        ropes: vec![rope],
        interleaved_pairs: true,
        names: NAMES,
        ..architecture
    })
}
