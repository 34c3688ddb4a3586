//! Typed access to a `config.json`, with errors that name the file and the field.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::transformer::architecture::Activation;
use crate::model::transformer::rope::{Rope, Scaling};

/// A `config.json` and its place, for errors.
pub struct Config {
    place: String,
    fields: Value,
}

impl Config {
    /// Parses a JSON object. `place` is named in errors.
    ///
    /// # Errors
    /// Text that is no JSON object.
    pub fn parse(place: impl Into<String>, text: &[u8]) -> Result<Config> {
        let place = place.into();
        match serde_json::from_slice(text) {
            Ok(fields @ Value::Object(_)) => Ok(Config { place, fields }),
            Ok(_) => Err(Error::input(place, "JSON, but no object", "a JSON object")),
            Err(error) => Err(Error::input(place, error, "a JSON object")),
        }
    }

    /// Where the config came from, for errors.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The config with a text field added or replaced.
    pub(super) fn with_text(mut self, name: &str, text: &str) -> Config {
        if let Value::Object(fields) = &mut self.fields {
            fields.insert(name.into(), text.into());
        }
        self
    }

    /// A field that is there and not null.
    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field is neither missing, null nor false.
    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some_and(|value| *value != Value::Bool(false))
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        let found = match self.field(name) {
            Some(value) => format!("{name} is {value}"),
            None => format!("{name} is missing"),
        };
        Error::input(&self.place, found, expected)
    }

    /// A string.
    ///
    /// # Errors
    /// A missing field, or another value.
    pub fn text(&self, name: &str) -> Result<&str> {
        let text = self.field(name).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(name, "a string"))
    }

    /// A whole number from 1 up.
    ///
    /// # Errors
    /// A missing field, or another value.
    pub fn count(&self, name: &str) -> Result<usize> {
        let count = self.field(name).and_then(Value::as_u64).filter(|&count| count > 0);
        // A config can claim any size: what no machine holds is refused before anything is allocated.
        count
            .filter(|&count| count < 1 << 31)
            .map(|count| count as usize)
            .ok_or_else(|| self.wrong(name, "a whole number from 1 to 2147483647"))
    }

    /// [`Config::count`] with a default for a missing or null field.
    ///
    /// # Errors
    /// Another value.
    pub fn count_or(&self, name: &str, default: usize) -> Result<usize> {
        self.field(name).map_or(Ok(default), |_| self.count(name))
    }

    /// A count that may be missing or null.
    ///
    /// # Errors
    /// Another value.
    pub fn optional_count(&self, name: &str) -> Result<Option<usize>> {
        self.field(name).map(|_| self.count(name)).transpose()
    }

    /// A number; null is none, and a missing field the default.
    ///
    /// # Errors
    /// Another value.
    pub fn number_or_null(&self, name: &str, default: Option<f64>) -> Result<Option<f64>> {
        match self.fields.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.number(name).map(Some),
        }
    }

    /// [`Config::text`] with a default for a missing or null field.
    ///
    /// # Errors
    /// Another value.
    pub fn text_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        self.field(name).map_or(Ok(default), |_| self.text(name))
    }

    /// A number, with a default for a missing or null field.
    ///
    /// # Errors
    /// Another value.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        match self.field(name) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(name, "a number")),
        }
    }

    /// A boolean, with a default for a missing or null field.
    ///
    /// # Errors
    /// Another value.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.field(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, "true or false")),
        }
    }

    /// A list of whole numbers; empty if the field is missing.
    pub fn counts_or_empty(&self, name: &str) -> Result<Vec<usize>> {
        let Some(value) = self.field(name) else { return Ok(Vec::new()) };
        let counts = value.as_array().map(|list| list.iter().map(|count| count.as_u64().map(|n| n as usize)));
        counts.and_then(Iterator::collect).ok_or_else(|| self.wrong(name, "a list of whole numbers"))
    }

    fn numbers(&self, name: &str, count: usize) -> Result<Vec<f64>> {
        let list = self.field(name).and_then(Value::as_array);
        let numbers: Option<Vec<f64>> = list.and_then(|list| list.iter().map(Value::as_f64).collect());
        let numbers = numbers.filter(|numbers| numbers.len() == count);
        numbers.ok_or_else(|| self.wrong(name, &format!("a list of {count} numbers")))
    }

    /// Refuses the config unless `holds`: the field has a value that the family's code doesn't implement.
    ///
    /// # Errors
    /// The field and `expected`, unless `holds`.
    pub fn expect(&self, holds: bool, name: &str, expected: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(self.wrong(name, expected)) }
    }

    /// Number of blocks.
    ///
    /// # Errors
    /// A missing field, or a number out of range.
    pub fn blocks(&self, name: &str) -> Result<usize> {
        const MOST: usize = 10_000;
        let count = self.count(name)?;
        self.expect(count <= MOST, name, &format!("a whole number from 1 to {MOST}"))?;
        Ok(count)
    }

    /// The activation function.
    ///
    /// # Errors
    /// A missing field, or an unknown function.
    pub fn activation(&self, name: &str) -> Result<Activation> {
        match self.text(name)? {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" | "gelu_python" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate" => {
                Ok(Activation::GeluTanh)
            }
            "relu" => Ok(Activation::Relu),
            _ => Err(self.wrong(name, "silu, gelu, gelu_new, gelu_pytorch_tanh or relu")),
        }
    }

    /// Which blocks have a sliding window, from `layer_types` or else from `otherwise`.
    ///
    /// # Errors
    /// A list of another length, or with other values.
    pub fn sliding(&self, blocks: usize, otherwise: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
        let Some(value) = self.field("layer_types") else { return Ok((0..blocks).map(otherwise).collect()) };
        let kind = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            _ => None,
        };
        let kinds = value.as_array().and_then(|list| list.iter().map(kind).collect());
        let kinds = kinds.filter(|kinds: &Vec<bool>| kinds.len() == blocks);
        kinds.ok_or_else(|| {
            let expected = format!("a list of {blocks}, each full_attention or sliding_attention");
            self.wrong("layer_types", &expected)
        })
    }

    /// A nested object; empty if it is missing.
    fn inside(&self, name: &str) -> Config {
        let empty = || Value::Object(Default::default());
        let fields = self.field(name).cloned().unwrap_or_else(empty);
        Config { place: format!("{}, {name}", self.place), fields }
    }

    /// The rotary embedding, from either generation of configs: `rope_theta` with `rope_scaling`, or both in `rope_parameters`.
    ///
    /// # Errors
    /// A missing or invalid parameter, or an unknown scaling.
    pub fn rope(&self, head_width: usize, base: f64, context: usize) -> Result<Rope> {
        let parameters = match self.field("rope_parameters") {
            Some(_) => self.inside("rope_parameters"),
            None => self.inside("rope_scaling"),
        };
        let base = self.number_or("rope_theta", base)?;
        self.rope_from(&parameters, head_width, base, self.number_or("partial_rotary_factor", 1.0)?, context)
    }

    /// [`Config::rope`], with an entry of `rope_parameters` for each kind of block.
    ///
    /// # Errors
    /// As [`Config::rope`].
    pub fn rope_of(&self, kind: &str, head_width: usize, base: f64, context: usize) -> Result<Rope> {
        match self.inside("rope_parameters") {
            parameters if parameters.field(kind).is_some() => {
                self.rope_from(&parameters.inside(kind), head_width, base, 1.0, context)
            }
            _ => self.rope(head_width, base, context),
        }
    }

    /// The unscaled rotary embedding of sliding-window blocks; older configs have its base in `field`.
    ///
    /// # Errors
    /// As [`Config::rope`].
    pub fn local_rope(
        &self,
        kind: &str,
        field: &str,
        head_width: usize,
        base: f64,
        context: usize,
    ) -> Result<Rope> {
        let parameters = self.inside("rope_parameters").inside(kind);
        self.rope_from(&parameters, head_width, self.number_or(field, base)?, 1.0, context)
    }

    /// [`Config::rope`] for configs with their own fields for the rotated share and the base.
    ///
    /// # Errors
    /// As [`Config::rope`].
    pub fn partial_rope(
        &self,
        head_width: usize,
        [share, base]: [&str; 2],
        default_share: f64,
        context: usize,
    ) -> Result<Rope> {
        let parameters = match self.field("rope_parameters") {
            Some(_) => self.inside("rope_parameters"),
            None => self.inside("rope_scaling"),
        };
        let (base, share) = (self.number_or(base, 10_000.0)?, self.number_or(share, default_share)?);
        self.rope_from(&parameters, head_width, base, share, context)
    }

    /// A base and share in `parameters` take precedence.
    fn rope_from(
        &self,
        parameters: &Config,
        head_width: usize,
        base: f64,
        share: f64,
        context: usize,
    ) -> Result<Rope> {
        let base = parameters.number_or("rope_theta", base)?;
        let share = parameters.number_or("partial_rotary_factor", share)?;
        parameters.expect((0.0..=1.0).contains(&share), "partial_rotary_factor", "a share from 0 to 1")?;
        let width = (head_width as f64 * share) as usize;
        let original = match self.field("original_max_position_embeddings") {
            Some(_) => self.count("original_max_position_embeddings")?,
            None => parameters.count_or("original_max_position_embeddings", context)?,
        };
        let scaling = parameters.scaling(width, context, original)?;
        Ok(Rope { base, width, scaling })
    }

    fn scaling(&self, width: usize, context: usize, original: usize) -> Result<Scaling> {
        let kind = ["rope_type", "type"].into_iter().find(|name| self.field(name).is_some());
        let original_context = original as f64;
        // Without a factor, it is the ratio of the two contexts.
        let factor = || self.number_or("factor", context as f64 / original_context);
        Ok(match kind.map(|name| self.text(name)).transpose()? {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: self.number("factor")? },
            Some("dynamic") => Scaling::Dynamic { factor: self.number("factor")?, context: context as f64 },
            Some("llama3") => Scaling::Llama3 {
                factor: self.number("factor")?,
                low: self.number("low_freq_factor")?,
                high: self.number("high_freq_factor")?,
                original_context,
            },
            // Phi-3's first configs call LongRoPE "su" or "yarn".
            Some(kind) if kind == "longrope" || kind == "su" || self.field("short_factor").is_some() => {
                let factor = factor()?;
                let grown = (1.0 + factor.ln() / original_context.ln()).sqrt();
                let attention = if factor <= 1.0 { 1.0 } else { grown };
                Scaling::Long {
                    short: self.numbers("short_factor", width / 2)?,
                    long: self.numbers("long_factor", width / 2)?,
                    original_context: original,
                    attention: self.number_or("attention_factor", attention)?,
                }
            }
            Some("yarn") => {
                let factor = factor()?;
                let grown = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
                let (all, some) = (self.number_or("mscale_all_dim", 0.0)?, self.number_or("mscale", 0.0)?);
                let attention = if all != 0.0 && some != 0.0 { grown(some) / grown(all) } else { grown(1.0) };
                Scaling::Yarn {
                    factor,
                    fast: self.number_or("beta_fast", 32.0)?,
                    slow: self.number_or("beta_slow", 1.0)?,
                    original_context,
                    truncate: self.flag_or("truncate", true)?,
                    attention: self.number_or("attention_factor", attention)?,
                }
            }
            Some(other) => {
                let found = format!("rope_type {other} is not known");
                let expected = "default, linear, dynamic, yarn, llama3 or longrope";
                return Err(Error::input(&self.place, found, expected));
            }
        })
    }

    fn number(&self, name: &str) -> Result<f64> {
        match self.field(name) {
            Some(_) => self.number_or(name, 0.0),
            None => Err(self.wrong(name, "a number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(text: &str) -> Result<Rope> {
        Config::parse("config.json", text.as_bytes()).unwrap().rope(8, 10_000.0, 64)
    }

    #[test]
    fn both_generations_of_rope_fields_are_read() {
        let linear = Rope { base: 5e5, width: 8, scaling: Scaling::Linear { factor: 4.0 } };
        let old = r#"{"rope_theta": 500000, "rope_scaling": {"type": "linear", "factor": 4}}"#;
        let new = r#"{"rope_parameters": {"rope_type": "linear", "rope_theta": 500000, "factor": 4}}"#;
        assert_eq!((rope(old).unwrap(), rope(new).unwrap()), (linear.clone(), linear));
        assert_eq!(
            rope(r#"{"rope_scaling": null}"#).unwrap(),
            Rope { base: 1e4, width: 8, scaling: Scaling::None }
        );
        let error = rope(r#"{"rope_scaling": {"rope_type": "spiral"}}"#).unwrap_err().to_string();
        assert!(error.contains("rope_type spiral"), "{error}");
        let error = rope(r#"{"rope_scaling": {"type": "linear"}}"#).unwrap_err().to_string();
        assert!(error.contains("factor is missing"), "{error}");
    }
}
