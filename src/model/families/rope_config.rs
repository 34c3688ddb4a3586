//! Rotary embeddings of a `config.json`, from either generation of configs.

use serde_json::Value;

use super::config::{Config, says_nothing};
use crate::error::{Error, Result};
use crate::model::transformer::rope::{Rope, Scaling};

impl Config {
    /// The object with the rotary parameters: `rope_scaling` of older configs takes precedence, as in transformers.
    /// `rope_parameters` beside it may repeat it, or be those without a scaling: of the base and share that are used.
    ///
    /// # Errors
    /// A value that is no object, or parameters beside `rope_scaling` that say something else.
    fn rope_parameters(&self, names: [&str; 2], defaults: (f64, f64)) -> Result<Config> {
        let filled = |name: &&str| match self.field(name) {
            Some(Value::Object(fields)) => !fields.is_empty(),
            other => other.is_some(),
        };
        let name = ["rope_scaling", "rope_parameters"].into_iter().find(filled).unwrap_or("rope_parameters");
        let counted = self.object(name)?;
        if name == "rope_scaling" && filled(&"rope_parameters") {
            let [share, base] = names;
            let same = |key: &str, own: &str, default: f64| -> Result<f64> {
                counted.number_or(key, self.number_or(own, default)?)
            };
            let (share, base) =
                (same("partial_rotary_factor", share, defaults.0)?, same("rope_theta", base, defaults.1)?);
            let beside = self.object("rope_parameters")?;
            for (key, value) in beside.unread() {
                let holds = match key {
                    "partial_rotary_factor" => value.as_f64() == Some(share),
                    "rope_theta" => value.as_f64() == Some(base),
                    "rope_type" | "type" if value == "default" => true,
                    _ => says_nothing(value) || counted.value(key) == Some(value),
                };
                let expected = "none beside rope_scaling, which counts, or the same";
                beside.expect(holds, key, expected)?;
            }
        }
        Ok(counted)
    }

    /// The rotary embedding of a family that rotates whole heads, from either generation of configs: `rope_theta` with
    /// `rope_scaling`, or both in `rope_parameters`.
    ///
    /// # Errors
    /// A missing or invalid parameter, an unknown scaling, or a part of a head: transformers rotates the whole.
    pub fn rope(&self, head_width: usize, base: f64, context: usize) -> Result<Rope> {
        let names = ["partial_rotary_factor", "rope_theta"];
        self.whole(
            self.rope_from(
                &self.rope_parameters(names, (1.0, base))?,
                head_width,
                names,
                (1.0, base),
                context,
            )?,
            head_width,
        )
    }

    /// The rotary embedding, if it rotates whole heads: transformers ignores or refuses a share in the families that ask for
    /// this, and llama.cpp obeys it.
    fn whole(&self, rope: Rope, head_width: usize) -> Result<Rope> {
        if rope.width == head_width || self.is_of_gguf() {
            return Ok(rope);
        }
        let found = format!("partial_rotary_factor gives {} of {head_width} rotated elements", rope.width);
        Err(Error::input(self.place(), found, "1 or none: this family rotates whole heads"))
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
        let defaults = (default_share, 10_000.0);
        self.rope_from(&self.rope_parameters(names, defaults)?, head_width, names, defaults, context)
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
        // A field that the parameters hide is held to the same range.
        let base = |place: &Config, name: &str, default: f64| -> Result<f64> {
            let base = place.number_or(name, default)?;
            place.expect(base.is_finite() && base > 0.0, name, "a number above 0")?;
            Ok(base)
        };
        let base = base(parameters, "rope_theta", base(self, base_name, default_base)?)?;
        let share = |place: &Config, name: &str, default: f64| -> Result<f64> {
            let share = place.number_or(name, default)?;
            place.expect(share > 0.0 && share <= 1.0, name, "a share above 0, and at most 1")?;
            Ok(share)
        };
        let share = share(parameters, "partial_rotary_factor", share(self, share_name, default_share)?)?;
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
                    attention: [self.number_or("attention_factor", attention)?; 2],
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
                return Err(Error::input(self.place(), found, expected));
            }
        })
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
        assert_eq!((rope(old).unwrap(), rope(new).unwrap()), (linear.clone(), linear.clone()));
        assert_eq!(
            rope(r#"{"rope_scaling": null}"#).unwrap(),
            Rope { base: 1e4, width: 8, scaling: Scaling::None }
        );
        // transformers 5 fills in the plain parameters beside a scaling.
        let both = |beside: &str| {
            rope(&format!(
                r#"{{"rope_theta": 500000, "rope_scaling": {{"type": "linear", "factor": 4}}, "rope_parameters": {beside}}}"#
            ))
        };
        for beside in [
            r#"{"rope_type": "default", "rope_theta": 500000.0}"#,
            r#"{"rope_type": "default"}"#,
            r#"{"type": "linear", "factor": 4}"#,
            "{}",
            "null",
        ] {
            assert_eq!(both(beside).unwrap(), linear, "{beside}");
        }
        for (beside, expected) in [
            (r#"{"rope_type": "yarn", "factor": 4}"#, "rope_type is \"yarn\""),
            (r#"{"rope_type": "default", "rope_theta": 7.0}"#, "rope_theta is 7.0"),
            (r#"{"rope_type": "default", "factor": 2}"#, "factor is 2"),
        ] {
            let error = both(beside).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("none beside rope_scaling"), "{error}");
        }
        let error = rope(r#"{"rope_scaling": {"rope_type": "spiral"}}"#).unwrap_err().to_string();
        assert!(error.contains("rope_type spiral"), "{error}");
        let error = rope(r#"{"rope_scaling": {"type": "linear"}}"#).unwrap_err().to_string();
        assert!(error.contains("factor is missing"), "{error}");
    }

    #[test]
    fn a_share_or_base_out_of_range_is_refused_also_where_the_parameters_hide_it() {
        let partial = |text: &str| {
            let config = Config::parse("config.json", text.as_bytes()).unwrap();
            config.partial_rope(8, ["rotary_pct", "rotary_emb_base"], 0.25, 64)
        };
        let parameters = r#""rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}"#;
        assert_eq!(partial(&format!(r#"{{"rotary_pct": 0.25, {parameters}}}"#)).unwrap().width, 4);
        for (field, expected) in [
            (r#""rotary_pct": 2"#, "rotary_pct is 2; expected a share above 0, and at most 1"),
            (r#""rotary_pct": 0"#, "rotary_pct is 0; expected a share above 0"),
            (r#""rotary_pct": -0.5"#, "rotary_pct is -0.5"),
            (r#""rotary_emb_base": 0"#, "rotary_emb_base is 0; expected a number above 0"),
        ] {
            for text in [format!("{{{field}}}"), format!("{{{field}, {parameters}}}")] {
                let error = partial(&text).unwrap_err().to_string();
                assert!(error.contains(expected), "{text}: {error}");
            }
        }
    }
}
