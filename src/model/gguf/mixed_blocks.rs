//! Config fields of the families whose blocks differ in more than windows, or whose attention is not of plain heads: Gemma 3n and 4,
//! DeepSeek, and Qwen with delta nets.

use serde_json::{Map, Value, json};

use super::families::Family;
use super::fields::object;
use super::keys::Keys;
use crate::artifact::GgufValue;
use crate::error::Result;

impl Keys<'_> {
    /// Whether some block has a gated delta net.
    pub fn has_delta(&self) -> bool {
        ["qwen3next", "qwen35", "qwen35moe"].contains(&self.architecture)
    }

    /// The heads of the delta nets: key and value heads, their widths, and the span of the convolution.
    ///
    /// # Errors
    /// A key that is missing; values that don't divide into heads.
    pub fn delta(&self) -> Result<[usize; 5]> {
        let (keys, values) = (self.count("ssm.group_count")?, self.count("ssm.time_step_rank")?);
        let all = self.count("ssm.inner_size")?;
        if values == 0 || !all.is_multiple_of(values) || keys == 0 {
            let found = format!("{all} in {values} heads");
            return Err(self.wrong(&self.key("ssm.inner_size"), &found, "heads of equal width"));
        }
        Ok([keys, values, self.count("ssm.state_size")?, all / values, self.count("ssm.conv_kernel")?])
    }

    pub(super) fn with_delta(&self, fields: &mut Map<String, Value>) -> Result<()> {
        let [keys, values, key_width, value_width, span] = self.delta()?;
        let blocks = self.predicting()?.start;
        // A file can claim any number, and each block has a tensor at least.
        if blocks > self.files.tensors().count() {
            let key = self.key("block_count");
            return Err(self.wrong(&key, &blocks.to_string(), "no more blocks than tensors"));
        }
        let kind = |block: usize| match self.has(&format!("blk.{block}.ssm_a")) {
            true => "linear_attention",
            false => "full_attention",
        };
        let kinds: Vec<&str> = (0..blocks).map(kind).collect();
        fields.extend(object(json!({
            "linear_num_key_heads": keys, "linear_num_value_heads": values,
            "linear_key_head_dim": key_width, "linear_value_head_dim": value_width,
            "linear_conv_kernel_dim": span, "layer_types": kinds,
            "linear_value_heads_tiled": self.architecture != "qwen3next" && keys != values,
        })));
        Ok(())
    }

    /// DeepSeek V2 and V3.
    pub(super) fn deepseek(&self, family: &Family) -> Result<Map<String, Value>> {
        let (heads, rotated) = (self.count("attention.head_count")?, self.count("rope.dimension_count")?);
        // Of a file whose keys and values are split, the plain keys are those of the narrow vectors.
        let own = |mla: &str, plain: &str| match self.optional(mla)? {
            Some(width) => Ok(width),
            None => self.count(plain),
        };
        let width = own("attention.key_length_mla", "attention.key_length")?;
        let value_width = own("attention.value_length_mla", "attention.value_length")?;
        let Some(plain) = width.checked_sub(rotated).filter(|plain| *plain > 0) else {
            let found = format!("{rotated}, of keys {width} wide");
            return Err(self.wrong(&self.key("rope.dimension_count"), &found, "fewer"));
        };
        let groups = self.optional("expert_group_count")?.unwrap_or(1).max(1);
        let mut fields = object(json!({
            "hidden_act": "silu",
            "hidden_size": self.count("embedding_length")?,
            "num_hidden_layers": self.predicting()?.start,
            "intermediate_size": self.count("feed_forward_length")?,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": self.count("context_length")?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.number("rope.freq_base")?.unwrap_or(10_000.0),
            "qk_nope_head_dim": plain,
            "qk_rope_head_dim": rotated,
            "v_head_dim": value_width,
            "kv_lora_rank": self.count("attention.kv_lora_rank")?,
            "attention_bias": self.has("blk.0.attn_kv_a_mqa.bias"),
            "first_k_dense_replace": self.optional("leading_dense_block_count")?.unwrap_or(0),
            "n_routed_experts": self.count("expert_count")?,
            "num_experts_per_tok": self.count("expert_used_count")?,
            "moe_intermediate_size": self.count("expert_feed_forward_length")?,
            "n_shared_experts": self.count("expert_shared_count")?,
            "routed_scaling_factor": self.number("expert_weights_scale")?.filter(|scale| *scale != 0.0).unwrap_or(1.0),
            "norm_topk_prob": self.file.flag(&self.key("expert_weights_norm"))?.unwrap_or(false),
            "n_group": groups,
            "topk_group": self.optional("expert_group_used_count")?.unwrap_or(1).max(1),
            "rope_scaling": self.scaling_of_deepseek()?,
        }));
        // No rank means queries of the stream itself, and a missing field the default.
        fields.insert(
            "q_lora_rank".into(),
            json!(self.optional("attention.q_lora_rank")?.filter(|rank| *rank > 0)),
        );
        match family.model_type {
            "deepseek_v3" => fields.insert("num_nextn_predict_layers".into(), json!(0)),
            _ => {
                let method = if groups > 1 { "group_limited_greedy" } else { "greedy" };
                fields.insert("topk_method".into(), json!(method))
            }
        };
        Ok(fields)
    }

    /// The scaling of the rotation; the factor of YaRN's scores is there a tenth of the hub's `mscale_all_dim`.
    fn scaling_of_deepseek(&self) -> Result<Value> {
        let mut scaling = self.scaling()?;
        let Value::Object(parameters) = &mut scaling else { return Ok(scaling) };
        if parameters.get("rope_type") == Some(&json!("yarn")) {
            let key = "rope.scaling.yarn_log_multiplier";
            let Some(multiplier) = self.number(key)?.filter(|multiplier| *multiplier > 0.0) else {
                return Err(self.wrong(&self.key(key), "missing", "a number beside yarn"));
            };
            // The file has one of two factors, which are the same in the models that there are; a text keeps its digits.
            let factor = (multiplier * 10.0 * 1e6).round() / 1e6;
            parameters.insert("mscale".into(), json!(factor));
            parameters.insert("mscale_all_dim".into(), json!(factor));
            parameters.remove("attention_factor");
        }
        parameters.retain(|_, value| !value.is_null());
        Ok(scaling)
    }

    /// What Gemma 3n and 4 have in common.
    fn later_gemma(&self, sliding: &[bool]) -> Result<Map<String, Value>> {
        let kind = |sliding: &bool| if *sliding { "sliding_attention" } else { "full_attention" };
        Ok(object(json!({
            "hidden_size": self.count("embedding_length")?,
            "num_hidden_layers": sliding.len(),
            "num_attention_heads": self.count("attention.head_count")?,
            "max_position_embeddings": self.count("context_length")?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon")?,
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": self.has("blk.0.attn_q.bias"),
            "sliding_window": self.count("attention.sliding_window")?,
            "layer_types": sliding.iter().map(kind).collect::<Vec<_>>(),
            "num_kv_shared_layers": self.optional("attention.shared_kv_layers")?.unwrap_or(0),
            "hidden_size_per_layer_input": self.optional("embedding_length_per_layer_input")?.unwrap_or(0),
            "final_logit_softcapping": self.number("final_logit_softcapping")?,
        })))
    }

    /// Gemma 3n.
    pub(super) fn gemma3n(&self) -> Result<Map<String, Value>> {
        let blocks = self.count("block_count")?;
        let mut fields = self.later_gemma(&self.sliding(blocks)?)?;
        let key = self.key("activation_sparsity_scale");
        let deviations = self.file.list(&key)?.filter(|list| list.len() == blocks);
        let deviations: Option<Vec<f64>> =
            deviations.and_then(|list| list.iter().map(GgufValue::number).collect());
        let Some(deviations) = deviations else {
            return Err(self.wrong(&key, "no such list", &format!("{blocks} numbers, one a block")));
        };
        // Below all numbers: no gate is left out.
        let deviations: Vec<Option<f64>> =
            deviations.into_iter().map(|number| Some(number).filter(|number| number.is_finite())).collect();
        fields.extend(object(json!({
            "intermediate_size": self.per_block("feed_forward_length", blocks)?,
            "num_key_value_heads": self.kv_heads()?,
            "head_dim": self.head_width()?,
            "rope_theta": self.number("rope.freq_base")?.unwrap_or(1e6),
            "rope_local_base_freq": self.number("rope.freq_base_swa")?.unwrap_or(1e4),
            "vocab_size_per_layer_input": self.side("per_layer_token_embd.weight", 0)?,
            "laurel_rank": self.side("blk.0.laurel_l.weight", 0)?,
            "altup_num_inputs": self.count("altup.num_inputs")?,
            "altup_active_idx": self.optional("altup.active_idx")?,
            "activation_sparsity_scale": deviations,
        })));
        Ok(fields)
    }

    /// Gemma 4.
    pub(super) fn gemma4(&self) -> Result<Map<String, Value>> {
        let blocks = self.count("block_count")?;
        let sliding = self.sliding(blocks)?;
        let mut fields = self.later_gemma(&sliding)?;
        let own = blocks.saturating_sub(self.optional("attention.shared_kv_layers")?.unwrap_or(0));
        let global = self.head_width()?;
        let local = self.optional("attention.key_length_swa")?.unwrap_or(global);
        if self.optional("attention.value_length_swa")?.is_some_and(|width| width != local) {
            let key = self.key("attention.value_length_swa");
            return Err(self.wrong(&key, "another width than that of the keys", "values as wide as keys"));
        }
        let hidden = self.per_block("feed_forward_length", blocks)?;
        let first = hidden.first().copied().unwrap_or(0);
        let double = first.saturating_mul(2);
        let wide = hidden.last() == Some(&double);
        let width_of = |block: usize| if wide && block >= own { double } else { first };
        if hidden.iter().enumerate().any(|(block, width)| *width != width_of(block)) {
            let expected = "one width, or twice as much in the blocks that share keys and values";
            return Err(self.wrong(&self.key("feed_forward_length"), "other widths", expected));
        }
        let heads = self.per_block("attention.head_count_kv", blocks)?;
        let of =
            |kind: bool| sliding.iter().zip(&heads).find(|(one, _)| **one == kind).map(|(_, heads)| *heads);
        let without_values =
            |block: &usize| !sliding[*block] && !self.has(&format!("blk.{block}.attn_v.weight"));
        let keys_as_values = (0..own).any(|block| without_values(&block));
        fields.extend(object(json!({
            "intermediate_size": first,
            "use_double_wide_mlp": wide,
            "head_dim": local,
            "global_head_dim": global,
            "num_key_value_heads": of(true).or(of(false)),
            "num_global_key_value_heads": of(false),
            "attention_k_eq_v": keys_as_values,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "proportional",
                    "rope_theta": self.number("rope.freq_base")?.unwrap_or(1e6),
                    "partial_rotary_factor": self.turning(global)?,
                },
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": self.number("rope.freq_base_swa")?.unwrap_or(1e4),
                },
            },
        })));
        if self.optional("embedding_length_per_layer_input")?.is_some_and(|width| width > 0) {
            let vocabulary = self.side("per_layer_token_embd.weight", 0)?;
            fields.insert("vocab_size_per_layer_input".into(), json!(vocabulary));
        }
        if self.optional("expert_count")?.is_some_and(|count| count > 0) {
            fields.extend(object(json!({
                "enable_moe_block": true,
                "num_experts": self.count("expert_count")?,
                "top_k_experts": self.count("expert_used_count")?,
                "moe_intermediate_size": self.count("expert_feed_forward_length")?,
            })));
        }
        Ok(fields)
    }

    /// The share of the pairs of a head that turn, from the factors of all: 1, or so large that a pair stands still.
    fn turning(&self, width: usize) -> Result<f64> {
        let name = "rope_freqs.weight";
        let Some(factors) = self.floats(name)? else {
            return Err(self.file.wrong(format!("no tensor {name}"), "a factor for each pair of a head"));
        };
        let turning = factors.iter().take_while(|factor| **factor == 1.0).count();
        let rest = factors.iter().skip(turning).all(|factor| *factor >= 1e20);
        if factors.len() != width / 2 || !rest {
            let found = format!("{} factors in tensor {name}", factors.len());
            let expected = format!("{}, first 1 and then 1e30", width / 2);
            return Err(self.file.wrong(found, expected));
        }
        // The config's share is multiplied by the width and truncated.
        Ok(if turning == width / 2 { 1.0 } else { (2.0 * turning as f64 + 0.5) / width as f64 })
    }
}
