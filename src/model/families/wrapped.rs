//! Text models inside models for images or sound as well: their config is the object `text_config` of the whole.

use serde_json::{Value, json};

use super::Config;
use super::config::says_nothing;
use crate::error::Result;

/// Models whose text part, read alone, is a model of a known family.
const WRAPPERS: [&str; 16] = [
    "gemma3",
    "mistral3",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "llava",
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "vipllava",
    "video_llava",
    "aya_vision",
    "cohere2_vision",
    "internvl",
    "lighton_ocr",
    "voxtral",
];

/// The config of the text model, if `config` is of a model that has one inside.
///
/// # Errors
/// A `text_config` that is no object.
pub(super) fn text_model(config: &Config) -> Result<Option<Config>> {
    let model_type = config.text("model_type")?;
    if !WRAPPERS.contains(&model_type) {
        return Ok(None);
    }
    // The first configs of Qwen's have the text model's fields beside the others.
    let flat = config.value("text_config").is_none();
    let inner = match flat {
        true => config.without_inside("", &[]),
        false => config.object("text_config")?,
    };
    let kind = match (flat, inner.field("model_type").and_then(Value::as_str)) {
        (false, Some(kind)) => kind.to_owned(),
        _ => format!("{model_type}_text"),
    };
    let mut text = inner.with_text("model_type", &kind);
    for (name, value) in defaults(&kind) {
        if text.field(name).is_none() {
            text = text.with(name, value);
        }
    }
    // Whether the head is tied is said of the whole.
    if let Some(tied) = config.field("tie_word_embeddings").cloned() {
        text = text.with("tie_word_embeddings", tied);
    }
    if flat {
        text = text.without("vision_config");
    }
    Ok(Some(text))
}

/// The fields that configs leave out where they equal the defaults of transformers.
fn defaults(kind: &str) -> Vec<(&'static str, Value)> {
    let sizes = |vocabulary: u32, width: u32, hidden: u32, blocks: u32, heads: u32, keys: u32| {
        vec![
            ("vocab_size", json!(vocabulary)),
            ("hidden_size", json!(width)),
            ("intermediate_size", json!(hidden)),
            ("num_hidden_layers", json!(blocks)),
            ("num_attention_heads", json!(heads)),
            ("num_key_value_heads", json!(keys)),
        ]
    };
    match kind {
        "llama" => sizes(32_000, 4096, 11_008, 32, 32, 32),
        "mistral" => sizes(32_000, 4096, 14_336, 32, 32, 8),
        "qwen2" => sizes(151_936, 4096, 22_016, 32, 32, 32),
        "gemma3_text" => sizes(262_208, 2304, 9216, 26, 8, 4),
        "cohere2" => sizes(256_000, 8192, 22_528, 40, 64, 64),
        _ => Vec::new(),
    }
}

impl Config {
    /// The config without the sections of multimodal positions, which for text are the plain ones.
    pub(super) fn with_plain_positions(&self) -> Config {
        let mut plain = self.without_inside("", &[]);
        for name in ["rope_scaling", "rope_parameters"] {
            let mrope = plain.field(name).and_then(|parameters| parameters.get("type"));
            let is = |kind: &Value| kind == "mrope";
            let is_mrope = mrope.is_some_and(is)
                || plain.field(name).and_then(|one| one.get("rope_type")).is_some_and(is);
            plain = plain.without_inside(name, &["mrope_section", "mrope_interleaved"]);
            if is_mrope {
                plain = plain.without_inside(name, &["type", "rope_type"]);
            }
            if plain.field(name).is_some_and(says_nothing) {
                plain = plain.without(name);
            }
        }
        plain
    }
}
