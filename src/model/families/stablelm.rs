//! StableLM: layer norms, a part of each head rotated, and, as an option, attention and MLP in parallel behind one norm.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm, Names, NormKind, Norms};

/// The `stablelm` family.
pub(super) struct StableLm;

impl Family for StableLm {
    fn model_type(&self) -> &'static str {
        "stablelm"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names =
    Names { query_norm: "self_attn.q_layernorm", key_norm: "self_attn.k_layernorm", ..llama::NAMES };

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults = Defaults { kv_heads: Some(32), context: 4096, ..Defaults::LLAMA };
    let architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias", "attention_bias"])?;
    let holds = architecture.head_width * architecture.heads == architecture.width;
    config.expect(holds, "head_dim", "hidden_size over num_attention_heads")?;
    let names = ["partial_rotary_factor", "rope_theta"];
    let rope = config.partial_rope(architecture.head_width, names, 0.25, architecture.context)?;
    let parallel = config.flag_or("use_parallel_residual", false)?;
    let normed = config.flag_or("qk_layernorm", false)?;
    let mlp_norms = match parallel {
        true => Norms::before("input_layernorm"),
        false => NAMES.mlp_norms,
    };
    Ok(Architecture {
        norm: NormKind::Layer,
        norm_epsilon: config.number_or("layer_norm_eps", 1e-5)?,
        head_norm: if normed { HeadNorm::OwnTensors } else { HeadNorm::None },
        parallel,
        query_key_value_bias: config.flag_or("use_qkv_bias", false)?,
        ropes: vec![rope],
        names: Names { mlp_norms, ..NAMES },
        ..architecture
    })
}
