//! BERT (MiniLM and others): an encoder with bidirectional attention, post-norms and no vocabulary head. For reading only.

use super::{Config, Family, gpt2};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Activation, Architecture, BlockKind, Fused, Head, Names, Norms,
};

/// The `bert` family.
pub(super) struct Bert;

impl Family for Bert {
    fn model_type(&self) -> &'static str {
        "bert"
    }

    /// An encoder has no vocabulary head to tie.
    fn ignored(&self) -> &'static [&'static str] {
        &["tie_word_embeddings"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

const NAMES: Names = Names {
    embed: "bert.embeddings.word_embeddings",
    positions: "bert.embeddings.position_embeddings",
    segments: "bert.embeddings.token_type_embeddings",
    embed_norm: Some("bert.embeddings.LayerNorm"),
    block: "bert.encoder.layer.",
    attention_norms: Norms { before: None, output: None, after: Some("attention.output.LayerNorm") },
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    mlp_norms: Norms { before: None, output: None, after: Some("output.LayerNorm") },
    up: "intermediate.dense",
    down: "output.dense",
    norm: None,
    head: "",
    ignored: &["pooler.", "cls."],
    ..gpt2::NAMES
};

fn architecture(config: &Config) -> Result<Architecture> {
    let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
    let context = config.count_or("max_position_embeddings", 512)?;
    let kind = config.text_or("position_embedding_type", "absolute")?;
    config.expect(kind == "absolute", "position_embedding_type", "absolute")?;
    for field in ["is_decoder", "add_cross_attention"] {
        config.expect(!config.flag_or(field, false)?, field, "false")?;
    }
    Ok(Architecture {
        hidden: config.count("intermediate_size")?,
        causal: false,
        norm_epsilon: config.number_or("layer_norm_eps", 1e-12)?,
        query_key_value: Fused::Separate,
        transposed: false,
        segments: Some(config.count_or("type_vocab_size", 2)?),
        blocks: vec![BlockKind::default(); config.blocks("num_hidden_layers")?],
        head: Head::None,
        names: NAMES,
        ..gpt2::shape(config, [width, heads, context], config.activation_or("hidden_act", Activation::Gelu)?)?
    })
}
