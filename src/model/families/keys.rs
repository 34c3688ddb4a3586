//! Keys of a `config.json` that no code read: bookkeeping is let through, and a key that says something about the
//! computation is refused by name, since the model would otherwise compute something else than its config says.

use serde_json::Value;

use super::Config;
use crate::error::{Error, Result};

/// Keys that change no hidden state, though they contain one of [`STRUCTURE`]: training, output options, implementations,
/// and heads of other tasks.
const HARMLESS: [&str; 26] = [
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
const HARMLESS_PARTS: [&str; 13] = [
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
const ONLY: [(&str, &str); 9] = [
    ("add_cross_attention", "false"),
    ("causal", "true"),
    ("is_causal", "true"),
    ("is_encoder_decoder", "false"),
    ("pruned_heads", "{}"),
    ("transformers_weights", "null"),
    ("use_rope", "true"),
    ("use_rotary", "true"),
    ("variant", "null"),
];

/// Refuses the keys that `family` neither read nor can ignore. `ignored` are the family's own harmless keys.
///
/// # Errors
/// The first such key and its value.
pub(super) fn refuse_unread(config: &Config, ignored: &[&str]) -> Result<()> {
    for (key, value) in config.unread() {
        if let Some((_, only)) = ONLY.iter().find(|(known, _)| *known == key) {
            if value.is_null() || value.to_string() == *only {
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

/// Whether a value is that of a feature that is off.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn describes_computation(key: &str) -> bool {
    let has = |parts: &[&str]| parts.iter().any(|part| key.contains(part));
    // Names of classes and labels, and lengths and sampling of generation.
    let of_generation = ["num_beams", "num_return_sequences", "num_labels", "no_repeat_ngram_size"];
    !HARMLESS.contains(&key) && !of_generation.contains(&key) && !has(&HARMLESS_PARTS) && has(&STRUCTURE)
}

/// Refuses weights that are stored quantised, whatever their quantiser: none is read from safetensors.
///
/// # Errors
/// The quantiser's name, and what to use instead.
pub(super) fn refuse_quantised(config: &Config) -> Result<()> {
    for name in ["quantization_config", "compression_config", "quantization"] {
        let Some(value) = config.value(name).filter(|value| **value != Value::Bool(false)) else { continue };
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
        let bits = match (flag("load_in_4bit"), flag("load_in_8bit")) {
            (true, _) => Some(4),
            (_, true) => Some(8),
            _ => ["bits", "w_bit", "nbits"].iter().find_map(|key| value.get(key).and_then(Value::as_u64)),
        };
        let known = text("quant_method").or(text("quant_algo"));
        let method = known.unwrap_or(if bits.is_some() && name == "quantization_config" {
            "bitsandbytes or a like method"
        } else {
            "a method that it does not name"
        });
        let bits = bits.map_or(String::new(), |bits| format!(", {bits} bits"));
        let found = format!("weights quantised by {method}{bits} ({name}), which are not read");
        return Err(Error::input(config.place(), found, crate::model::weights::UNQUANTISED));
    }
    Ok(())
}
