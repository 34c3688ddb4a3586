//! Ministral 3: Mistral with YaRN, and queries that grow with their position.

use super::llama::Defaults;
use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, QueryGrowth};
use crate::model::transformer::rope::{Rope, Scaling};

/// The `ministral3` family.
pub(super) struct Ministral3;

impl Family for Ministral3 {
    fn model_type(&self) -> &'static str {
        "ministral3"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

/// What the growth of the queries adds to the rotary parameters; the context is there twice.
const OWN: [&str; 2] = ["llama_4_scaling_beta", "max_position_embeddings"];

fn architecture(config: &Config) -> Result<Architecture> {
    let defaults =
        Defaults { kv_heads: Some(8), head_width: Some(128), context: 262_144, epsilon: 1e-5, tied: false };
    let mut architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["attention_bias", "mlp_bias"])?;
    let window = config.optional_count("sliding_window")?;
    architecture.blocks.iter_mut().for_each(|block| block.window = window);
    let (rope, query_growth) = rotation(config, architecture.head_width, architecture.context)?;
    Ok(Architecture { ropes: vec![rope], query_growth, ..architecture })
}

/// The rotation and the growth of the queries; without any parameters, those of the first checkpoints.
fn rotation(config: &Config, width: usize, context: usize) -> Result<(Rope, Option<QueryGrowth>)> {
    let filled = |name: &&str| config.value(name).is_some();
    let Some(name) = ["rope_scaling", "rope_parameters"].into_iter().find(filled) else {
        config.rope(width, 1e6, context)?;
        let original = 16_384.0;
        let scaling = Scaling::Yarn {
            factor: 16.0,
            fast: 32.0,
            slow: 1.0,
            original_context: original,
            truncate: true,
            attention: 1.0,
        };
        let growth = QueryGrowth { beta: 0.1, context: original, first: 0.0, unrotated: false };
        return Ok((Rope { base: 1e6, width, scaling }, Some(growth)));
    };
    let parameters = config.object(name)?;
    let growth = match parameters.field("llama_4_scaling_beta") {
        Some(_) => Some(QueryGrowth {
            beta: parameters.number("llama_4_scaling_beta")?,
            context: parameters.positive("original_max_position_embeddings")?,
            first: 0.0,
            unrotated: false,
        }),
        None => None,
    };
    let plain = config.without_inside(name, &OWN);
    let rope = plain.rope(width, 10_000.0, context)?;
    config.note_read(&plain);
    Ok((rope, growth))
}
