//! OLMo 2: norms on what attention and MLP add, not on what they read, and on all queries and keys together.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm, Names, Norms};

pub(super) const FAMILY: Family = Family { model_type: "olmo2", architecture };

const NAMES: Names = Names {
    attention_norms: Norms { before: None, output: Some("post_attention_layernorm"), after: None },
    mlp_norms: Norms { before: None, output: Some("post_feedforward_layernorm"), after: None },
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    Ok(Architecture {
        norm_epsilon: config.number_or("rms_norm_eps", 1e-5)?,
        head_norm: HeadNorm::All,
        mlp_bias: false,
        names: NAMES,
        ..llama::architecture(config)?
    })
}
