//! Cohere (Command R and R+): parallel attention and MLP behind one layer norm without a bias, rotation in neighbouring pairs, a factor of
//! the logits; and Cohere 2, whose blocks with a sliding window alone rotate.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm, Names, NormKind, Norms};

/// The `cohere` family.
pub(super) struct Cohere;

impl Family for Cohere {
    fn model_type(&self) -> &'static str {
        "cohere"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let normed = config.flag_or("use_qk_norm", false)?;
        let head_norm = if normed { HeadNorm::Own } else { HeadNorm::None };
        Ok(Architecture { head_norm, ..shared(config, 500_000.0)? })
    }
}

/// The `cohere2` family.
pub(super) struct Cohere2;

impl Family for Cohere2 {
    fn model_type(&self) -> &'static str {
        "cohere2"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let mut architecture = shared(config, 10_000.0)?;
        let window = config.count_or_null("sliding_window", Some(4096))?;
        let pattern = config.count_or("sliding_window_pattern", 4)?;
        let windows =
            config.windows(architecture.blocks.len(), window, |block| (block + 1) % pattern != 0)?;
        for (block, window) in architecture.blocks.iter_mut().zip(windows) {
            (block.window, block.unrotated) = (window, window.is_none());
        }
        Ok(architecture)
    }
}

/// One norm serves attention and MLP.
const NAMES: Names = Names { mlp_norms: Norms::before("input_layernorm"), ..llama::NAMES };

fn shared(config: &Config, base: f64) -> Result<Architecture> {
    let defaults = Defaults { context: 8192, tied: true, ..Defaults::LLAMA };
    let architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let rope = config.rope(architecture.head_width, base, architecture.context)?;
    let logit_scale = match config.field("logit_scale") {
        Some(_) => config.positive("logit_scale")?,
        None => 0.0625,
    };
    Ok(Architecture {
        norm: NormKind::LayerUnbiased,
        norm_epsilon: config.number_or("layer_norm_eps", 1e-5)?,
        parallel: true,
        logit_scale: (logit_scale != 1.0).then_some(logit_scale),
        ropes: vec![rope],
        interleaved_pairs: true,
        names: NAMES,
        ..architecture
    })
}
