//! The text model of Qwen3.5, dense: Qwen3-Next without experts, with the projections of its delta nets in tensors of their own.

use super::{Config, Family, qwen3_next};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `qwen3_5_text` family.
pub(super) struct Qwen35Text;

impl Family for Qwen35Text {
    fn model_type(&self) -> &'static str {
        "qwen3_5_text"
    }

    /// Settings of the blocks that predict further tokens; the precision of states, which are f32 here.
    fn ignored(&self) -> &'static [&'static str] {
        &["mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mamba_ssm_dtype"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let plain = config.with_plain_positions();
        let architecture = qwen3_next::shape(&plain, false, 4);
        config.note_read(&plain);
        architecture
    }
}
