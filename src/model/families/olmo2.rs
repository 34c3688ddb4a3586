//! OLMo 2: norms on the outputs of attention and MLP, and query and key norms over all heads together.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm, Names, Norms};

/// The `olmo2` family.
pub(super) struct Olmo2;

impl Family for Olmo2 {
    fn model_type(&self) -> &'static str {
        "olmo2"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

pub(super) const NAMES: Names = Names {
    attention_norms: Norms { before: None, output: Some("post_attention_layernorm"), after: None },
    mlp_norms: Norms { before: None, output: Some("post_feedforward_layernorm"), after: None },
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    llama::expect_no_bias(config, &["mlp_bias"])?;
    Ok(Architecture {
        norm_epsilon: config.number_or("rms_norm_eps", 1e-5)?,
        head_norm: HeadNorm::All,
        names: NAMES,
        ..llama::architecture(config)?
    })
}
