//! GLM-4.5 and 4.6: experts by sigmoid routing with a correction and groups, beside one that every token uses.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Experts, HeadNorm, Names, Router, SharedExpert};

/// The `glm4_moe` family.
pub(super) struct Glm4Moe;

impl Family for Glm4Moe {
    fn model_type(&self) -> &'static str {
        "glm4_moe"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names = Names { shared: "mlp.shared_experts.", ..llama::NAMES };

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults = Defaults { kv_heads: Some(8), context: 131_072, epsilon: 1e-5, ..Defaults::LLAMA };
    let mut architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let names = ["partial_rotary_factor", "rope_theta"];
    let rope = config.partial_rope(architecture.head_width, names, 0.5, architecture.context)?;
    let first = config.count_from_0_or("first_k_dense_replace", 1)?;
    for (number, block) in architecture.blocks.iter_mut().enumerate() {
        block.experts = number >= first;
    }
    let count = config.count_or("n_routed_experts", config.count_or("num_local_experts", 128)?)?;
    let chosen = config.count_or("num_experts_per_tok", 8)?;
    let hidden = config.count_or("moe_intermediate_size", 1408)?;
    let experts = Experts::plain(count, chosen, hidden, config.flag_or("norm_topk_prob", true)?);
    let shared = config.count_or("n_shared_experts", 1)?.saturating_mul(hidden);
    let scale = match config.field("routed_scaling_factor") {
        Some(_) => config.positive("routed_scaling_factor")?,
        None => 1.0,
    };
    let normed = config.flag_or("use_qk_norm", false)?;
    let predicting = config.count_from_0_or("num_mtp_layers", 1)?;
    Ok(Architecture {
        head_norm: if normed { HeadNorm::Each } else { HeadNorm::None },
        output_bias: false,
        ropes: vec![rope],
        experts: Some(Experts {
            router: groups(config, count, chosen)?,
            scale,
            shared: Some(SharedExpert { hidden: shared, gated: false }),
            ..experts
        }),
        prediction_blocks: config.count_from_0_or("num_nextn_predict_layers", predicting)?,
        names: NAMES,
        ..architecture
    })
}

/// Sigmoid routing with the config's groups, or without any.
pub(super) fn groups(config: &Config, count: usize, chosen: usize) -> Result<Router> {
    groups_or(config, count, chosen, [1, 1])
}

/// Sigmoid routing with the config's groups, or the default number of groups and of those per token.
pub(super) fn groups_or(
    config: &Config,
    count: usize,
    chosen: usize,
    [groups, chosen_groups]: [usize; 2],
) -> Result<Router> {
    let groups = config.count_or("n_group", groups)?;
    let chosen_groups = config.count_or("topk_group", chosen_groups)?;
    config.expect(
        count.is_multiple_of(groups) && count / groups > 1,
        "n_group",
        "groups of equal size, above 1",
    )?;
    let enough = chosen_groups <= groups && chosen <= chosen_groups * (count / groups);
    config.expect(enough, "topk_group", "no more than n_group, with num_experts_per_tok experts or more")?;
    Ok(Router::Sigmoid { groups, chosen_groups })
}
