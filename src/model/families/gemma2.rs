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
    let mut architecture = shared(config)?;
    let window = config.optional_count("sliding_window")?;
    let sliding = config.sliding(architecture.blocks.len(), |block| block % 2 == 0)?;
    for (block, sliding) in architecture.blocks.iter_mut().zip(sliding) {
        block.window = window.filter(|_| sliding);
    }
    Ok(Architecture {
        attention_cap: config.number_or_null("attn_logit_softcapping", Some(50.0))?,
        logit_cap: config.number_or_null("final_logit_softcapping", Some(30.0))?,
        ..architecture
    })
}

/// What Gemma 2 and 3 have in common.
pub(super) fn shared(config: &Config) -> Result<Architecture> {
    let head_width = config.count_or("head_dim", 256)?;
    let context = config.count_or("max_position_embeddings", 8192)?;
    let two_way = config.flag_or("use_bidirectional_attention", false)?;
    config.expect(!two_way, "use_bidirectional_attention", "false")?;
    // The first configs had "hidden_act" only, and transformers reads it as the tanh form whatever it says.
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
        ropes: vec![config.rope(head_width, 10_000.0, context)?],
        head: if config.flag_or("tie_word_embeddings", true)? { Head::Tied } else { Head::Own },
        names: NAMES,
        ..architecture
    })
}
