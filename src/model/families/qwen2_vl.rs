//! The text models of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: Qwen2 and Qwen3 with other defaults; positions in three parts, which are
//! equal for text.

use super::llama::Defaults;
use super::{Config, Family, llama, qwen2};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm};

/// The `qwen2_vl_text` family.
pub(super) struct Qwen2VlText;

impl Family for Qwen2VlText {
    fn model_type(&self) -> &'static str {
        "qwen2_vl_text"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        of_qwen2(config)
    }
}

/// The `qwen2_5_vl_text` family.
pub(super) struct Qwen25VlText;

impl Family for Qwen25VlText {
    fn model_type(&self) -> &'static str {
        "qwen2_5_vl_text"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        of_qwen2(config)
    }
}

/// The `qwen3_vl_text` family.
pub(super) struct Qwen3VlText;

impl Family for Qwen3VlText {
    fn model_type(&self) -> &'static str {
        "qwen3_vl_text"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let plain = config.with_plain_positions();
        let defaults =
            Defaults { kv_heads: Some(32), head_width: Some(128), context: 128_000, ..Defaults::LLAMA };
        let architecture = llama::with_defaults(&plain, defaults)?;
        llama::expect_no_bias(&plain, &["mlp_bias"])?;
        let rope = plain.rope(architecture.head_width, 500_000.0, architecture.context)?;
        config.note_read(&plain);
        Ok(Architecture { head_norm: HeadNorm::Each, ropes: vec![rope], ..architecture })
    }
}

fn of_qwen2(config: &Config) -> Result<Architecture> {
    let plain = config.with_plain_positions();
    let defaults = Defaults { kv_heads: Some(8), context: 32_768, epsilon: 1e-5, ..Defaults::LLAMA };
    let mut architecture = llama::with_defaults(&plain, defaults)?;
    llama::expect_no_bias(&plain, &["attention_bias", "mlp_bias"])?;
    let rope = plain.rope(architecture.head_width, 1_000_000.0, architecture.context)?;
    qwen2::windows(&plain, &mut architecture, 80)?;
    config.note_read(&plain);
    Ok(Architecture { query_key_value_bias: true, output_bias: false, ropes: vec![rope], ..architecture })
}
