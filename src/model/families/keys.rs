//! Keys of a `config.json` that no code read: bookkeeping is let through, and a key that says something about the
//! computation is refused by name, since the model would otherwise compute something else than its config says.

use serde_json::Value;

use super::Config;
use super::config::says_nothing;
use crate::error::Result;
use crate::model::weights::Quantisation;

/// Keys that change no hidden state, though they contain one of [`STRUCTURE`]: training, output options, implementations,
/// and heads of other tasks.
const HARMLESS: [&str; 28] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "_flash_attn_2_enabled",
    "use_flash_attn",
    "use_flash_attention",
    "chunk_size_feed_forward",
    "classifier_bias",
    "cross_attention_hidden_size",
    "encoder_no_repeat_ngram_size",
    "gradient_checkpointing",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "max_sequence_length",
    "model_max_length",
    "n_ctx",
    "no_repeat_ngram_size",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pretraining_tp",
    "reorder_and_upcast_attn",
    "seq_length",
    "top_k",
    "typical_p",
    "use_cache",
    "use_logits_to_keep",
];

/// Parts of the names of further such keys.
const HARMLESS_PARTS: [&str; 15] = [
    "dropout",
    "pdrop",
    "initializer",
    "init_",
    "_token_id",
    "_token_index",
    "_loss",
    "loss_",
    "_coef",
    "summary_",
    "pooler_",
    "task_specific",
    "beam",
    "implementation",
    "num_labels",
];

/// Parts of names of keys that describe the computation, in the config classes of transformers.
const STRUCTURE: [&str; 70] = [
    "act_",
    "_act",
    "activation",
    "alibi",
    "altup",
    "attention",
    "attn",
    "bias",
    "bidirectional",
    "block",
    "causal",
    "chunk",
    "clamp",
    "clip",
    "conv",
    "decoder",
    "deepstack",
    "d_ff",
    "d_kv",
    "d_model",
    "dense",
    "embed",
    "encoder",
    "_emb",
    "eps",
    "expert",
    "ffn",
    "freq",
    "gate",
    "gating",
    "global",
    "group",
    "head",
    "hidden",
    "index_",
    "intermediate",
    "interpolate",
    "kv_",
    "latent",
    "layer",
    "local",
    "logit",
    "lora",
    "mamba",
    "mlp",
    "moe",
    "mrope",
    "multi_query",
    "multiplier",
    "mup",
    "nope",
    "norm",
    "num_",
    "parallel",
    "position",
    "qk_",
    "qkv",
    "query",
    "residual",
    "rope",
    "rotary",
    "router",
    "scal",
    "shared",
    "sink",
    "sliding",
    "softcap",
    "state_",
    "theta",
    "window",
];

/// Keys whose value decides whether they are harmless: the values that are.
const ONLY: [(&str, &str); 8] = [
    ("add_cross_attention", "false"),
    ("causal", "true"),
    ("is_causal", "true"),
    ("is_encoder_decoder", "false"),
    ("pruned_heads", "{}"),
    ("transformers_weights", "null"),
    ("use_rope", "true"),
    ("use_rotary", "true"),
];

/// Refuses the keys that `family` neither read nor can ignore. `ignored` are the family's own harmless keys.
///
/// # Errors
/// The first such key and its value.
pub(super) fn refuse_unread(config: &Config, ignored: &[&str]) -> Result<()> {
    for (key, value) in config.unread() {
        if let Some((_, only)) = ONLY.iter().find(|(known, _)| *known == key) {
            let text = value.to_string();
            if value.is_null() || text == *only {
                continue;
            }
            return Err(config.refused(key, &format!("{key} {only}, or none")));
        }
        if !says_nothing(value) && !ignored.contains(&key) && describes_computation(key) {
            return Err(config.refused(key, "only keys that this family's code implements"));
        }
    }
    Ok(())
}

fn describes_computation(key: &str) -> bool {
    let has = |parts: &[&str]| parts.iter().any(|part| key.contains(part));
    !HARMLESS.contains(&key) && !has(&HARMLESS_PARTS) && has(&STRUCTURE)
}

/// How a checkpoint's weights are stored quantised, whatever its family; none where they are not, and for the experts of gpt-oss,
/// which are read without settings.
///
/// # Errors
/// A method that is not read: its name, and what to use instead.
pub(super) fn quantisation(config: &Config) -> Result<Option<Quantisation>> {
    for name in ["quantization_config", "compression_config", "quantization"] {
        let Some(value) = config.value(name).filter(|value| **value != Value::Bool(false)) else { continue };
        let mxfp4 = value.get("quant_method").is_some_and(|method| method == "mxfp4");
        if mxfp4 && config.field("model_type").is_some_and(|kind| kind == "gpt_oss") {
            continue;
        }
        return Quantisation::parse(config.place(), name, value).map(Some);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::model::families::FAMILIES;

    /// Every key of every family at the default of transformers (`tests/fixtures/families/make.py`).
    fn defaults() -> Vec<(String, Map<String, Value>)> {
        let text = std::fs::read("tests/fixtures/families/keys.json").unwrap();
        let configs: Map<String, Value> = serde_json::from_slice(&text).unwrap();
        let configs =
            configs.into_iter().map(|(family, config)| (family, config.as_object().unwrap().clone()));
        configs.collect()
    }

    /// What is said of a family's default config with these keys set.
    fn said(config: &Map<String, Value>, more: Value) -> String {
        let mut config = config.clone();
        config.extend(more.as_object().unwrap().clone());
        let config = Config::parse("config.json", Value::Object(config).to_string().as_bytes()).unwrap();
        crate::model::families::architecture(&config)
            .map_or_else(|error| error.to_string(), |_| "fine".into())
    }

    /// The keys that a family reads.
    fn read(family: &str, config: &Map<String, Value>) -> Vec<String> {
        let known = FAMILIES.iter().find(|known| known.model_type() == family).unwrap();
        let config =
            Config::parse("config.json", Value::Object(config.clone()).to_string().as_bytes()).unwrap();
        known.architecture(&config).unwrap();
        config.asked().into_iter().filter(|key| !key.is_empty()).collect()
    }

    #[test]
    fn every_family_takes_the_defaults_of_transformers_and_bookkeeping() {
        let families = defaults();
        assert_eq!(families.len(), FAMILIES.len());
        // What older versions of transformers and tools for tuning leave in configs.
        let bookkeeping: Value = serde_json::from_str(
            r#"{
            "_name_or_path": "org/name", "_attn_implementation_autoset": true, "add_cross_attention": false, "auto_map":
            {"AutoModel": "modeling.X"}, "bad_words_ids": null, "begin_suppress_tokens": null, "cache_implementation": "hybrid",
            "chunk_size_feed_forward": 0, "cross_attention_hidden_size": null, "decoder_start_token_id": null,
            "diversity_penalty": 0.0, "early_stopping": false, "encoder_no_repeat_ngram_size": 0, "finetuning_task": null,
            "forced_bos_token_id": null, "gradient_checkpointing": false, "is_decoder": false, "is_encoder_decoder": false,
            "is_llama_config": true, "length_penalty": 1.0, "max_length": 20, "min_length": 0, "model_max_length": 4096,
            "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "num_labels": 3,
            "output_attentions": false, "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pretraining_tp": 2,
            "problem_type": null, "pruned_heads": {}, "repetition_penalty": 1.0, "rope_interleaved": false, "summary_type":
            "cls_index", "summary_use_proj": true, "task_specific_params": {"a": 1}, "temperature": 1.0, "tie_encoder_decoder":
            false, "tokenizer_class": "X", "top_k": 50, "top_p": 1.0, "torch_dtype": "bfloat16", "typical_p": 1.0,
            "unsloth_version": "2025.1", "use_bfloat16": false, "use_mrope": false, "quantization_config": null
            }"#,
        )
        .unwrap();
        for (family, config) in families {
            assert_eq!(said(&config, json!({})), "fine", "{family}");
            assert_eq!(said(&config, bookkeeping.clone()), "fine", "{family}");
        }
    }

    #[test]
    fn keys_of_other_computations_are_refused_by_name_in_every_family() {
        let foreign: Value = serde_json::from_str(
            r#"{
            "attention_multiplier": 0.5, "embedding_multiplier": 12.0, "residual_multiplier": 0.2, "logits_scaling": 8.0,
            "logit_scale": 0.0625, "clip_qkv": 8.0, "use_qk_norm": true, "qk_layernorm": true, "alibi": true, "attn_config": {"a": 1},
            "no_rope_layers": [1, 0], "attention_chunk_size": 8192, "kv_lora_rank": 512, "n_routed_experts": 8, "parallel_attn":
            true, "multi_query": true, "position_embedding_type": "relative_key", "pruned_heads": {"1": [0]},
            "is_encoder_decoder": true, "is_causal": false, "use_rope": false, "add_cross_attention": true,
            "transformers_weights": "other.safetensors", "head_dim_v": 4, "embed_scale": 2.0, "moe_layer_freq": 2,
            "rope_local_theta": 1e4, "mup_width_scale": 0.5, "first_k_dense_replace": 1, "scale_depth": 1.4,
            "layer_norm_type": "deep", "residual_dtype_norm": "x", "logits_soft_cap": 30.0, "sliding_window_size": 4
            }"#,
        )
        .unwrap();
        for (family, config) in defaults() {
            let read = read(&family, &config);
            for (key, value) in foreign.as_object().unwrap().iter().filter(|(key, _)| !read.contains(key)) {
                let said = said(&config, json!({ (key.as_str()): value }));
                assert!(said.starts_with(&format!("config.json: {key} is ")), "{family}, {key}: {said}");
                assert!(!said.contains('\n'), "{said}");
            }
        }
    }

    #[test]
    fn unknown_values_of_keys_that_are_read_are_refused_by_name_in_every_family() {
        let rope = |more: Value| {
            let mut parameters = json!({"rope_theta": 10000.0});
            parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "rope_parameters": parameters })
        };
        let cases = [
            (
                json!({"hidden_act": "wobble", "activation_function": "wobble", "hidden_activation": "wobble"}),
                "wobble",
            ),
            (rope(json!({"rope_type": "spiral"})), "rope_type spiral"),
            (rope(json!({"rope_type": "linear", "factor": 0.0})), "factor is 0"),
            (rope(json!({"rope_type": "default", "mrope_section": [1, 2]})), "mrope_section"),
            (rope(json!({"rope_type": "default", "partial_rotary_factor": 1.5})), "partial_rotary_factor"),
            (rope(json!({"rope_type": "default", "rope_theta": -1.0})), "rope_theta is -1"),
            (rope(json!({"rope_type": "default", "type": "linear"})), "type is \"linear\""),
            (json!({"rope_scaling": "linear"}), "rope_scaling is \"linear\""),
            (json!({"layer_types": ["full_attention", "wavy_attention"]}), "layer_types is "),
            (json!({"layer_types": ["full_attention"]}), "layer_types is "),
            (
                json!({"attention_bias": "yes", "scale_attn_weights": "yes", "is_decoder": "yes"}),
                "is \"yes\"",
            ),
            (json!({"tie_word_embeddings": "yes"}), "tie_word_embeddings is \"yes\""),
        ];
        for (family, config) in defaults() {
            for (case, expected) in &cases {
                let without_ropes = ["gpt2", "bert"].contains(&family.as_str());
                let (said, key) =
                    (said(&config, case.clone()), case.as_object().unwrap().keys().next().unwrap());
                // A family without rotations has no place for their parameters at all.
                let expected = if without_ropes && key.starts_with("rope") { key } else { *expected };
                // An encoder has no vocabulary head; the text part of Qwen's models for images has positions in parts.
                let headless = family == "bert" && *key == "tie_word_embeddings";
                let in_parts = family.ends_with("_vl_text") || family.starts_with("qwen3_5");
                if !(headless || in_parts && expected == "mrope_section") {
                    assert!(said.contains(expected), "{family}, {case}: {said}");
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_head_is_rotated_by_the_families_that_do_it() {
        for (family, config) in defaults() {
            let said = said(&config, json!({"partial_rotary_factor": 0.5, "rope_parameters": null}));
            match family.as_str() {
                "phi3" | "glm" | "glm4" | "glm4_moe" | "stablelm" | "qwen3_next" | "qwen3_5_text"
                | "qwen3_5_moe_text" => {
                    assert_eq!(said, "fine", "{family}")
                }
                _ => assert!(said.contains("partial_rotary_factor"), "{family}: {said}"),
            }
        }
    }

    #[test]
    fn windows_follow_the_rules_of_transformers() {
        let windows = |family: &str, more: Value| -> Vec<Option<usize>> {
            let (_, mut config) = defaults().into_iter().find(|(name, _)| name == family).unwrap();
            let keys = ["layer_types", "sliding_window", "use_sliding_window", "max_window_layers"];
            keys.iter().for_each(|key| drop(config.remove(*key)));
            config.extend(more.as_object().unwrap().clone());
            let config = Config::parse("config.json", Value::Object(config).to_string().as_bytes()).unwrap();
            let architecture = crate::model::families::architecture(&config).unwrap();
            architecture.blocks.iter().map(|block| block.window).collect()
        };
        let (none, all) = (vec![None, None], vec![Some(4096), Some(4096)]);
        assert_eq!(windows("mistral", json!({})), all);
        assert_eq!(windows("mistral", json!({"sliding_window": null})), none);
        let mixed = json!({"sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"]});
        assert_eq!(windows("mistral", mixed.clone()), [None, Some(5)]);
        assert_eq!(windows("ministral", mixed), [None, Some(5)]);
        assert_eq!(windows("qwen2", json!({"sliding_window": 5})), none);
        let used = json!({"sliding_window": 5, "use_sliding_window": true, "max_window_layers": 1});
        assert_eq!(windows("qwen2", used.clone()), [None, Some(5)]);
        assert_eq!(windows("qwen3", used.clone()), [None, Some(5)]);
        // The mixture of experts reads no max_window_layers.
        assert_eq!(windows("qwen3_moe", used), [Some(5), Some(5)]);
        assert_eq!(windows("gemma2", json!({})), [Some(4096), None]);
        assert_eq!(windows("phi3", json!({})), none);
        let (_, qwen2) = defaults().into_iter().find(|(name, _)| name == "qwen2").unwrap();
        let unused = said(&qwen2, json!({"layer_types": ["full_attention", "sliding_attention"]}));
        assert!(unused.contains("layer_types is "), "{unused}");
    }

    #[test]
    fn quantised_weights_are_named_whatever_the_quantiser() {
        let (_, llama) = defaults().into_iter().find(|(name, _)| name == "llama").unwrap();
        for (config, expected) in [
            (json!({"quant_method": "hqq", "nbits": 4}), "hqq, 4 bits"),
            (json!({"quant_method": "torchao", "quant_type": "int4"}), "torchao"),
            (json!({"quant_method": "mxfp4"}), "mxfp4"),
            (json!({"quant_method": "none of those"}), "none of those"),
            (json!({}), "a method that it does not name"),
        ] {
            let said = said(&llama, json!({ "quantization_config": config }));
            assert!(
                said.contains(&format!("quantised by {expected} (quantization_config), which are not read")),
                "{said}"
            );
        }
        // Those that are read.
        for config in [
            json!({"quant_method": "gptq", "bits": 4}),
            json!({"quant_method": "awq", "w_bit": 4}),
            json!({"load_in_8bit": true}),
            json!({"quant_method": "fp8"}),
        ] {
            assert_eq!(said(&llama, json!({ "quantization_config": config })), "fine");
        }
        let (_, gpt_oss) = defaults().into_iter().find(|(name, _)| name == "gpt_oss").unwrap();
        assert_eq!(said(&gpt_oss, json!({"quantization_config": {"quant_method": "mxfp4"}})), "fine");
        assert!(
            said(&gpt_oss, json!({"quantization_config": {"quant_method": "quark"}})).contains("by quark")
        );
        assert!(
            said(&llama, json!({"quantization": {"group_size": 64, "bits": 4}}))
                .contains("4 bits (quantization)")
        );
    }

    #[test]
    fn what_a_family_does_not_compute_is_refused_by_name() {
        let yarn = json!({"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0});
        let bases = json!({"full_attention": {"rope_type": "spiral", "rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4}});
        for (family, more) in [
            ("qwen3_next", json!({"attn_output_gate": false})),
            ("qwen3_next", json!({"linear_num_value_heads": 24})),
            ("qwen3_next", json!({"linear_conv_kernel_dim": 0})),
            ("qwen3_5_text", json!({"num_experts": 8})),
            ("gemma3n_text", json!({"altup_active_idx": 1})),
            ("gemma3n_text", json!({"altup_num_inputs": 0})),
            ("gemma3n_text", json!({"activation_sparsity_pattern": [0.5, 1.0]})),
            ("gemma3n_text", json!({"activation_sparsity_pattern": 0.5})),
            ("gemma3n_text", json!({"intermediate_size": [8, 8, 8]})),
            ("gemma3n_text", json!({"num_kv_shared_layers": 2})),
            ("qwen3_5_moe_text", json!({"norm_topk_prob": false})),
            ("gemma4_text", json!({"num_kv_shared_layers": 1})),
            ("gemma4_text", json!({"use_bidirectional_attention": "all"})),
            ("gemma4_text", json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}})),
            ("llama4_text", json!({"no_rope_layers": [2, 1]})),
            ("llama4_text", json!({"attention_chunk_size": 0})),
            ("llama4_text", json!({"floor_scale": 0})),
        ] {
            let (_, config) = defaults().into_iter().find(|(name, _)| name == family).unwrap();
            let key = more.as_object().unwrap().keys().next().unwrap().clone();
            let said = said(&config, more);
            assert!(said.starts_with(&format!("config.json: {key} is ")), "{family}, {key}: {said}");
        }
        for (family, more, expected) in [
            ("llama4_text", json!({ "rope_parameters": yarn }), "use_qk_norm is true"),
            ("gemma4_text", json!({ "rope_parameters": bases }), "rope_type spiral"),
            ("gemma4_text", json!({"per_layer_config": {"1": {"sliding_window": 4}}}), "sliding_window is 4"),
            ("gemma4_text", json!({"per_layer_config": {"2": {"head_dim": 4}}}), "blocks from 0 to 1"),
        ] {
            let (_, config) = defaults().into_iter().find(|(name, _)| name == family).unwrap();
            let said = said(&config, more);
            assert!(said.contains(expected) && !said.contains('\n'), "{family}: {said}");
        }
    }

    /// The list for people, `docs/config-keys.md`, has every key that is read and every key that is ignored.
    #[test]
    fn the_document_lists_what_each_family_reads() {
        let document = std::fs::read_to_string("docs/config-keys.md").unwrap();
        let row = |(name, config): (String, Map<String, Value>)| {
            format!("| `{name}` | {} |", read(&name, &config).join(", "))
        };
        let rows = defaults().into_iter().map(row);
        let lacking: Vec<String> = rows.filter(|row| !document.contains(row)).collect();
        assert!(lacking.is_empty(), "docs/config-keys.md lacks these rows:\n{}", lacking.join("\n"));
        for key in HARMLESS.iter().chain(&HARMLESS_PARTS) {
            assert!(document.contains(key), "docs/config-keys.md lacks {key}");
        }
    }
}
