//! A steering plan: interventions as the user writes them, in TOML or JSON or on the command line, made into hooks.
//! It knows nothing of how answers are generated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::hook::Steer;
use super::operation::{Operation, Strength};
use super::vector::Vector;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};

/// Interventions, applied in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(rename = "intervention")]
    pub interventions: Vec<Intervention>,
}

/// One vector, where and how it is applied, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervention {
    /// A file that `pearl vector` wrote.
    pub vector: PathBuf,
    /// Sites of the vector's; all of them where none are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<String>,
    #[serde(default)]
    pub operation: Operation,
    /// A number of times the vector, or of residual norms along it (`0.4n`).
    #[serde(default = "once", with = "text")]
    pub strength: Strength,
    #[serde(default = "everywhere")]
    pub tokens: Selector,
    /// A condition on a probe's reading of the prompt; without one, every row is steered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

fn once() -> Strength {
    Strength::Raw(1.0)
}

fn everywhere() -> Selector {
    Selector::All
}

/// A strength is written as text; a bare number is understood too.
mod text {
    use super::*;

    pub fn serialize<S: serde::Serializer>(
        strength: &Strength,
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(strength)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Strength, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f32),
            Text(String),
        }
        let text = match Either::deserialize(from)? {
            Either::Number(number) => number.to_string(),
            Either::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Plan {
    /// Reads a plan: JSON where the name ends so, TOML otherwise.
    pub fn load(path: &Path) -> Result<Plan> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        let expected = "interventions of vector, sites, operation, strength, tokens, when";
        match path.extension().is_some_and(|extension| extension == "json") {
            true => {
                serde_json::from_str(&text).map_err(|error| Error::input(path.display(), error, expected))
            }
            false => {
                toml::from_str(&text).map_err(|error| Error::input(path.display(), error.message(), expected))
            }
        }
    }

    /// The plan as hooks for these dialogues, whose numbers are the rows. Conditions are read from the prompts first.
    pub fn hooks(&self, model: &Model, dialogues: &[Dialogue], thinking: Option<bool>) -> Result<Vec<Steer>> {
        let hook = |intervention: &Intervention| -> Result<Steer> {
            let (_, vector) = Vector::load(&intervention.vector)?;
            let rows = match &intervention.when {
                None => None,
                Some(text) => Some(text.parse::<Condition>()?.rows(model, dialogues, thinking)?),
            };
            intervention.hook(model, &vector, rows)
        };
        self.interventions.iter().map(hook).collect()
    }
}

impl Intervention {
    /// One hook that applies `vector` to these rows, or to all.
    pub fn hook(&self, model: &Model, vector: &Vector, rows: Option<BTreeSet<usize>>) -> Result<Steer> {
        let sites: Vec<Site> = match &self.sites {
            None => vector.directions.keys().copied().collect(),
            Some(sites) => model.decoder.architecture().parse_sites(sites)?,
        };
        Steer::new(&model.decoder, vector, &sites, self.operation, self.strength, self.tokens.clone(), rows)
    }
}

impl FromStr for Intervention {
    type Err = Error;

    /// `FILE:STRENGTH[@SITES]`: the vector is added at every token.
    fn from_str(text: &str) -> Result<Intervention> {
        let wrong =
            || Error::input(format!("vector {text}"), "no strength", "FILE:STRENGTH or FILE:STRENGTH@SITES");
        let (file, rest) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (strength, sites) = match rest.split_once('@') {
            None => (rest, None),
            Some((strength, sites)) => (strength, Some(sites.to_string())),
        };
        Ok(Intervention {
            vector: file.into(),
            sites,
            operation: Operation::Add,
            strength: strength.parse()?,
            tokens: Selector::All,
            when: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_plan() {
        let plan: Plan = toml::from_str(
            "[[intervention]]\nvector = \"guide.safetensors\"\nstrength = \"0.4n\"\ntokens = \"generated\"\n\
             [[intervention]]\nvector = \"b.safetensors\"\noperation = \"ablate\"\nsites = \"3.resid_post\"",
        )
        .unwrap();
        assert_eq!(plan.interventions[0].strength, Strength::Norms(0.4));
        assert_eq!(plan.interventions[1].operation, Operation::Ablate);
        assert!(toml::from_str::<Plan>("[[intervention]]\nvector = \"b\"\nstrenght = 1").is_err());
    }

    #[test]
    fn reads_the_command_line_form() {
        let intervention: Intervention = "a/b.safetensors:-2@3.resid_post".parse().unwrap();
        assert_eq!(intervention.vector, PathBuf::from("a/b.safetensors"));
        assert_eq!(
            (intervention.strength, intervention.sites.as_deref()),
            (Strength::Raw(-2.0), Some("3.resid_post"))
        );
        assert!("b.safetensors".parse::<Intervention>().is_err());
    }
}
