//! Qwen 2 and 2.5 (and DeepSeek-R1-Distill-Qwen): Llama with query, key and value biases.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `qwen2` family.
pub(super) struct Qwen2;

impl Family for Qwen2 {
    fn model_type(&self) -> &'static str {
        "qwen2"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = llama::architecture(config)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    windows(config, &mut architecture, 28)?;
    Ok(Architecture {
        context: config.count_or("max_position_embeddings", 32_768)?,
        query_key_value_bias: true,
        output_bias: false,
        ..architecture
    })
}

/// The blocks with a sliding window: those that `layer_types` names, or all from `max_window_layers` on, with the family's default.
pub(super) fn windows(config: &Config, architecture: &mut Architecture, first: usize) -> Result<()> {
    let window = window(config)?;
    let first = match config.is_present("max_window_layers") {
        // 0 is a count here.
        true => config.count_from_0("max_window_layers")?,
        false => first,
    };
    let windows = config.windows(architecture.blocks.len(), window, |block| block >= first)?;
    architecture.blocks.iter_mut().zip(windows).for_each(|(block, window)| block.window = window);
    Ok(())
}

/// The window of attention, if `use_sliding_window` says that it is used.
pub(super) fn window(config: &Config) -> Result<Option<usize>> {
    let used = config.flag_or("use_sliding_window", false)?;
    // transformers writes 0 where it isn't used.
    if !used && config.field("sliding_window").is_some_and(|window| window == 0) {
        return Ok(None);
    }
    Ok(config.count_or_null("sliding_window", Some(4096))?.filter(|_| used))
}
