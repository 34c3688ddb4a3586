//! The text models of Qwen3.5: Qwen3-Next with the projections of its delta nets in tensors of their own; dense, or with experts in every
//! block.

use super::{Config, Family, qwen3_next};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `qwen3_5_text` family.
pub(super) struct Qwen35Text;

/// Settings of the blocks that predict further tokens; the precision of states, which are f32 here.
const IGNORED: [&str; 3] = ["mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mamba_ssm_dtype"];

impl Family for Qwen35Text {
    fn model_type(&self) -> &'static str {
        "qwen3_5_text"
    }

    fn ignored(&self) -> &'static [&'static str] {
        &IGNORED
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let plain = config.with_plain_positions();
        let architecture = qwen3_next::shape(&plain, false, 4);
        config.note_read(&plain);
        architecture
    }
}

/// The `qwen3_5_moe_text` family.
pub(super) struct Qwen35MoeText;

impl Family for Qwen35MoeText {
    fn model_type(&self) -> &'static str {
        "qwen3_5_moe_text"
    }

    fn ignored(&self) -> &'static [&'static str] {
        &IGNORED
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        // Experts take the place of every MLP, so that no config has a width of one.
        let plain = config.with_plain_positions().with("intermediate_size", 1.into());
        let mut architecture = qwen3_next::shape(&plain, false, 2)?;
        architecture.blocks.iter_mut().for_each(|block| block.experts = true);
        let normalised = plain.flag_or("norm_topk_prob", true)?;
        plain.expect(normalised, "norm_topk_prob", "true, which transformers computes with")?;
        // Without any, there would be no MLP at all.
        plain.count_or("num_experts", 256)?;
        let architecture = qwen3_next::with_experts(&plain, architecture, [256, 8], true);
        config.note_read(&plain);
        architecture
    }
}
