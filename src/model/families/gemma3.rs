//! Gemma 3 (text): Gemma 2 with norms on queries and keys in place of caps, and a rotation of their own for the blocks
//! with a sliding window.

use super::{Config, Family, gemma2};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm};

pub(super) const FAMILY: Family = Family { model_type: "gemma3_text", architecture };

/// Which rotation a block has.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = gemma2::shared(config)?;
    let window = config.optional_count("sliding_window")?;
    let pattern =
        config.count_or("sliding_window_pattern", config.count_or("_sliding_window_pattern", 6)?)?;
    let sliding = config.sliding(architecture.blocks.len(), |block| (block + 1) % pattern != 0)?;
    for (block, sliding) in architecture.blocks.iter_mut().zip(sliding) {
        block.window = window.filter(|_| sliding);
        block.rope = if sliding { LOCAL } else { GLOBAL };
    }
    let (width, context) = (architecture.head_width, architecture.context);
    Ok(Architecture {
        head_norm: HeadNorm::Each,
        attention_cap: config.number_or_null("attn_logit_softcapping", None)?,
        logit_cap: config.number_or_null("final_logit_softcapping", None)?,
        ropes: vec![
            config.rope_of("full_attention", width, 1e6, context)?,
            config.local_rope("sliding_attention", "rope_local_base_freq", width, 1e4, context)?,
        ],
        ..architecture
    })
}
