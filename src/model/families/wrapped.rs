//! Text models inside models for images or sound as well: their config is the object `text_config` of the whole.

use serde_json::{Value, json};

use super::Config;
use super::config::says_nothing;
use crate::error::Result;

/// Models whose text part, read alone, is a model of a known family.
const WRAPPERS: [&str; 21] = [
    "gemma3",
    "gemma3n",
    "gemma4",
    "llama4",
    "mistral3",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_5",
    "qwen3_5_moe",
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
        "gemma3n_text" => sizes(262_400, 2048, 16_384, 35, 8, 2),
        "gemma4_text" => sizes(262_144, 2304, 9216, 30, 8, 4),
        "llama4_text" => sizes(202_048, 5120, 8192, 48, 40, 8),
        "mistral" => sizes(32_000, 4096, 14_336, 32, 32, 8),
        "qwen2" => sizes(151_936, 4096, 22_016, 32, 32, 32),
        "qwen3_5_text" => sizes(248_320, 4096, 12_288, 32, 16, 4),
        "qwen3_5_moe_text" => sizes(248_320, 2048, 512, 40, 16, 2),
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

#[cfg(test)]
mod tests {
    use crate::model::families::{Config, architecture};
    use crate::model::transformer::architecture::{Architecture, Head};

    fn read(text: &str) -> Architecture {
        architecture(&Config::parse("config.json", text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_first_configs_of_gemma_3_leave_out_what_is_the_default() {
        let found = read(
            r#"{"model_type": "gemma3", "mm_tokens_per_image": 256, "vision_config": {"hidden_size": 1152}, "text_config":
            {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}}"#,
        );
        assert_eq!((found.heads, found.kv_heads, found.head_width, found.vocabulary), (8, 4, 256, 262_208));
        assert!(found.wrapped && found.head == Head::Tied && found.blocks[5].window.is_none());
        assert!(found.ignores("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"));
        assert!(found.ignores("model.multi_modal_projector.mm_input_projection_weight"));
        assert!(!found.ignores("language_model.model.layers.0.mlp.up_proj.weight"));
    }

    #[test]
    fn a_config_of_qwen_for_images_may_be_flat_with_positions_in_parts() {
        let found = read(
            r#"{"model_type": "qwen2_5_vl", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 8, "vocab_size": 9,
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
            "max_window_layers": 70, "sliding_window": 32768, "use_sliding_window": false, "rope_theta": 1000000.0,
            "tie_word_embeddings": true, "vision_start_token_id": 151652, "vision_config": {"depth": 32, "hidden_size": 1280},
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}"#,
        );
        assert_eq!((found.family.as_str(), found.norm_epsilon), ("qwen2_5_vl_text", 1e-6));
        assert!(found.query_key_value_bias && found.head == Head::Tied && found.ropes[0].base == 1e6);
    }

    #[test]
    fn an_unknown_text_model_is_named() {
        let text = r#"{"model_type": "llava", "text_config": {"model_type": "mpt"}}"#;
        let error =
            architecture(&Config::parse("config.json", text.as_bytes()).unwrap()).unwrap_err().to_string();
        assert!(error.contains("config.json, text_config: model_type mpt is not known"), "{error}");
    }
}
