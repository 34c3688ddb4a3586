//! Reading a `config.json`: fields by name, with errors that name the file and the field.
//! It knows nothing of any one family.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::architecture::{Rope, Scaling};

/// A `config.json`, and where it came from.
pub struct Config {
    place: String,
    fields: Value,
}

impl Config {
    /// `place` is named in errors.
    pub fn parse(place: impl Into<String>, text: &[u8]) -> Result<Config> {
        let place = place.into();
        match serde_json::from_slice(text) {
            Ok(fields @ Value::Object(_)) => Ok(Config { place, fields }),
            Ok(_) => Err(Error::input(place, "JSON, but no object", "a JSON object")),
            Err(error) => Err(Error::input(place, error, "a JSON object")),
        }
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// A field that is there and not null.
    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        let found = match self.field(name) {
            Some(value) => format!("{name} is {value}"),
            None => format!("{name} is missing"),
        };
        Error::input(&self.place, found, expected)
    }

    pub fn text(&self, name: &str) -> Result<&str> {
        let text = self.field(name).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(name, "a string"))
    }

    /// A whole number from 1 up.
    pub fn count(&self, name: &str) -> Result<usize> {
        let count = self.field(name).and_then(Value::as_u64).filter(|&count| count > 0);
        // A header can claim any size; what no machine holds is refused before anything is allocated.
        count
            .filter(|&count| count < 1 << 31)
            .map(|count| count as usize)
            .ok_or_else(|| self.wrong(name, "a whole number from 1 to 2147483647"))
    }

    pub fn count_or(&self, name: &str, default: usize) -> Result<usize> {
        self.field(name).map_or(Ok(default), |_| self.count(name))
    }

    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        match self.field(name) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(name, "a number")),
        }
    }

    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.field(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, "true or false")),
        }
    }

    /// The gated MLP's activation must be SiLU.
    pub fn expect_silu(&self) -> Result<()> {
        match self.text("hidden_act")? {
            "silu" => Ok(()),
            _ => Err(self.wrong("hidden_act", "silu")),
        }
    }

    /// The rotation, from either generation of configs: `rope_theta` on top with `rope_scaling` beside it,
    /// or both inside `rope_parameters`.
    pub fn rope(&self, default_base: f64) -> Result<Rope> {
        let inside = |name: &str| Config {
            place: format!("{}, {name}", self.place),
            fields: self.field(name).cloned().unwrap_or_else(|| Value::Object(Default::default())),
        };
        let mut parameters = inside("rope_parameters");
        let base = parameters.number_or("rope_theta", self.number_or("rope_theta", default_base)?)?;
        if self.field("rope_parameters").is_none() {
            parameters = inside("rope_scaling");
        }
        let kind = ["rope_type", "type"].into_iter().find(|name| parameters.field(name).is_some());
        let scaling = match kind.map(|name| parameters.text(name)).transpose()? {
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: parameters.number("factor")? },
            Some("llama3") => Scaling::Llama3 {
                factor: parameters.number("factor")?,
                low: parameters.number("low_freq_factor")?,
                high: parameters.number("high_freq_factor")?,
                original_context: parameters.number("original_max_position_embeddings")?,
            },
            Some(other) => {
                let found = format!("rope_type {other} is not known");
                return Err(Error::input(parameters.place, found, "default, linear or llama3"));
            }
        };
        Ok(Rope { base, scaling })
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
        Config::parse("config.json", text.as_bytes()).unwrap().rope(10_000.0)
    }

    #[test]
    fn both_generations_of_rope_fields_are_read() {
        let linear = Rope { base: 5e5, scaling: Scaling::Linear { factor: 4.0 } };
        let old = r#"{"rope_theta": 500000, "rope_scaling": {"type": "linear", "factor": 4}}"#;
        let new = r#"{"rope_parameters": {"rope_type": "linear", "rope_theta": 500000, "factor": 4}}"#;
        assert_eq!((rope(old).unwrap(), rope(new).unwrap()), (linear.clone(), linear));
        assert_eq!(rope(r#"{"rope_scaling": null}"#).unwrap(), Rope { base: 1e4, scaling: Scaling::None });
        let error = rope(r#"{"rope_scaling": {"rope_type": "spiral"}}"#).unwrap_err().to_string();
        assert!(error.contains("rope_type spiral"), "{error}");
        let error = rope(r#"{"rope_scaling": {"type": "linear"}}"#).unwrap_err().to_string();
        assert!(error.contains("factor is missing"), "{error}");
    }
}
