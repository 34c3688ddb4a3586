//! Typed access to a `config.json`, with errors that name the file and the field.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::transformer::architecture::Activation;
use crate::model::transformer::rope::{Rope, Scaling};

/// A `config.json` and its place, for errors.
pub struct Config {
    place: String,
    fields: Value,
    /// Keys that were asked for, whether they are there or not.
    read: RefCell<BTreeSet<String>>,
    /// Whether it is made of a GGUF file's metadata.
    of_gguf: bool,
}

impl Config {
    /// Parses a JSON object. `place` is named in errors.
    ///
    /// # Errors
    /// Text that is no JSON object.
    pub fn parse(place: impl Into<String>, text: &[u8]) -> Result<Config> {
        let place = place.into();
        match serde_json::from_slice(text) {
            Ok(fields @ Value::Object(_)) => Ok(Config::new(place, fields)),
            Ok(_) => Err(Error::input(place, "JSON, but no object", "a JSON object")),
            Err(error) => Err(Error::input(place, error, "a JSON object")),
        }
    }

    fn new(place: String, fields: Value) -> Config {
        Config { place, fields, read: RefCell::default(), of_gguf: false }
    }

    /// The config as one that is made of a GGUF file's metadata, whose share of rotated elements every family obeys.
    pub(in crate::model) fn of_gguf(self) -> Config {
        Config { of_gguf: true, ..self }
    }

    /// Whether it is made of a GGUF file's metadata.
    pub(super) fn is_of_gguf(&self) -> bool {
        self.of_gguf
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
        self.present(name).filter(|value| !value.is_null())
    }

    /// A field that is there, null or not.
    fn present(&self, name: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(name.to_owned());
        self.fields.get(name)
    }

    /// A field that is there and not null, whatever its type.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.field(name)
    }

    /// Whether the field is there, null or not.
    pub(super) fn is_present(&self, name: &str) -> bool {
        self.present(name).is_some()
    }

    /// The keys that were asked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<String> {
        self.read.borrow().iter().cloned().collect()
    }

    /// The fields that nothing asked for.
    pub(super) fn unread(&self) -> Vec<(&str, &Value)> {
        let read = self.read.borrow();
        let fields = self.fields.as_object().into_iter().flatten();
        fields.filter(|(key, _)| !read.contains(*key)).map(|(key, value)| (key.as_str(), value)).collect()
    }

    /// The error for a field whose value is not implemented.
    pub(super) fn refused(&self, name: &str, expected: &str) -> Error {
        self.wrong(name, expected)
    }

    /// The first class that the checkpoint was saved from; None where the config doesn't say.
    pub fn class(&self) -> Option<&str> {
        self.field("architectures")?.as_array()?.first()?.as_str()
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

    /// A whole number from 0 up.
    ///
    /// # Errors
    /// A missing field, or another value.
    pub fn count_from_0(&self, name: &str) -> Result<usize> {
        match self.field(name).and_then(Value::as_u64) {
            Some(0) => Ok(0),
            _ => self.count(name),
        }
    }

    /// A count; null is none, and a missing field the default.
    ///
    /// # Errors
    /// Another value.
    pub fn count_or_null(&self, name: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.present(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.count(name).map(Some),
        }
    }

    /// A number; null is none, and a missing field the default.
    ///
    /// # Errors
    /// Another value.
    pub fn number_or_null(&self, name: &str, default: Option<f64>) -> Result<Option<f64>> {
        match self.present(name) {
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

    /// [`Config::activation`] with a default for a missing or null field.
    ///
    /// # Errors
    /// An unknown function.
    pub fn activation_or(&self, name: &str, default: Activation) -> Result<Activation> {
        self.field(name).map_or(Ok(default), |_| self.activation(name))
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

    /// The window of each block, in tokens: `window` in those of [`Config::sliding`].
    ///
    /// # Errors
    /// As [`Config::sliding`]; sliding blocks without a window.
    pub fn windows(
        &self,
        blocks: usize,
        window: Option<usize>,
        otherwise: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<usize>>> {
        let sliding = self.sliding(blocks, |block| window.is_some() && otherwise(block))?;
        let holds = window.is_some() || !sliding.contains(&true);
        self.expect(holds, "layer_types", "no sliding_attention where sliding_window is null or not used")?;
        Ok(sliding.into_iter().map(|sliding| window.filter(|_| sliding)).collect())
    }

    /// A nested object; empty if it is missing.
    fn inside(&self, name: &str) -> Config {
        let empty = || Value::Object(Default::default());
        let fields = self.field(name).cloned().unwrap_or_else(empty);
        Config { of_gguf: self.of_gguf, ..Config::new(format!("{}, {name}", self.place), fields) }
    }

    /// The object with the rotary parameters: `rope_scaling` of older configs takes precedence, as in transformers.
    fn rope_parameters(&self) -> Result<Config> {
        let filled = |name: &&str| match self.field(name) {
            Some(Value::Object(fields)) => !fields.is_empty(),
            other => other.is_some(),
        };
        let name = ["rope_scaling", "rope_parameters"].into_iter().find(filled).unwrap_or("rope_parameters");
        self.object(name)
    }

    /// [`Config::inside`], where the field is an object or missing.
    fn object(&self, name: &str) -> Result<Config> {
        self.expect(self.field(name).is_none_or(Value::is_object), name, "an object")?;
        Ok(self.inside(name))
    }

    /// The rotary embedding of a family that rotates whole heads, from either generation of configs: `rope_theta` with
    /// `rope_scaling`, or both in `rope_parameters`.
    ///
    /// # Errors
    /// A missing or invalid parameter, an unknown scaling, or a part of a head: transformers rotates the whole.
    pub fn rope(&self, head_width: usize, base: f64, context: usize) -> Result<Rope> {
        let names = ["partial_rotary_factor", "rope_theta"];
        self.whole(
            self.rope_from(&self.rope_parameters()?, head_width, names, (1.0, base), context)?,
            head_width,
        )
    }

    /// The rotary embedding, if it rotates whole heads: transformers ignores or refuses a share in the families that ask for
    /// this, and llama.cpp obeys it.
    fn whole(&self, rope: Rope, head_width: usize) -> Result<Rope> {
        if rope.width == head_width || self.of_gguf {
            return Ok(rope);
        }
        let found = format!("partial_rotary_factor gives {} of {head_width} rotated elements", rope.width);
        Err(Error::input(&self.place, found, "1 or none: this family rotates whole heads"))
    }

    /// [`Config::rope`], with an entry of `rope_parameters` for each kind of block.
    ///
    /// # Errors
    /// As [`Config::rope`].
    pub fn rope_of(&self, kind: &str, head_width: usize, base: f64, context: usize) -> Result<Rope> {
        let parameters = self.object("rope_parameters")?;
        if parameters.field(kind).is_none() {
            return self.rope(head_width, base, context);
        }
        self.expect(self.field("rope_scaling").is_none(), "rope_scaling", "none beside rope_parameters")?;
        let names = ["partial_rotary_factor", "rope_theta"];
        let rope = self.rope_from(&parameters.object(kind)?, head_width, names, (1.0, base), context)?;
        self.whole(rope, head_width)
    }

    /// The rotary embedding of sliding-window blocks, in `rope_parameters` under `kind`; older configs have its base in `field`
    /// and no scaling.
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
        let parameters = self.object("rope_parameters")?.object(kind)?;
        let names = ["partial_rotary_factor", field];
        self.whole(self.rope_from(&parameters, head_width, names, (1.0, base), context)?, head_width)
    }

    /// [`Config::rope`] for families that rotate a part of each head, with their own fields for the share and the base.
    ///
    /// # Errors
    /// As [`Config::rope`].
    pub fn partial_rope(
        &self,
        head_width: usize,
        names: [&str; 2],
        default_share: f64,
        context: usize,
    ) -> Result<Rope> {
        self.rope_from(&self.rope_parameters()?, head_width, names, (default_share, 10_000.0), context)
    }

    /// A base and share in `parameters` take precedence over the fields of these names and the defaults.
    fn rope_from(
        &self,
        parameters: &Config,
        head_width: usize,
        [share_name, base_name]: [&str; 2],
        (default_share, default_base): (f64, f64),
        context: usize,
    ) -> Result<Rope> {
        let base = self.number_or(base_name, default_base)?;
        let base = parameters.number_or("rope_theta", base)?;
        let holder = |name: &'static str, own| match parameters.field(name) {
            Some(_) => (parameters, name),
            None => (self, own),
        };
        let (place, name) = holder("rope_theta", base_name);
        place.expect(base.is_finite() && base > 0.0, name, "a number above 0")?;
        let share = self.number_or(share_name, default_share)?;
        let share = parameters.number_or("partial_rotary_factor", share)?;
        let (place, name) = holder("partial_rotary_factor", share_name);
        place.expect((0.0..=1.0).contains(&share), name, "a share from 0 to 1")?;
        let width = (head_width as f64 * share) as usize;
        // A field beside the parameters takes precedence over one among them, as in transformers.
        let original = "original_max_position_embeddings";
        let original = self.count_or(original, parameters.count_or(original, context)?)?;
        let scaling = parameters.scaling(width, context, original)?;
        for (key, value) in parameters.unread() {
            // How a scaling was tuned changes no number, and neither does a factor of 1.
            let harmless = key == "finetuned"
                || ["attn_factor", "extrapolation_factor"].contains(&key) && value.as_f64() == Some(1.0);
            let known = harmless || says_nothing(value);
            parameters.expect(known, key, "only parameters of its rope_type")?;
        }
        Ok(Rope { base, width, scaling })
    }

    fn scaling(&self, width: usize, context: usize, original: usize) -> Result<Scaling> {
        let kinds = ["rope_type", "type"].map(|name| self.field(name).map(|_| self.text(name)));
        let [kind, other] = kinds.map(Option::transpose);
        let (kind, other) = (kind?, other?);
        self.expect(kind.is_none() || other.is_none() || kind == other, "type", "the same as rope_type")?;
        let original_context = original as f64;
        // Without a factor, it is the ratio of the two contexts.
        let factor = || match self.field("factor") {
            Some(_) => self.positive("factor"),
            None => Ok(context as f64 / original_context),
        };
        Ok(match kind.or(other) {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: self.positive("factor")? },
            Some("dynamic") => {
                self.expect(width > 2, "rope_type", "heads with more than 2 rotated elements for dynamic")?;
                Scaling::Dynamic { factor: self.positive("factor")?, context: context as f64 }
            }
            Some("llama3") => Scaling::Llama3 {
                factor: self.positive("factor")?,
                low: self.positive("low_freq_factor")?,
                high: self.positive("high_freq_factor")?,
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

    /// A number above 0.
    fn positive(&self, name: &str) -> Result<f64> {
        let number = self.number(name)?;
        self.expect(number.is_finite() && number > 0.0, name, "a number above 0")?;
        Ok(number)
    }

    fn number(&self, name: &str) -> Result<f64> {
        match self.field(name) {
            Some(_) => self.number_or(name, 0.0),
            None => Err(self.wrong(name, "a number")),
        }
    }
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
