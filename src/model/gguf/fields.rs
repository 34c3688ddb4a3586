//! The fields of a config from the metadata of a GGUF file, as the same model has them on the hub.

use serde_json::{Map, Value, json};

use super::families::{Family, Field};
use super::keys::Keys;
use crate::artifact::GgufValue;
use crate::error::Result;

/// The fields that differ from family to family.
///
/// # Errors
/// A key that is missing or has an unsupported value.
pub(super) fn fields(keys: &Keys, family: &Family) -> Result<Map<String, Value>> {
    match family.model_type {
        "gpt2" => keys.gpt2(),
        "gpt_neox" => keys.gpt_neox(),
        "gemma2" | "gemma3_text" => keys.gemma(),
        "gemma3n_text" => keys.gemma3n(),
        "gemma4_text" => keys.gemma4(),
        "deepseek_v2" | "deepseek_v3" => keys.deepseek(family),
        _ => keys.by_table(family),
    }
}

impl Keys<'_> {
    /// Fields of Llama and the families derived from it.
    fn by_table(&self, family: &Family) -> Result<Map<String, Value>> {
        let mut fields = self.decoder()?;
        let mut add = |name: &str, value: Value| drop(fields.insert(name.into(), value));
        add("hidden_act", json!("silu"));
        for field in family.fields {
            match *field {
                Field::Count(key, name) => add(name, json!(self.count(key)?)),
                Field::Optional(key, name) => {
                    if let Some(count) = self.optional(key)? {
                        add(name, json!(count));
                    }
                }
                Field::Number(key, name) => {
                    if let Some(number) = self.number(key)? {
                        add(name, json!(number));
                    }
                }
                Field::Flag(key, name, default) => {
                    add(name, json!(self.file.flag(&self.key(key))?.unwrap_or(default)));
                }
                Field::Has(name, tensor) => add(name, json!(self.has(tensor))),
                Field::Lacks(name, tensor) => add(name, json!(!self.has(tensor))),
                Field::Own(_) => (),
            }
        }
        self.own(family, &mut fields)?;
        Ok(fields)
    }

    /// What one family has and a table can't say.
    fn own(&self, family: &Family, fields: &mut Map<String, Value>) -> Result<()> {
        match family.model_type {
            "phi3" | "phimoe" => {
                // 0 means no window.
                let window = self.optional("attention.sliding_window")?.filter(|window| *window > 0);
                fields.insert("sliding_window".into(), json!(window));
            }
            // Every block has experts, so that the width of a dense MLP is never used.
            "qwen3_moe" if self.optional("feed_forward_length")?.is_none_or(|width| width == 0) => {
                let width = self.count("expert_feed_forward_length")?;
                fields.insert("intermediate_size".into(), json!(width));
            }
            "granite" | "granitemoe" if !fields.contains_key("attention_multiplier") => {
                let scale = (self.head_width()? as f64).powf(-0.5);
                fields.insert("attention_multiplier".into(), json!(scale));
            }
            "llama4_text" => {
                // llama.cpp knows the model without these norms by its number of experts.
                let count = self.count("expert_count")?;
                fields.insert("use_qk_norm".into(), json!(count != 128));
            }
            "qwen3_next" | "qwen3_5_text" | "qwen3_5_moe_text" => {
                fields.insert("num_hidden_layers".into(), json!(self.predicting()?.start));
                self.with_delta(fields)?;
            }
            "glm4_moe" => {
                // The blocks that predict further tokens are counted with the others in the file.
                fields.insert("num_hidden_layers".into(), json!(self.predicting()?.start));
                fields.insert("num_nextn_predict_layers".into(), json!(0));
            }
            "olmo3" => {
                let local = json!({"rope_theta": fields.get("rope_theta"), "rope_type": "default"});
                let global = with_base(fields);
                fields.insert(
                    "rope_parameters".into(),
                    json!({"full_attention": global, "sliding_attention": local}),
                );
                if let Some(kinds) = self.kinds() {
                    fields.insert("layer_types".into(), kinds);
                }
            }
            "ministral3" => {
                let mut rope = with_base(fields);
                let beta = self.number("attention.temperature_scale")?.filter(|beta| *beta != 0.0);
                let multiplier = self.number("rope.scaling.yarn_log_multiplier")?.filter(|one| *one != 0.0);
                if let (Value::Object(rope), Some(beta)) = (&mut rope, beta) {
                    let original = self.optional("rope.scaling.original_context_length")?;
                    rope.insert("llama_4_scaling_beta".into(), json!(beta));
                    let original = original.unwrap_or(self.count("context_length")?);
                    rope.insert("original_max_position_embeddings".into(), json!(original));
                }
                if let (Value::Object(rope), Some(multiplier)) = (&mut rope, multiplier) {
                    // The file has one of the two factors, which are the same in the models that there are.
                    rope.insert("mscale".into(), json!(multiplier));
                    rope.insert("mscale_all_dim".into(), json!(multiplier));
                    rope.remove("attention_factor");
                }
                fields.insert("rope_parameters".into(), rope);
            }
            "gpt_oss" => {
                if let Some(Value::Object(scaling)) = fields.get_mut("rope_scaling") {
                    scaling.insert("truncate".into(), json!(false));
                } else {
                    // Without parameters, the family has a scaling of its own.
                    let rope = with_base(fields);
                    fields.insert("rope_parameters".into(), rope);
                }
            }
            _ => (),
        }
        if family.model_type == "phimoe"
            && let Some(Value::Object(scaling)) = fields.get_mut("rope_scaling")
            && let Some(factor) = scaling.remove("attention_factor")
        {
            scaling.insert("short_mscale".into(), factor.clone());
            scaling.insert("long_mscale".into(), factor);
        }
        Ok(())
    }

    /// `layer_types`, from the list of blocks with windows.
    fn kinds(&self) -> Option<Value> {
        let kind = |kind: &GgufValue| match kind {
            GgufValue::Flag(true) => "sliding_attention",
            _ => "full_attention",
        };
        match self.file.value(&self.key("attention.sliding_window_pattern")) {
            Some(GgufValue::List(list)) => Some(json!(list.iter().map(kind).collect::<Vec<_>>())),
            _ => None,
        }
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
            Some(GgufValue::List(_)) => {
                if let Some(kinds) = self.kinds() {
                    add("layer_types", kinds);
                }
            }
            Some(GgufValue::Whole(every)) if *every > 0 => add("sliding_window_pattern", json!(every)),
            _ => (),
        }
        Ok(fields)
    }

    pub(super) fn decoder(&self) -> Result<Map<String, Value>> {
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
}

/// Takes the rotary fields of a config out of it, as one object.
fn with_base(fields: &mut Map<String, Value>) -> Value {
    let mut rope = match fields.remove("rope_scaling") {
        Some(Value::Object(scaling)) => scaling,
        _ => object(json!({"rope_type": "default"})),
    };
    rope.extend(fields.remove("rope_theta").map(|base| ("rope_theta".into(), base)));
    rope.extend(fields.remove("partial_rotary_factor").map(|share| ("partial_rotary_factor".into(), share)));
    Value::Object(rope)
}

/// Fields of an object without those that are null: in a config, null and missing differ.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            fields
        }
        _ => Map::new(),
    }
}
