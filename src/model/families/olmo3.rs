//! OLMo 3: OLMo 2 with a sliding window in three of four blocks, whose rotation is not scaled.

use super::llama::Defaults;
use super::{Config, Family, llama, olmo2};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, HeadNorm};
use crate::model::transformer::rope::{Rope, Scaling};

/// The `olmo3` family.
pub(super) struct Olmo3;

impl Family for Olmo3 {
    fn model_type(&self) -> &'static str {
        "olmo3"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

/// Which rotation a block has.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;
/// Base of the frequencies.
const BASE: f64 = 500_000.0;

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = llama::with_defaults(config, Defaults { epsilon: 1e-5, ..Defaults::LLAMA })?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let window = config.count_or_null("sliding_window", Some(4096))?;
    let windows = config.windows(architecture.blocks.len(), window, |block| (block + 1) % 4 != 0)?;
    for (block, window) in architecture.blocks.iter_mut().zip(windows) {
        block.rope = if window.is_some() { LOCAL } else { GLOBAL };
        block.window = window;
    }
    let (width, context) = (architecture.head_width, architecture.context);
    let global = config.rope_of("full_attention", width, BASE, context)?;
    expect_apart(config, &Rope { base: BASE, width, scaling: Scaling::None }, &global)?;
    // As in transformers, `rope_theta` beside the parameters is that of the global rotation alone.
    let local = config.local_rope("sliding_attention", "", width, BASE, context)?;
    Ok(Architecture {
        head_norm: HeadNorm::All,
        ropes: vec![global, local],
        names: olmo2::NAMES,
        ..architecture
    })
}

/// Refuses `rope_parameters` that are not told apart by the kind of block: transformers ignores them.
fn expect_apart(config: &Config, plain: &Rope, found: &Rope) -> Result<()> {
    let parameters = config.object("rope_parameters")?;
    let apart = ["full_attention", "sliding_attention"].iter().any(|kind| parameters.value(kind).is_some());
    let together = config.value("rope_scaling").is_none() && !parameters.is_empty() && !apart;
    config.expect(!together || found == plain, "rope_parameters", "an entry for each kind of attention")
}
