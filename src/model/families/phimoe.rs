//! Phi-3.5-MoE: layer norms, two experts by SparseMixer, and LongRoPE with factors of its own.

use super::{Config, Family, llama, mixtral};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Experts, Names, NormKind, Router};
use crate::model::transformer::rope::Scaling;

/// The `phimoe` family.
pub(super) struct PhiMoe;

impl Family for PhiMoe {
    fn model_type(&self) -> &'static str {
        "phimoe"
    }

    /// Noise of training.
    fn ignored(&self) -> &'static [&'static str] {
        &["input_jitter_noise"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

/// transformers saves the router under another name than the first checkpoints have.
const NAMES: Names = Names { router: "block_sparse_moe.gate", ..mixtral::NAMES };

fn architecture(config: &Config) -> Result<Architecture> {
    // The parameters of LongRoPE that are this family's own are read first.
    let (plain, factors) = apart(config)?;
    let mut architecture = mixtral::shape(&plain)?;
    config.note_read(&plain);
    llama::expect_no_bias(config, &["mlp_bias"])?;
    for rope in &mut architecture.ropes {
        match (&mut rope.scaling, factors) {
            (Scaling::None, _) => {}
            (Scaling::Long { short, long, attention, .. }, Some(factors)) => {
                *attention = factors;
                // As in transformers, which never takes the long factors.
                long.clone_from(short);
            }
            _ => {
                config.expect(false, "rope_scaling", "longrope with short_mscale and long_mscale, or none")?
            }
        }
    }
    let jitter = config.number_or("router_jitter_noise", 0.01)?;
    let chosen = config.count_or("num_experts_per_tok", 2)?;
    config.expect(chosen == 2, "num_experts_per_tok", "2")?;
    let count = config.count_or("num_local_experts", 16)?;
    let experts = Experts::plain(count, chosen, architecture.hidden, false);
    Ok(Architecture {
        norm: NormKind::Layer,
        head_bias: config.flag_or("lm_head_bias", false)?,
        experts: Some(Experts { router: Router::SparseMixer { jitter }, ..experts }),
        names: NAMES,
        ..architecture
    })
}

/// The config without `short_mscale` and `long_mscale`, and these.
fn apart(config: &Config) -> Result<(Config, Option<[f64; 2]>)> {
    for name in ["rope_scaling", "rope_parameters"] {
        let parameters = config.object(name)?;
        if parameters.value("short_mscale").is_some() || parameters.value("long_mscale").is_some() {
            let factors = [parameters.positive("short_mscale")?, parameters.positive("long_mscale")?];
            return Ok((config.without_inside(name, &["short_mscale", "long_mscale"]), Some(factors)));
        }
    }
    Ok((config.without_inside("rope_scaling", &[]), None))
}
