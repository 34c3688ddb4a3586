//! GGUF metadata as a `config.json`: metadata in, the config that the same model has on the hub out.

use serde_json::{Value, json};

use super::delta_names::DeltaNames;
use super::families::FAMILIES;
use super::fields::fields;
use super::keys::Keys;
use super::names::Names;
use super::split::Files;
use crate::error::Result;
use crate::model::families::Config;

/// The config, and the facts that tensor names depend on.
///
/// # Errors
/// An unknown architecture; a key that is missing or has an unsupported value.
pub(super) fn config(files: &Files) -> Result<(Config, Names)> {
    let file = &files.first;
    let architecture = file.text("general.architecture")?.unwrap_or_default();
    let keys = Keys { file, files, architecture };
    let mut family = None;
    for known in FAMILIES.iter().filter(|known| known.architecture == architecture) {
        let least = known.when.map_or(0, |(_, least)| least);
        let holds = known.when.map(|(key, _)| keys.optional(key)).transpose()?;
        if family.is_none() && holds.is_none_or(|count| count.is_some_and(|count| count >= least)) {
            family = Some(known);
        }
    }
    let Some(family) = family else {
        let mut known: Vec<&str> = FAMILIES.iter().map(|known| known.architecture).collect();
        known.dedup();
        let found = format!("general.architecture {architecture:?}");
        return Err(file.wrong(found, format!("a model of one of {}", known.join(", "))));
    };
    keys.refuse_unknown(family)?;
    let mut fields = fields(&keys, family)?;
    fields.insert("model_type".into(), json!(family.model_type));
    fields.insert("vocab_size".into(), json!(keys.side("token_embd.weight", 0)?));
    fields.insert("tie_word_embeddings".into(), json!(!keys.has("output.weight")));
    let heads = keys.count("attention.head_count")?;
    let filled = files.tensors().filter(|tensor| !tensor.shape.contains(&0));
    let longest = filled.flat_map(|tensor| &tensor.shape).copied().max().unwrap_or(0);
    let names = Names {
        architecture: architecture.into(),
        heads,
        kv_heads: keys.kv_heads()?,
        experts: keys.optional("expert_count")?.unwrap_or(0),
        longest,
        predicting: keys.predicting()?,
        fused_experts: files.names().any(|name| name.ends_with(".ffn_gate_up_exps.weight")),
        fused_latent: files.names().any(|name| name.ends_with(".attn_kv_b.weight")),
        streams: keys.optional("altup.num_inputs")?.unwrap_or(1).saturating_sub(1),
        delta: match keys.has_delta() {
            true => {
                let [count, values, key_width, value_width, _] = keys.delta()?;
                let tiled = architecture != "qwen3next" && values != count;
                Some(DeltaNames { keys: count, values, key_width, value_width, tiled })
            }
            false => None,
        },
    };
    let text = Value::Object(fields).to_string();
    let config = Config::parse(format!("{}, metadata", file.name()), text.as_bytes())?;
    Ok((config.of_gguf(), names))
}
