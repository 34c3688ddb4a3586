//! Qwen3-Next: gated delta nets in most blocks, gated attention with a rotated part of each head in the others, and experts beside one
//! that every token uses.

use super::llama::Defaults;
use super::{Config, Family, llama, qwen3_moe};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Architecture, DeltaNet, DeltaShape, Experts, HeadNorm, Names, NormKind, SharedExpert,
};

/// The `qwen3_next` family.
pub(super) struct Qwen3Next;

impl Family for Qwen3Next {
    fn model_type(&self) -> &'static str {
        "qwen3_next"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

/// Blocks that predict further tokens are left out.
const NAMES: Names = Names { ignored: &["mtp."], ..llama::NAMES };

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = shape(config, true, 2)?;
    qwen3_moe::sparse_blocks(config, &mut architecture)?;
    let normalised = config.flag_or("norm_topk_prob", true)?;
    with_experts(config, architecture, [512, 10], normalised)
}

/// The experts beside the shared one, where the config has any. `count`, `chosen`: the defaults.
pub(super) fn with_experts(
    config: &Config,
    mut architecture: Architecture,
    [count, chosen]: [usize; 2],
    normalised: bool,
) -> Result<Architecture> {
    let count = config.count_from_0_or("num_experts", count)?;
    if count == 0 {
        architecture.blocks.iter_mut().for_each(|block| block.experts = false);
    }
    let experts = Experts::plain(
        count,
        config.count_or("num_experts_per_tok", chosen)?,
        config.count_or("moe_intermediate_size", 512)?,
        normalised,
    );
    let hidden = config.count_or("shared_expert_intermediate_size", 512)?;
    let experts = Experts { shared: Some(SharedExpert { hidden, gated: true }), ..experts };
    Ok(Architecture { experts: (count > 0).then_some(experts), ..architecture })
}

/// All but the experts. `fused`: whether two tensors hold the projections of a delta net.
pub(super) fn shape(config: &Config, fused: bool, kv_heads: usize) -> Result<Architecture> {
    let defaults =
        Defaults { kv_heads: Some(kv_heads), head_width: Some(256), context: 32_768, ..Defaults::LLAMA };
    let mut architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let gated = config.flag_or("attn_output_gate", true)?;
    config.expect(gated, "attn_output_gate", "true, which transformers computes with")?;
    let interval = config.count_or("full_attention_interval", 4)?;
    let kinds =
        config.kinds(architecture.blocks.len(), "linear_attention", |block| (block + 1) % interval != 0)?;
    for (block, delta) in architecture.blocks.iter_mut().zip(kinds) {
        block.delta = delta;
    }
    let shape = DeltaShape {
        keys: config.count_or("linear_num_key_heads", 16)?,
        values: config.count_or("linear_num_value_heads", 32)?,
        key_width: config.count_or("linear_key_head_dim", 128)?,
        value_width: config.count_or("linear_value_head_dim", 128)?,
        span: config.count_or("linear_conv_kernel_dim", 4)?,
    };
    // A GGUF file of Qwen3.5 has the value heads of one key head apart from each other.
    let tiled = config.is_of_gguf() && config.flag_or("linear_value_heads_tiled", false)?;
    let divides = shape.values.is_multiple_of(shape.keys);
    config.expect(divides, "linear_num_value_heads", "a multiple of linear_num_key_heads")?;
    let (width, context) = (architecture.head_width, architecture.context);
    let rope = config.partial_rope(width, ["partial_rotary_factor", "rope_theta"], 0.25, context)?;
    Ok(Architecture {
        norm: NormKind::RmsLessOne,
        head_norm: HeadNorm::Each,
        gated_heads: true,
        delta: Some(DeltaNet { shape, fused, tiled }),
        ropes: vec![rope],
        names: NAMES,
        ..architecture
    })
}
