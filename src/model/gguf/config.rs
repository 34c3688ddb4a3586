//! GGUF metadata as a `config.json`: metadata in, the config that the same model has on the hub out.

use serde_json::{Map, Value, json};

use super::names::Names;
use crate::artifact::{GgufFile, GgufValue};
use crate::error::{Error, Result};
use crate::model::families::Config;

/// `general.architecture` of llama.cpp, and `model_type` on the hub.
const FAMILIES: [(&str, &str); 10] = [
    ("llama", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("qwen3moe", "qwen3_moe"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3_text"),
    ("phi3", "phi3"),
    ("olmo2", "olmo2"),
    ("gpt2", "gpt2"),
    ("gptneox", "gpt_neox"),
];

/// Keys of an architecture that are read here, and those that change no hidden state.
const KNOWN: [&str; 35] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "attn_logit_softcapping",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_feed_forward_length",
    "expert_used_count",
    "expert_weights_norm",
    "feed_forward_length",
    "final_logit_softcapping",
    "pooling_type",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "tensor_data_layout",
    "use_parallel_residual",
    "vocab_size",
    "classifier.output_labels",
    "attention.sliding_window_pattern",
];

/// Architectures whose windows are read.
const WITH_WINDOWS: [&str; 4] = ["gemma2", "gemma3", "phi3", "olmo2"];

/// Access to the metadata keys of one architecture.
struct Keys<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

/// The config, and the facts that tensor names depend on.
///
/// # Errors
/// An unknown architecture; a key that is missing or has an unsupported value.
pub(super) fn config(file: &GgufFile) -> Result<(Config, Names)> {
    let architecture = file.text("general.architecture")?.unwrap_or_default();
    let Some((_, family)) = FAMILIES.iter().find(|(known, _)| *known == architecture) else {
        let known = FAMILIES.map(|(known, _)| known).join(", ");
        let found = format!("general.architecture {architecture:?}");
        return Err(file.wrong(found, format!("a model of one of {known}")));
    };
    let keys = Keys { file, architecture };
    keys.refuse_unknown()?;
    let mut fields = match *family {
        "gpt2" => keys.gpt2()?,
        "gpt_neox" => keys.gpt_neox()?,
        "gemma2" | "gemma3_text" => keys.gemma()?,
        _ => keys.llama()?,
    };
    fields.insert("model_type".into(), json!(family));
    fields.insert("vocab_size".into(), json!(keys.side("token_embd.weight", 0)?));
    fields.insert("tie_word_embeddings".into(), json!(!keys.has("output.weight")));
    let heads = keys.count("attention.head_count")?;
    let filled = file.tensors().values().filter(|tensor| !tensor.shape.contains(&0));
    let longest = filled.flat_map(|tensor| &tensor.shape).copied().max().unwrap_or(0);
    let names = Names {
        architecture: architecture.into(),
        heads,
        kv_heads: keys.kv_heads()?,
        experts: keys.optional("expert_count")?.unwrap_or(0),
        longest,
    };
    let text = Value::Object(fields).to_string();
    let config = Config::parse(format!("{}, metadata", file.name()), text.as_bytes())?;
    Ok((config.of_gguf(), names))
}

impl Keys<'_> {
    /// Refuses a key of the architecture that says something about the computation and that nothing here reads.
    fn refuse_unknown(&self) -> Result<()> {
        let prefix = format!("{}.", self.architecture);
        let own =
            self.file.metadata().iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?, value)));
        for (key, value) in own {
            let harmless = match (key, value) {
                (_, GgufValue::Flag(false)) | ("attention.causal", GgufValue::Flag(true)) => true,
                ("attention.sliding_window", _) if WITH_WINDOWS.contains(&self.architecture) => true,
                // A window of the whole context is none.
                ("attention.sliding_window", value) => {
                    value.count() == Some(0) || value.count() >= self.optional("context_length")?
                }
                // 1 is the softmax of llama.cpp.
                ("expert_gating_func", value) => value.count() == Some(1),
                (_, GgufValue::Text(text)) => text.is_empty(),
                (key, value) if key.ends_with("scale") => [Some(0.0), Some(1.0)].contains(&value.number()),
                (_, value) => value.number() == Some(0.0),
            };
            if !harmless && !KNOWN.contains(&key) {
                return Err(self.wrong(
                    &self.key(key),
                    "a key of another computation",
                    "keys that are implemented",
                ));
            }
        }
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// An integer, or a list with the same integer for every block.
    fn optional(&self, name: &str) -> Result<Option<usize>> {
        let key = self.key(name);
        let Some(GgufValue::List(list)) = self.file.value(&key) else { return self.file.count(&key) };
        match list.as_slice() {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => match first.count() {
                Some(count) => Ok(Some(count)),
                None => Err(self.wrong(&key, "values that are not counts", "whole numbers from 0 up")),
            },
            _ => {
                Err(self.wrong(&key, "numbers that differ from block to block", "one number for all blocks"))
            }
        }
    }

    fn count(&self, name: &str) -> Result<usize> {
        let missing = || self.wrong(&self.key(name), "missing", "a whole number");
        self.optional(name)?.ok_or_else(missing)
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.file.number(&self.key(name))
    }

    fn wrong(&self, key: &str, found: &str, expected: &str) -> Error {
        self.file.wrong(format!("{key}: {found}"), expected)
    }

    fn has(&self, tensor: &str) -> bool {
        self.file.tensors().contains_key(tensor)
    }

    /// Length of dimension `side` of a tensor.
    fn side(&self, tensor: &str, side: usize) -> Result<usize> {
        let found = self.file.tensors().get(tensor).and_then(|tensor| tensor.shape.get(side));
        found.copied().ok_or_else(|| self.file.wrong(format!("no tensor {tensor}"), "a whole model"))
    }

    fn kv_heads(&self) -> Result<usize> {
        Ok(match self.optional("attention.head_count_kv")? {
            Some(count) => count,
            None => self.count("attention.head_count")?,
        })
    }

    /// Width of one head.
    fn head_width(&self) -> Result<usize> {
        let width = match self.optional("attention.key_length")? {
            Some(width) => width,
            None => self.count("embedding_length")? / self.count("attention.head_count")?.max(1),
        };
        match self.optional("attention.value_length")? {
            Some(values) if values != width => {
                let found = format!("{values}, and keys are {width} wide");
                Err(self.wrong(&self.key("attention.value_length"), &found, "values as wide as keys"))
            }
            _ => Ok(width),
        }
    }

    /// Fraction of a head that is rotated (RoPE).
    fn rotated(&self) -> Result<f64> {
        let width = self.head_width()?;
        let rotated = self.optional("rope.dimension_count")?.unwrap_or(width);
        if rotated > width {
            let key = self.key("rope.dimension_count");
            return Err(self.wrong(&key, &rotated.to_string(), &format!("at most {width}, a head's width")));
        }
        // The config's fraction is multiplied by the width and truncated; a little more than exact gives this number back.
        Ok(if rotated < width { (rotated as f64 + 0.25) / width as f64 } else { 1.0 })
    }

    /// Fields of Llama and the families derived from it.
    fn llama(&self) -> Result<Map<String, Value>> {
        if self.architecture == "llama" && self.optional("expert_count")?.unwrap_or(0) > 0 {
            return Err(self.wrong("llama.expert_count", "a model of experts (Mixtral)", "a model without"));
        }
        if self.architecture == "olmo2" && self.optional("attention.sliding_window")?.unwrap_or(0) > 0 {
            return Err(self.wrong("olmo2.attention.sliding_window", "a window (OLMo 3)", "OLMo 2"));
        }
        let mut fields = self.decoder()?;
        let bias = |leaf: &str| self.has(&format!("blk.0.{leaf}.bias"));
        let mut add = |name: &str, value: Value| drop(fields.insert(name.into(), value));
        add("hidden_act", json!("silu"));
        add("attention_bias", json!(bias("attn_q")));
        add("mlp_bias", json!(bias("ffn_up")));
        if self.architecture == "phi3" {
            // 0 means no window.
            let window = self.optional("attention.sliding_window")?.filter(|window| *window > 0);
            add("sliding_window", json!(window));
        }
        if self.architecture == "qwen3moe" {
            add("num_experts", json!(self.count("expert_count")?));
            add("num_experts_per_tok", json!(self.count("expert_used_count")?));
            add("moe_intermediate_size", json!(self.count("expert_feed_forward_length")?));
            // llama.cpp's default.
            let normalised = self.file.flag(&self.key("expert_weights_norm"))?;
            add("norm_topk_prob", json!(normalised.unwrap_or(true)));
            if self.optional("feed_forward_length")?.is_none_or(|width| width == 0) {
                // Every block has experts, so that the width of a dense MLP is never used.
                add("intermediate_size", json!(self.count("expert_feed_forward_length")?));
            }
        }
        Ok(fields)
    }

    fn gemma(&self) -> Result<Map<String, Value>> {
        let mut fields = self.decoder()?;
        let (heads, width) = (self.count("attention.head_count")?, self.count("embedding_length")?);
        // The file lacks the attention scale; llama.cpp recognises the largest models by their number of blocks.
        let largest = if self.architecture == "gemma2" { 46 } else { 62 };
        let scale = match self.count("block_count")? == largest {
            true => width / heads.max(1),
            false => self.head_width()?,
        };
        let mut add = |name: &str, value: Value| drop(fields.insert(name.into(), value));
        add("query_pre_attn_scalar", json!(scale));
        add("hidden_activation", json!("gelu_pytorch_tanh"));
        add("sliding_window", json!(self.optional("attention.sliding_window")?.filter(|window| *window > 0)));
        if let Some(base) = self.number("rope.freq_base_swa")? {
            add("rope_local_base_freq", json!(base));
        }
        let (scores, logits) =
            (self.number("attn_logit_softcapping")?, self.number("final_logit_softcapping")?);
        if self.architecture == "gemma2" {
            add("attn_logit_softcapping", json!(scores.unwrap_or(50.0)));
            add("final_logit_softcapping", json!(logits.unwrap_or(30.0)));
        } else {
            add("final_logit_softcapping", json!(logits));
        }
        match self.file.value(&self.key("attention.sliding_window_pattern")) {
            Some(GgufValue::List(list)) => {
                let kind = |kind: &GgufValue| match kind {
                    GgufValue::Flag(true) => "sliding_attention",
                    _ => "full_attention",
                };
                add("layer_types", json!(list.iter().map(kind).collect::<Vec<_>>()));
            }
            Some(GgufValue::Whole(every)) if *every > 0 => add("sliding_window_pattern", json!(every)),
            _ => (),
        }
        Ok(fields)
    }

    fn decoder(&self) -> Result<Map<String, Value>> {
        let fields = json!({
            "hidden_size": self.count("embedding_length")?,
            "num_hidden_layers": self.count("block_count")?,
            "intermediate_size": self.optional("feed_forward_length")?,
            "num_attention_heads": self.count("attention.head_count")?,
            "num_key_value_heads": self.kv_heads()?,
            "head_dim": self.head_width()?,
            "max_position_embeddings": self.count("context_length")?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.number("rope.freq_base")?.unwrap_or(10_000.0),
            "partial_rotary_factor": self.rotated()?,
            "rope_scaling": self.scaling()?,
        });
        Ok(object(fields))
    }

    fn gpt2(&self) -> Result<Map<String, Value>> {
        Ok(object(json!({
            "n_embd": self.count("embedding_length")?,
            "n_layer": self.count("block_count")?,
            "n_head": self.count("attention.head_count")?,
            "n_inner": self.count("feed_forward_length")?,
            "n_positions": self.side("position_embd.weight", 0)?,
            "layer_norm_epsilon": self.number("attention.layer_norm_epsilon")?,
            "activation_function": "gelu_new",
        })))
    }

    fn gpt_neox(&self) -> Result<Map<String, Value>> {
        let parallel = self.file.flag(&self.key("use_parallel_residual"))?;
        Ok(object(json!({
            "hidden_size": self.count("embedding_length")?,
            "num_hidden_layers": self.count("block_count")?,
            "num_attention_heads": self.count("attention.head_count")?,
            "intermediate_size": self.count("feed_forward_length")?,
            "max_position_embeddings": self.count("context_length")?,
            "layer_norm_eps": self.number("attention.layer_norm_epsilon")?,
            "hidden_act": "gelu",
            "use_parallel_residual": parallel.unwrap_or(true),
            "attention_bias": self.has("blk.0.attn_qkv.bias"),
            "rotary_pct": self.rotated()?,
            "rotary_emb_base": self.number("rope.freq_base")?.unwrap_or(10_000.0),
        })))
    }

    /// `rope_scaling` of the config, or null.
    fn scaling(&self) -> Result<Value> {
        let context = self.count("context_length")?;
        let original = self.optional("rope.scaling.original_context_length")?.unwrap_or(context);
        let attention = self.number("rope.scaling.attn_factor")?;
        let factors = |name: &str| self.floats(name);
        if let (Some(long), Some(short)) =
            (factors("rope_factors_long.weight")?, factors("rope_factors_short.weight")?)
        {
            return Ok(json!({
                "rope_type": "longrope", "long_factor": long, "short_factor": short,
                "original_max_position_embeddings": original, "attention_factor": attention,
            }));
        }
        if let Some(factors) = factors("rope_freqs.weight")? {
            // Llama 3's scaling as one factor per pair, independent of length.
            return Ok(json!({
                "rope_type": "longrope", "long_factor": factors, "short_factor": factors,
                "original_max_position_embeddings": context, "factor": 1.0, "attention_factor": 1.0,
            }));
        }
        // The factor's key in files from before scaling types.
        let early = self.number("rope.scale_linear")?.filter(|factor| *factor != 1.0);
        let factor = self.number("rope.scaling.factor")?.filter(|factor| *factor > 0.0);
        let kind = self.file.text(&self.key("rope.scaling.type"))?;
        Ok(match (kind, factor.or(early)) {
            (Some("linear"), Some(factor)) | (None, Some(factor)) => {
                json!({"rope_type": "linear", "factor": factor})
            }
            (Some("yarn"), Some(factor)) => json!({
                "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
                "beta_fast": self.number("rope.scaling.yarn_beta_fast")?,
                "beta_slow": self.number("rope.scaling.yarn_beta_slow")?,
                "attention_factor": self.number("rope.scaling.yarn_attn_factor")?.or(attention),
            }),
            (None | Some("none" | "linear" | "yarn" | "longrope"), _) => Value::Null,
            (Some(other), _) => {
                let key = self.key("rope.scaling.type");
                return Err(self.wrong(&key, other, "none, linear, yarn or longrope"));
            }
        })
    }

    /// Elements of an f32 vector; `None` if missing.
    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.file.tensors().get(name) else { return Ok(None) };
        if tensor.kind.name != "F32" || tensor.shape.len() != 1 {
            let found = format!("tensor {name} of type {} and shape {:?}", tensor.kind.name, tensor.shape);
            return Err(self.file.wrong(found, "a list of f32 numbers"));
        }
        let bytes = self.file.tensor_bytes(tensor).as_chunks().0;
        let numbers: Vec<f32> = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        match numbers.iter().find(|number| !(number.is_finite() && **number > 0.0)) {
            Some(number) => {
                Err(self.file.wrong(format!("{number} in tensor {name}"), "finite numbers above 0"))
            }
            None => Ok(Some(numbers)),
        }
    }
}

/// Fields of an object without those that are null: in a config, null and missing differ.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            fields
        }
        _ => Map::new(),
    }
}
