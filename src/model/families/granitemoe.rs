//! Granite MoE: Granite with experts in the place of the MLP, all of a block in one tensor.

use super::llama::Defaults;
use super::{Config, Family, granite, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, ExpertLayout, Experts, Names};

/// The `granitemoe` family.
pub(super) struct GraniteMoe;

impl Family for GraniteMoe {
    fn model_type(&self) -> &'static str {
        "granitemoe"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

pub(super) const NAMES: Names = Names {
    router: "block_sparse_moe.router.layer",
    expert: "block_sparse_moe.",
    expert_gate: "input_linear",
    expert_up: "input_linear",
    expert_down: "output_linear",
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = llama::with_defaults(config, Defaults::LLAMA)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let rope = config.rope(architecture.head_width, 10_000.0, architecture.context)?;
    architecture.blocks.iter_mut().for_each(|block| block.experts = true);
    // The softmax over the chosen scores is the softmax over all, scaled to sum to 1.
    let experts = Experts::plain(
        config.count_or("num_local_experts", 8)?,
        config.count_or("num_experts_per_tok", 2)?,
        architecture.hidden,
        true,
    );
    let experts = Some(Experts { layout: ExpertLayout::Stacked, ..experts });
    granite::multiplied(config, Architecture { experts, ropes: vec![rope], names: NAMES, ..architecture })
}
