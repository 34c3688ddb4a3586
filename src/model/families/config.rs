//! Typed access to a `config.json`, with errors that name the file and the field.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::artifact;
use crate::error::{Error, Result};
use crate::model::transformer::architecture::Activation;

/// Values of a config, at most.
const MOST_VALUES: usize = 1_000_000;

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
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        artifact::check_values(text, MOST_VALUES)
            .map_err(|found| Error::input(&place, found, "a config of a usual size"))?;
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
    pub(super) fn with_text(self, name: &str, text: &str) -> Config {
        self.with(name, text.into())
    }

    /// The config with a field added or replaced.
    pub(super) fn with(mut self, name: &str, value: Value) -> Config {
        if let Value::Object(fields) = &mut self.fields {
            fields.insert(name.into(), value);
        }
        self
    }

    /// The config without a field.
    pub(super) fn without(mut self, name: &str) -> Config {
        if let Value::Object(fields) = &mut self.fields {
            fields.remove(name);
        }
        self
    }

    /// A copy without some keys of a nested object. Keys that are read from it are told by [`Config::note_read`].
    pub(super) fn without_inside(&self, name: &str, keys: &[&str]) -> Config {
        let mut fields = self.fields.clone();
        if let Some(Value::Object(inside)) = fields.get_mut(name) {
            keys.iter().for_each(|key| drop(inside.remove(*key)));
        }
        Config { of_gguf: self.of_gguf, ..Config::new(self.place.clone(), fields) }
    }

    /// Notes the keys that were read from a copy.
    pub(super) fn note_read(&self, copy: &Config) {
        self.read.borrow_mut().extend(copy.read.borrow().iter().cloned());
    }

    /// Whether it has no fields.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.as_object().is_none_or(|fields| fields.is_empty())
    }

    /// A field that is there and not null.
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.present(name).filter(|value| !value.is_null())
    }

    /// A field that is there, null or not.
    pub(super) fn present(&self, name: &str) -> Option<&Value> {
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

    pub(super) fn wrong(&self, name: &str, expected: &str) -> Error {
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

    /// [`Config::count_from_0`] with a default for a missing or null field.
    ///
    /// # Errors
    /// Another value.
    pub fn count_from_0_or(&self, name: &str, default: usize) -> Result<usize> {
        self.field(name).map_or(Ok(default), |_| self.count_from_0(name))
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

    pub(super) fn numbers(&self, name: &str, count: usize) -> Result<Vec<f64>> {
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
        self.kinds(blocks, "sliding_attention", otherwise)
    }

    /// Which blocks are of a kind that isn't `full_attention`, from `layer_types` or else from `otherwise`.
    ///
    /// # Errors
    /// A list of another length, or with other values.
    pub fn kinds(&self, blocks: usize, named: &str, otherwise: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
        let Some(value) = self.field("layer_types") else { return Ok((0..blocks).map(otherwise).collect()) };
        let kind = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Some(false),
            Some(kind) => (kind == named).then_some(true),
            None => None,
        };
        let kinds = value.as_array().and_then(|list| list.iter().map(kind).collect());
        let kinds = kinds.filter(|kinds: &Vec<bool>| kinds.len() == blocks);
        kinds.ok_or_else(|| {
            let expected = format!("a list of {blocks}, each full_attention or {named}");
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

    /// [`Config::inside`], where the field is an object or missing.
    pub(super) fn object(&self, name: &str) -> Result<Config> {
        self.expect(self.field(name).is_none_or(Value::is_object), name, "an object")?;
        Ok(self.inside(name))
    }

    /// A number above 0.
    pub(super) fn positive(&self, name: &str) -> Result<f64> {
        let number = self.number(name)?;
        self.expect(number.is_finite() && number > 0.0, name, "a number above 0")?;
        Ok(number)
    }

    pub(super) fn number(&self, name: &str) -> Result<f64> {
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
