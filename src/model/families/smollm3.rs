//! SmolLM3: Llama without rotation in some blocks.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::Architecture;

/// The `smollm3` family.
pub(super) struct SmolLm3;

impl Family for SmolLm3 {
    fn model_type(&self) -> &'static str {
        "smollm3"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults = Defaults { kv_heads: Some(4), context: 32_768, tied: true, ..Defaults::LLAMA };
    let mut architecture = llama::with_defaults(config, defaults)?;
    let rope = config.rope(architecture.head_width, 2_000_000.0, architecture.context)?;
    let rotated = rotated(config, architecture.blocks.len())?;
    // Without `layer_types`, the blocks that don't rotate have the window.
    let used = config.flag_or("use_sliding_window", false)?;
    let window = config.optional_count("sliding_window")?.filter(|_| used);
    let windows = config.windows(architecture.blocks.len(), window, |block| !rotated[block])?;
    for ((block, window), rotated) in architecture.blocks.iter_mut().zip(windows).zip(rotated) {
        (block.window, block.unrotated) = (window, !rotated);
    }
    Ok(Architecture { ropes: vec![rope], ..architecture })
}

/// Whether each block rotates: a list of 1 and 0, or all but every so many.
pub(super) fn rotated(config: &Config, blocks: usize) -> Result<Vec<bool>> {
    let interval = config.count_or("no_rope_layer_interval", 4)?;
    if config.value("no_rope_layers").is_none() {
        return Ok((0..blocks).map(|block| (block + 1) % interval != 0).collect());
    }
    let list = config.counts_or_empty("no_rope_layers")?;
    let expected = format!("a list of at least {blocks}, each 1 for a block that rotates or 0");
    config.expect(list.len() >= blocks && list.iter().all(|&one| one < 2), "no_rope_layers", &expected)?;
    Ok(list[..blocks].iter().map(|&one| one == 1).collect())
}
