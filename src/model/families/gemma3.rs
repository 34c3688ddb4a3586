//! Gemma 3 (text): Gemma 2 with query and key norms in place of the caps, and a second rotation for the sliding-window
//! blocks.

use super::{Config, Family, gemma2};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm};

/// The `gemma3_text` family.
pub(super) struct Gemma3;

impl Family for Gemma3 {
    fn model_type(&self) -> &'static str {
        "gemma3_text"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

/// Which rotation a block has.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = gemma2::shared(config, 131_072)?;
    let window = config.count_or_null("sliding_window", Some(4096))?;
    let pattern =
        config.count_or("sliding_window_pattern", config.count_or("_sliding_window_pattern", 6)?)?;
    let sliding = config.sliding(architecture.blocks.len(), |block| (block + 1) % pattern != 0)?;
    for (block, sliding) in architecture.blocks.iter_mut().zip(sliding) {
        block.window = window.filter(|_| sliding);
        block.rope = if sliding { LOCAL } else { GLOBAL };
    }
    let (width, context) = (architecture.head_width, architecture.context);
    let ropes = vec![
        config.rope_of("full_attention", width, 1e6, context)?,
        config.local_rope("sliding_attention", "rope_local_base_freq", width, 1e4, context)?,
    ];
    // transformers reads neither: https://github.com/huggingface/transformers, models/gemma3/modeling_gemma3.py.
    let cap = config.number_or_null("attn_logit_softcapping", None)?;
    config.expect(cap.is_none(), "attn_logit_softcapping", "null, which Gemma 3 computes with")?;
    let parameters = config.object("rope_parameters")?;
    let is_nested = parameters.field("full_attention").is_some() || parameters.field("rope_type").is_none();
    config.expect(is_nested, "rope_parameters", "those of full_attention and sliding_attention")?;
    let scaling = config.object("rope_scaling")?;
    let is_named = scaling.field("rope_type").is_some() || scaling.field("type").is_none();
    config.expect(is_named, "rope_scaling", "a rope_type (the older `type` is not read here)")?;
    Ok(Architecture {
        head_norm: HeadNorm::Each,
        attention_cap: None,
        logit_cap: config.number_or_null("final_logit_softcapping", None)?,
        ropes,
        ..architecture
    })
}
