//! Granite 4, dense: Granite with gate and up in one tensor. Its blocks with Mamba layers and its experts are refused.

use serde_json::Value;

use super::llama::Defaults;
use super::{Config, Family, granite, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Fused, Mlp, Names};

/// The `granitemoehybrid` family.
pub(super) struct GraniteMoeHybrid;

impl Family for GraniteMoeHybrid {
    fn model_type(&self) -> &'static str {
        "granitemoehybrid"
    }

    /// Sizes of Mamba layers and experts, of which a dense model has none.
    fn ignored(&self) -> &'static [&'static str] {
        &[
            "mamba_n_heads",
            "mamba_n_groups",
            "mamba_d_state",
            "mamba_d_head",
            "mamba_d_conv",
            "mamba_expand",
            "mamba_chunk_size",
            "mamba_conv_bias",
            "mamba_proj_bias",
            "num_experts_per_tok",
            "normalization_function",
            "intermediate_size",
        ]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names = Names {
    gate: "shared_mlp.input_linear",
    up: "shared_mlp.input_linear",
    down: "shared_mlp.output_linear",
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let hidden = config.count_or("shared_intermediate_size", 1024)?;
    let architecture = llama::with_defaults(config, Defaults::LLAMA)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let blocks = architecture.blocks.len();
    let attends = |kind: &Value| kind == "attention" || kind == "full_attention";
    let kinds = ["layer_types", "layers_block_type"].iter().find_map(|name| config.value(name));
    let all = kinds
        .and_then(Value::as_array)
        .is_some_and(|kinds| kinds.len() == blocks && kinds.iter().all(attends));
    config.expect(
        all,
        "layer_types",
        &format!("a list of {blocks}, each attention: Mamba layers are not read"),
    )?;
    let experts = config.count_from_0_or("num_local_experts", 8)?;
    config.expect(experts == 0, "num_local_experts", "0: experts beside the shared MLP are not read")?;
    let rotated = match config.field("position_embedding_type") {
        None => false,
        Some(kind) if kind == "nope" => false,
        Some(kind) => {
            config.expect(kind == "rope", "position_embedding_type", "rope, nope or null")?;
            true
        }
    };
    let rope = config.rope(architecture.head_width, 10_000.0, architecture.context)?;
    let ropes = if rotated { vec![rope] } else { Vec::new() };
    let architecture =
        Architecture { hidden, mlp: Mlp::Gated(Fused::Stacked), ropes, names: NAMES, ..architecture };
    granite::multiplied(config, architecture)
}
