//! Gemma 2: norms before and after attention and MLP, soft-capped scores, a sliding window in every other block.

use super::{Config, Family, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Activation, Architecture, Head, Names, NormKind, Norms};

/// The `gemma2` family.
pub(super) struct Gemma2;

impl Family for Gemma2 {
    fn model_type(&self) -> &'static str {
        "gemma2"
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

pub(super) const NAMES: Names = Names {
    attention_norms: Norms {
        before: Some("input_layernorm"),
        output: Some("post_attention_layernorm"),
        after: None,
    },
    mlp_norms: Norms {
        before: Some("pre_feedforward_layernorm"),
        output: Some("post_feedforward_layernorm"),
        after: None,
    },
    ..llama::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let mut architecture = shared(config, 8192)?;
    let (width, context) = (architecture.head_width, architecture.context);
    let window = config.count_or_null("sliding_window", Some(4096))?;
    // The first configs said it twice.
    let twice = config.optional_count("sliding_window_size")?;
    config.expect(
        twice.is_none() || twice == window,
        "sliding_window_size",
        "the value of sliding_window",
    )?;
    let windows = config.windows(architecture.blocks.len(), window, |block| block % 2 == 0)?;
    architecture.blocks.iter_mut().zip(windows).for_each(|(block, window)| block.window = window);
    Ok(Architecture {
        attention_cap: config.number_or_null("attn_logit_softcapping", Some(50.0))?,
        logit_cap: config.number_or_null("final_logit_softcapping", Some(30.0))?,
        ropes: vec![config.rope(width, 10_000.0, context)?],
        ..architecture
    })
}

/// What Gemma 2 and 3 have in common: all but the windows and the rotations.
pub(super) fn shared(config: &Config, context: usize) -> Result<Architecture> {
    let head_width = config.count_or("head_dim", 256)?;
    let context = config.count_or("max_position_embeddings", context)?;
    let two_way = config.flag_or("use_bidirectional_attention", false)?;
    config.expect(!two_way, "use_bidirectional_attention", "false")?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    // The first configs had "hidden_act" only, and transformers reads it as the tanh form whatever it says.
    config.activation_or("hidden_act", Activation::GeluTanh)?;
    let activation = match config.text_or("hidden_activation", "gelu_pytorch_tanh")? {
        "gelu_pytorch_tanh" => Activation::GeluTanh,
        _ => config.activation("hidden_activation")?,
    };
    let architecture = llama::shape(config, activation)?;
    Ok(Architecture {
        head_width,
        context,
        norm: NormKind::RmsLessOne,
        attention_scale: config.number_or("query_pre_attn_scalar", 256.0)?.powf(-0.5),
        embed_scale: Some((architecture.width as f64).sqrt()),
        head: if config.flag_or("tie_word_embeddings", true)? { Head::Tied } else { Head::Own },
        names: NAMES,
        ..architecture
    })
}
