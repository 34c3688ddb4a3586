//! OLMoE: experts in every block, query and key norms over all heads together, and, as an option, clipped queries, keys and values.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Experts, HeadNorm};

/// The `olmoe` family.
pub(super) struct Olmoe;

impl Family for Olmoe {
    fn model_type(&self) -> &'static str {
        "olmoe"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults = Defaults { context: 4096, epsilon: 1e-5, ..Defaults::LLAMA };
    let mut architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let rope = config.rope(architecture.head_width, 10_000.0, architecture.context)?;
    architecture.blocks.iter_mut().for_each(|block| block.experts = true);
    let experts = Experts::plain(
        config.count_or("num_experts", config.count_or("num_local_experts", 64)?)?,
        config.count_or("num_experts_per_tok", 8)?,
        architecture.hidden,
        config.flag_or("norm_topk_prob", false)?,
    );
    let clip = config.field("clip_qkv").map(|_| config.positive("clip_qkv")).transpose()?;
    Ok(Architecture {
        head_norm: HeadNorm::All,
        query_key_value_clip: clip,
        ropes: vec![rope],
        experts: Some(experts),
        ..architecture
    })
}
