//! Llama 4 (text): chunks of attention in blocks that rotate, queries that grow in those that don't, and experts that read what their
//! router has scaled, beside one that every token uses.

use serde_json::Value;

use super::llama::Defaults;
use super::{Config, Family, llama, smollm3};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Architecture, ExpertLayout, Experts, HeadNorm, Names, QueryGrowth, Router, SharedExpert,
};
use crate::model::transformer::rope::Scaling;

/// The `llama4_text` family.
pub(super) struct Llama4Text;

impl Family for Llama4Text {
    fn model_type(&self) -> &'static str {
        "llama4_text"
    }

    /// Noise of training.
    fn ignored(&self) -> &'static [&'static str] {
        &["router_jitter_noise"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names = Names {
    gate: "feed_forward.gate_proj",
    up: "feed_forward.up_proj",
    down: "feed_forward.down_proj",
    router: "feed_forward.router",
    expert: "feed_forward.experts.",
    expert_gate: "gate_up_proj",
    expert_up: "gate_up_proj",
    expert_down: "down_proj",
    shared: "feed_forward.shared_expert.",
    ..llama::NAMES
};

/// Those of one expert, in a GGUF file.
const NAMES_APART: Names = Names { expert_gate: "gate_proj", expert_up: "up_proj", ..NAMES };

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults =
        Defaults { kv_heads: Some(8), head_width: Some(128), context: 131_072, epsilon: 1e-5, tied: false };
    let mut architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let blocks = architecture.blocks.len();
    let rotated = smollm3::rotated(config, blocks)?;
    let chunk = config.count_or_null("attention_chunk_size", Some(8192))?;
    let chunked = config.kinds(blocks, "chunked_attention", |block| chunk.is_some() && rotated[block])?;
    let holds = chunk.is_some() || !chunked.contains(&true);
    config.expect(holds, "layer_types", "no chunked_attention where attention_chunk_size is null")?;
    let with_experts = with_experts(config, blocks)?;
    for (number, block) in architecture.blocks.iter_mut().enumerate() {
        block.unrotated = !rotated[number];
        block.chunk = chunk.filter(|_| chunked[number]);
        block.experts = with_experts[number];
    }
    let (hidden, apart) = (architecture.hidden, config.is_of_gguf());
    let experts = Experts {
        router: Router::ScaledInput,
        shared: Some(SharedExpert { hidden, gated: false }),
        // A GGUF file has gate and up apart, in rows.
        layout: if apart { ExpertLayout::Separate } else { ExpertLayout::TransposedHalves },
        ..Experts::plain(
            config.count_or("num_local_experts", 16)?,
            config.count_or("num_experts_per_tok", 1)?,
            hidden,
            false,
        )
    };
    let rope = config.rope(architecture.head_width, 500_000.0, architecture.context)?;
    let normed = config.flag_or("use_qk_norm", true)?;
    // The norm comes after the rotation there: it would undo the factor of these scalings.
    let scales = match &rope.scaling {
        Scaling::Long { attention, .. } => *attention != [1.0; 2],
        other => matches!(other, Scaling::Yarn { .. }),
    };
    config.expect(!(normed && scales), "use_qk_norm", "false with such a rope_type")?;
    Ok(Architecture {
        hidden: config.count_or("intermediate_size_mlp", 16_384)?,
        head_norm: if normed { HeadNorm::Unweighted } else { HeadNorm::None },
        query_growth: growth(config)?,
        ropes: vec![rope],
        interleaved_pairs: true,
        experts: Some(experts),
        names: if apart { NAMES_APART } else { NAMES },
        ..architecture
    })
}

/// The growth of queries; the first configs say that it is on by a number.
fn growth(config: &Config) -> Result<Option<QueryGrowth>> {
    let name = "attn_temperature_tuning";
    let is_on = match config.field(name) {
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        _ => config.flag_or(name, true)?,
    };
    let (beta, context) = (config.number_or("attn_scale", 0.1)?, config.number_or("floor_scale", 8192.0)?);
    config.expect(context.is_finite() && context > 0.0, "floor_scale", "a number above 0")?;
    Ok(is_on.then_some(QueryGrowth { beta, context, first: 1.0, unrotated: true }))
}

/// Whether each block has experts: those of a list, or every so many.
fn with_experts(config: &Config, blocks: usize) -> Result<Vec<bool>> {
    let step = config.count_or("interleave_moe_layer_step", 1)?;
    if config.field("moe_layers").is_none() {
        return Ok((0..blocks).map(|block| (block + 1) % step == 0).collect());
    }
    let listed = config.counts_or_empty("moe_layers")?;
    Ok((0..blocks).map(|block| listed.contains(&block)).collect())
}
