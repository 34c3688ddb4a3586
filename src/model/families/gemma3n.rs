//! Gemma 3n (text): residual streams that predict and correct each other, a linear path beside attention, embeddings that each block
//! reads for itself, sparse gates in the first blocks, and keys and values that the last blocks share.

use serde_json::Value;

use super::{Config, Family, gemma2, gemma4, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Activation, Architecture, Head, HeadNorm, NormKind, PerLayer, Streams,
};

/// The `gemma3n_text` family.
pub(super) struct Gemma3nText;

impl Family for Gemma3nText {
    fn model_type(&self) -> &'static str {
        "gemma3n_text"
    }

    /// Settings of training, and a factor that transformers does not read here.
    fn ignored(&self) -> &'static [&'static str] {
        &["altup_coef_clip", "altup_lr_multiplier", "query_pre_attn_scalar"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let hidden = config.field("intermediate_size").filter(|value| value.is_array());
        let Some(first) = hidden.and_then(|value| value.get(0)).cloned() else {
            return architecture(config);
        };
        // A list of widths, one a block.
        let plain = config.without_inside("", &[]).with("intermediate_size", first);
        let mut architecture = architecture(&plain)?;
        config.note_read(&plain);
        let widths = config.counts_or_empty("intermediate_size")?;
        let holds = widths.len() == architecture.blocks.len() && widths.iter().all(|&width| width > 0);
        let expected = format!("a list of {} widths, or one", architecture.blocks.len());
        config.expect(holds, "intermediate_size", &expected)?;
        for (block, width) in architecture.blocks.iter_mut().zip(widths) {
            block.hidden = Some(width);
        }
        Ok(architecture)
    }
}

/// Which rotation a block has.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;

fn architecture(config: &Config) -> Result<Architecture> {
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let activation = config.activation_or("hidden_activation", Activation::GeluTanh)?;
    let mut architecture = Architecture {
        kv_heads: config.count_or("num_key_value_heads", 2)?,
        head_width: config.count_or("head_dim", 256)?,
        ..llama::shape(config, activation)?
    };
    let count = architecture.blocks.len();
    let window = config.count_or("sliding_window", 512)?;
    let sliding = config.kinds(count, "sliding_attention", |block| (block + 1) % 5 != 0)?;
    let sparse = sparsity(config, count)?;
    for ((block, sliding), sparse) in architecture.blocks.iter_mut().zip(sliding).zip(sparse) {
        block.window = sliding.then_some(window);
        block.rope = if sliding { LOCAL } else { GLOBAL };
        block.sparsity = sparse;
    }
    gemma4::share(config, &mut architecture, 15)?;
    let context = config.count_or("max_position_embeddings", 32_768)?;
    let width = architecture.head_width;
    config.expect(config.field("rope_scaling").is_none(), "rope_scaling", "none beside rope_parameters")?;
    let ropes = vec![
        config.rope_of("full_attention", width, 1e6, context)?,
        config.local_rope("sliding_attention", "rope_local_base_freq", width, 1e4, context)?,
    ];
    let parameters = config.object("rope_parameters")?;
    let is_nested = parameters.is_empty() || parameters.field("full_attention").is_some();
    config.expect(is_nested, "rope_parameters", "those of full_attention and sliding_attention")?;
    let active = config.count_from_0_or("altup_active_idx", 0)?;
    config.expect(active == 0, "altup_active_idx", "0")?;
    let streams = Streams {
        count: config.count_or("altup_num_inputs", 4)?,
        scaled: config.flag_or("altup_correct_scale", true)?,
    };
    Ok(Architecture {
        context,
        norm: NormKind::Rms,
        head_norm: HeadNorm::Each,
        value_norm: true,
        streams: Some(streams),
        laurel: Some(config.count_or("laurel_rank", 64)?),
        per_layer: Some(PerLayer {
            width: config.count_or("hidden_size_per_layer_input", 256)?,
            vocabulary: config.count_or("vocab_size_per_layer_input", 262_144)?,
            first_beyond: true,
        }),
        attention_scale: 1.0,
        logit_cap: config.number_or_null("final_logit_softcapping", Some(30.0))?,
        embed_scale: Some((architecture.width as f64).sqrt()),
        head: if config.flag_or("tie_word_embeddings", true)? { Head::Tied } else { Head::Own },
        ropes,
        names: gemma2::NAMES,
        ..architecture
    })
}

/// The standard deviations above the mean from which the gates of each block count: those that leave so large a share of a normal
/// distribution below.
fn sparsity(config: &Config, count: usize) -> Result<Vec<Option<f64>>> {
    // A GGUF file has the deviations themselves, below all numbers for none.
    if config.is_of_gguf()
        && let Some(Value::Array(deviations)) = config.field("activation_sparsity_scale")
        && deviations.len() == count
    {
        return Ok(deviations.iter().map(Value::as_f64).collect());
    }
    let name = "activation_sparsity_pattern";
    let shares = match config.field(name) {
        None => (0..count).map(|block| if count > 10 && block < 10 { 0.95 } else { 0.0 }).collect(),
        Some(Value::Array(_)) => config.numbers(name, count)?,
        Some(_) => return Err(config.refused(name, &format!("a list of {count} numbers, or null"))),
    };
    let holds = shares.iter().all(|share| (0.0..1.0).contains(share));
    config.expect(holds, name, "shares from 0 to below 1")?;
    Ok(shares.into_iter().map(|share| (share > 0.0).then(|| deviations(f64::from(share as f32)))).collect())
}

/// The standard deviations of a normal distribution below which `share` of it lies.
fn deviations(share: f64) -> f64 {
    // Φ(x) = ½ + φ(x) · (x + x³/3 + x⁵/(3·5) + …)
    let below = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for odd in (3..).step_by(2).take(200) {
            term *= x * x / f64::from(odd);
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    };
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if below(middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_quantiles_of_the_normal_distribution() {
        // scipy.stats.norm.ppf
        for (share, expected) in [(0.5, 0.0), (0.95, 1.644_853_626_951), (0.1, -1.281_551_565_545)] {
            assert!((deviations(share) - expected).abs() < 1e-9, "{share}: {}", deviations(share));
        }
    }
}
