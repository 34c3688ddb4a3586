//! Typed access to the metadata of one architecture of a GGUF file.

use std::ops::Range;

use serde_json::{Value, json};

use super::families::Family;
use super::split::Files;
use crate::artifact::{GgufFile, GgufValue};
use crate::error::{Error, Result};

/// Keys of an architecture that are read here, and those that change no hidden state.
const KNOWN: [&str; 37] = [
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
    "rope.dimension_sections",
    "n_deepstack_layers",
];

/// Access to the metadata keys of one architecture.
pub(super) struct Keys<'a> {
    /// The file with the metadata.
    pub file: &'a GgufFile,
    pub files: &'a Files,
    pub architecture: &'a str,
}

impl Keys<'_> {
    /// Refuses a key of the architecture that says something about the computation and that nothing here reads.
    ///
    /// # Errors
    /// The first such key.
    pub fn refuse_unknown(&self, family: &Family) -> Result<()> {
        let prefix = format!("{}.", self.architecture);
        let own =
            self.file.metadata().iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?, value)));
        for (key, value) in own {
            let harmless = match (key, value) {
                // Granite's switch for rotation.
                ("rope.scaling.finetuned", value) if self.architecture.starts_with("granite") => {
                    *value == GgufValue::Flag(true)
                }
                (_, GgufValue::Flag(false)) | ("attention.causal", GgufValue::Flag(true)) => true,
                ("attention.sliding_window", _) if family.has_windows() => true,
                // A window of the whole context is none.
                ("attention.sliding_window", value) => {
                    value.count() == Some(0) || value.count() >= self.optional("context_length")?
                }
                ("expert_gating_func", value) => value.count() == Some(family.gating()),
                (key, _) if family.reads(key) => true,
                (_, GgufValue::Text(text)) => text.is_empty(),
                (key, value) if key.ends_with("scale") => [Some(0.0), Some(1.0)].contains(&value.number()),
                (_, value) => value.number() == Some(0.0),
            };
            let granite = key == "rope.scaling.finetuned" && self.architecture.starts_with("granite");
            if !harmless && (granite || !KNOWN.contains(&key)) {
                return Err(self.wrong(
                    &self.key(key),
                    "a key of another computation",
                    "keys that are implemented",
                ));
            }
        }
        Ok(())
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// An integer, or a list with the same integer for every block.
    pub fn optional(&self, name: &str) -> Result<Option<usize>> {
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

    pub fn count(&self, name: &str) -> Result<usize> {
        let missing = || self.wrong(&self.key(name), "missing", "a whole number");
        self.optional(name)?.ok_or_else(missing)
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        self.file.number(&self.key(name))
    }

    pub fn wrong(&self, key: &str, found: &str, expected: &str) -> Error {
        self.file.wrong(format!("{key}: {found}"), expected)
    }

    pub fn has(&self, tensor: &str) -> bool {
        self.files.tensor(tensor).is_some()
    }

    /// Length of dimension `side` of a tensor.
    pub fn side(&self, tensor: &str, side: usize) -> Result<usize> {
        let found = self.files.tensor(tensor).and_then(|(_, tensor)| tensor.shape.get(side));
        found.copied().ok_or_else(|| self.file.wrong(format!("no tensor {tensor}"), "a whole model"))
    }

    /// One count a block, from a list or from one number for all.
    pub fn per_block(&self, name: &str, blocks: usize) -> Result<Vec<usize>> {
        let key = self.key(name);
        let Some(GgufValue::List(list)) = self.file.value(&key) else {
            return Ok(vec![self.count(name)?; blocks]);
        };
        let counts: Option<Vec<usize>> = list.iter().map(GgufValue::count).collect();
        let counts = counts.filter(|counts| counts.len() == blocks && !counts.is_empty());
        counts
            .ok_or_else(|| self.wrong(&key, "another list", &format!("{blocks} whole numbers, one a block")))
    }

    /// Whether each block has a sliding window, from a list with an entry for each.
    pub fn sliding(&self, blocks: usize) -> Result<Vec<bool>> {
        let key = self.key("attention.sliding_window_pattern");
        let flags = match self.file.value(&key) {
            Some(GgufValue::List(list)) => list
                .iter()
                .map(|value| match value {
                    GgufValue::Flag(flag) => Some(*flag),
                    other => other.count().map(|count| count > 0),
                })
                .collect::<Option<Vec<bool>>>(),
            _ => None,
        };
        let flags = flags.filter(|flags| flags.len() == blocks);
        flags.ok_or_else(|| self.wrong(&key, "no such list", &format!("{blocks} entries, true or false")))
    }

    pub fn kv_heads(&self) -> Result<usize> {
        if let Some(GgufValue::List(list)) = self.file.value(&self.key("attention.head_count_kv"))
            && self.architecture == "gemma4"
        {
            // Of no consequence to its tensors' layout.
            return Ok(list.first().and_then(GgufValue::count).unwrap_or(1));
        }
        Ok(match self.optional("attention.head_count_kv")? {
            Some(count) => count,
            None => self.count("attention.head_count")?,
        })
    }

    /// The numbers of the blocks that predict further tokens, after the model's own.
    pub fn predicting(&self) -> Result<Range<usize>> {
        let blocks = self.count("block_count")?;
        Ok(blocks.saturating_sub(self.optional("nextn_predict_layers")?.unwrap_or(0))..blocks)
    }

    /// Width of one head.
    pub fn head_width(&self) -> Result<usize> {
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
    pub fn rotated(&self) -> Result<f64> {
        let width = self.head_width()?;
        let rotated = self.optional("rope.dimension_count")?.unwrap_or(width);
        if rotated > width {
            let key = self.key("rope.dimension_count");
            return Err(self.wrong(&key, &rotated.to_string(), &format!("at most {width}, a head's width")));
        }
        // The config's fraction is multiplied by the width and truncated; a little more than exact gives this number back.
        Ok(if rotated < width { (rotated as f64 + 0.25) / width as f64 } else { 1.0 })
    }

    /// `rope_scaling` of the config, or null.
    pub fn scaling(&self) -> Result<Value> {
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
    pub fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some((file, tensor)) = self.files.tensor(name) else { return Ok(None) };
        if tensor.kind.name != "F32" || tensor.shape.len() != 1 {
            let found = format!("tensor {name} of type {} and shape {:?}", tensor.kind.name, tensor.shape);
            return Err(file.wrong(found, "a list of f32 numbers"));
        }
        let bytes = file.tensor_bytes(tensor).as_chunks().0;
        let numbers: Vec<f32> = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        match numbers.iter().find(|number| !(number.is_finite() && **number > 0.0)) {
            Some(number) => Err(file.wrong(format!("{number} in tensor {name}"), "finite numbers above 0")),
            None => Ok(Some(numbers)),
        }
    }
}
