//! How a checkpoint's matrices are quantised, from `quantization_config` of its config.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::weights::UNQUANTISED;

/// A quantisation of safetensors that is read, by dequantising.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantisation {
    /// Its name, with the bits where they are said.
    name: String,
    pub(super) method: Method,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Method {
    /// Floats or integers of 8 bits with scales, or packed integers; with the rows and columns of a block, if scales go by blocks.
    Scaled { block: Option<[usize; 2]> },
    /// bitsandbytes: NF4 and FP4, or int8.
    BitsAndBytes,
    /// GPTQ. `offset`: 1 where zero points are stored less one (its first format).
    Gptq { offset: u32 },
    /// AWQ in its layout for matrix products.
    Awq,
}

/// The quantisations that are read, for errors.
pub(crate) const READ: &str = "fp8, compressed-tensors, fbgemm_fp8, bitsandbytes, gptq or awq";

/// Formats of compressed-tensors that are read.
const COMPRESSED: [&str; 5] =
    ["dense", "float-quantized", "int-quantized", "naive-quantized", "pack-quantized"];

impl Quantisation {
    /// Reads `quantization_config` (or an older key, `name`) of a config.
    ///
    /// # Errors
    /// [`Error::Input`] for a method that is not read, by its name and with what converts it, or settings of it that are not.
    pub(crate) fn parse(place: &str, name: &str, value: &Value) -> Result<Quantisation> {
        let fields = Fields { place, name, value };
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
        let bits = match (flag("load_in_4bit"), flag("load_in_8bit")) {
            (true, _) => Some(4),
            (_, true) => Some(8),
            _ => ["bits", "w_bit", "nbits"].iter().find_map(|key| value.get(key).and_then(Value::as_u64)),
        };
        let known = fields.text("quant_method").or(fields.text("quant_algo"));
        let known =
            known.or_else(|| (flag("load_in_4bit") || flag("load_in_8bit")).then_some("bitsandbytes"));
        let shown = known.unwrap_or(match bits.is_some() && name == "quantization_config" {
            true => "bitsandbytes or a like method",
            false => "a method that it does not name",
        });
        let shown = format!("{shown}{}", bits.map_or(String::new(), |bits| format!(", {bits} bits")));
        let method = match known {
            Some("fp8") => {
                fields.only("fmt", &["e4m3"])?;
                Method::Scaled { block: fields.block(value.get("weight_block_size"))? }
            }
            Some("fbgemm_fp8") => Method::Scaled { block: None },
            Some("compressed-tensors") => fields.compressed_tensors()?,
            Some("bitsandbytes") => Method::BitsAndBytes,
            Some("gptq") => {
                let ends = ["gptq", "gptq_v2"];
                fields.only("checkpoint_format", &ends)?;
                fields.only("format", &ends)?;
                fields.only("pack_dtype", &["int32"])?;
                if flag("is_marlin_format") {
                    return Err(fields.refused("is_marlin_format is true", "the layout of GPTQ itself"));
                }
                if !matches!(bits, None | Some(2 | 4 | 8)) {
                    return Err(
                        fields.refused(&format!("gptq of {} bits", bits.unwrap_or(0)), "2, 4 or 8 bits")
                    );
                }
                let second =
                    ["checkpoint_format", "format"].iter().any(|key| fields.text(key) == Some("gptq_v2"));
                Method::Gptq { offset: if second { 0 } else { 1 } }
            }
            Some("awq") => {
                for key in ["version", "format"] {
                    if let Some(text) = fields.text(key).filter(|text| !text.eq_ignore_ascii_case("gemm")) {
                        return Err(fields.refused(&format!("awq with {key} {text}"), "gemm"));
                    }
                }
                if !matches!(bits, None | Some(4)) {
                    return Err(fields.refused(&format!("awq of {} bits", bits.unwrap_or(0)), "4 bits"));
                }
                if value.get("zero_point") == Some(&Value::Bool(false)) {
                    return Err(fields.refused("awq with zero_point false", "zero_point true"));
                }
                Method::Awq
            }
            _ => {
                let found = format!("weights quantised by {shown} ({name}), which are not read");
                return Err(Error::input(place, found, format!("{READ}; {UNQUANTISED}")));
            }
        };
        Ok(Quantisation { name: shown, method })
    }

    /// Its name, with the bits where they are said: `gptq, 4 bits`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The fields of a quantisation's settings.
struct Fields<'a> {
    place: &'a str,
    name: &'a str,
    value: &'a Value,
}

impl<'a> Fields<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.value.get(key).and_then(Value::as_str)
    }

    fn refused(&self, found: &str, expected: &str) -> Error {
        let found = format!("weights quantised by {found} ({}), which are not read", self.name);
        Error::input(self.place, found, format!("{expected}; else {UNQUANTISED}"))
    }

    /// Refuses another value of a text that may be missing.
    fn only(&self, key: &str, values: &[&str]) -> Result<()> {
        match self.text(key).filter(|text| !values.contains(text)) {
            Some(text) => Err(self.refused(&format!("a method with {key} {text}"), &values.join(" or "))),
            None => Ok(()),
        }
    }

    /// Rows and columns that share a scale.
    fn block(&self, value: Option<&Value>) -> Result<Option<[usize; 2]>> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        let side = |index: usize| value.get(index).and_then(Value::as_u64).filter(|side| *side > 0);
        match (side(0), side(1), value.get(2)) {
            (Some(rows), Some(columns), None) => Ok(Some([rows as usize, columns as usize])),
            _ => Err(Error::input(
                self.place,
                format!("{} has blocks of {value}", self.name),
                "two whole numbers from 1 up",
            )),
        }
    }

    fn compressed_tensors(&self) -> Result<Method> {
        let groups = self.value.get("config_groups").and_then(Value::as_object);
        let groups: Vec<&Value> = groups.into_iter().flat_map(|groups| groups.values()).collect();
        let format = |value: &'a Value| value.get("format").and_then(Value::as_str);
        let formats = groups.iter().filter_map(|group| format(group));
        let whole = format(self.value).filter(|whole| *whole != "mixed-precision");
        if let Some(other) = whole.into_iter().chain(formats).find(|format| !COMPRESSED.contains(format)) {
            let found = format!("compressed-tensors in the format {other}");
            return Err(self.refused(&found, &COMPRESSED[1..].join(", ")));
        }
        let filled = |key: &str| {
            self.value.get(key).filter(|value| match value {
                Value::Null => false,
                Value::Object(fields) => {
                    fields.get("format").is_none_or(|format| format != "dense") && !fields.is_empty()
                }
                _ => true,
            })
        };
        for key in ["sparsity_config", "transform_config"] {
            if filled(key).is_some() {
                return Err(self.refused(&format!("compressed-tensors with {key}"), "none"));
            }
        }
        let mut block = None;
        for group in groups {
            let weights = group.get("weights").filter(|weights| !weights.is_null());
            let stated = self.block(weights.and_then(|weights| weights.get("block_structure")))?;
            block = block.or(stated);
        }
        Ok(Method::Scaled { block })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(value: Value) -> std::result::Result<Method, String> {
        let parsed = Quantisation::parse("config.json", "quantization_config", &value);
        parsed.map(|parsed| parsed.method).map_err(|error| error.to_string())
    }

    #[test]
    fn methods_are_told_by_their_settings() {
        let block = Method::Scaled { block: Some([128, 128]) };
        for (value, expected) in [
            (json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}), block.clone()),
            (json!({"quant_method": "fp8", "weight_block_size": null}), Method::Scaled { block: None }),
            (
                json!({"quant_method": "compressed-tensors", "format": "float-quantized", "sparsity_config": {},
                "config_groups": {"group_0": {"weights": {"block_structure": [128, 128], "strategy": "block"}}}}),
                block,
            ),
            (json!({"load_in_4bit": true}), Method::BitsAndBytes),
            (json!({"quant_method": "gptq", "bits": 4}), Method::Gptq { offset: 1 }),
            (
                json!({"quant_method": "gptq", "bits": 8, "checkpoint_format": "gptq_v2"}),
                Method::Gptq { offset: 0 },
            ),
            (json!({"quant_method": "awq", "bits": 4, "version": "GEMM", "zero_point": true}), Method::Awq),
        ] {
            assert_eq!(parsed(value), Ok(expected));
        }
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        for (value, expected) in [
            (json!({"quant_method": "aqlm", "nbits_per_codebook": 16}), "quantised by aqlm"),
            (json!({"quant_method": "hqq", "nbits": 4}), "quantised by hqq, 4 bits"),
            (json!({"quant_method": "torchao"}), "quantised by torchao"),
            (json!({"quant_algo": "NVFP4"}), "quantised by NVFP4"),
            (json!({}), "a method that it does not name"),
            (json!({"quant_method": "gptq", "bits": 3}), "gptq of 3 bits"),
            (
                json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}),
                "checkpoint_format marlin",
            ),
            (json!({"quant_method": "awq", "bits": 4, "version": "gemv"}), "awq with version gemv"),
            (json!({"quant_method": "awq", "bits": 4, "zero_point": false}), "awq with zero_point false"),
            (json!({"quant_method": "fp8", "fmt": "e5m2"}), "fmt e5m2"),
            (json!({"quant_method": "fp8", "weight_block_size": [128]}), "blocks of [128]"),
            (
                json!({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}),
                "the format nvfp4-pack",
            ),
            (
                json!({"quant_method": "compressed-tensors", "format": "mixed-precision",
                "config_groups": {"a": {"format": "marlin-24"}}}),
                "the format marlin-24",
            ),
            (
                json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
                "transform_config": {"config_groups": {"u": {}}}}),
                "with transform_config",
            ),
        ] {
            let said = parsed(value).unwrap_err();
            assert!(said.contains(expected) && !said.contains('\n'), "{said}");
        }
    }
}
