//! The experiment file: what is read, decided and steered, in TOML.
//! It knows nothing of how any of it is done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cross::Cross;
use super::probing::Kind;
use crate::error::{Error, Result};
use crate::model::Selector;
use crate::steer::Strength;

/// A whole experiment. Every stage that it names is run, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Experiment {
    pub name: String,
    /// `organism`, or a checkpoint folder.
    #[serde(default = "organism")]
    pub model: PathBuf,
    #[serde(default)]
    pub seed: u64,
    /// Passed to chat templates that know a thinking and a plain mode.
    #[serde(default)]
    pub thinking: Option<bool>,
    pub data: Data,
    pub read: Read,
    #[serde(rename = "probe", default)]
    pub probes: Vec<Probing>,
    #[serde(default)]
    pub cross: Vec<Cross>,
    pub boundary: Option<Boundary>,
    pub steer: Option<Steering>,
}

fn organism() -> PathBuf {
    "organism".into()
}

/// Which dialogues, and how they are split: three parts that share no group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Data {
    /// A file of labelled dialogues.
    pub file: Option<PathBuf>,
    /// Or so many dialogues drawn from the organism's world, in wordings that it was not trained on.
    pub draw: Option<usize>,
    /// Dialogues whose label has this value are left out.
    #[serde(default)]
    pub without: BTreeMap<String, String>,
    /// The label whose values are the groups.
    pub group: String,
    /// Groups that choices are made on: no probe and no vector is fitted on them.
    #[serde(default)]
    pub validation: Vec<String>,
    /// Groups that results are measured on: nothing is fitted or chosen on them.
    #[serde(default)]
    pub held_out: Vec<String>,
    /// Values of the group's label that are one group, under its name.
    #[serde(default)]
    pub together: BTreeMap<String, Vec<String>>,
}

/// What is read from every dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    pub sites: String,
    pub tokens: Selector,
}

/// A probe, fitted at every site and tested on groups held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probing {
    pub label: String,
    /// How the classes lie to one another.
    #[serde(default)]
    pub kind: Kind,
    /// The classes in order; sorted by name where none are given.
    #[serde(default)]
    pub order: Vec<String>,
    /// Other tokens to read than the experiment's.
    pub tokens: Option<Selector>,
    /// Another label to group by than the data's, with the groups that are held out there.
    pub group: Option<String>,
    #[serde(default)]
    pub held_out: Vec<String>,
}

/// The risk map: the plane on which a probe of several classes decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boundary {
    /// Label of the probe.
    pub probe: String,
    /// The map's first axis runs from this class to the other.
    pub from: String,
    pub to: String,
}

/// A vector between two kinds of answers, the strength chosen for it, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Steering {
    /// Label of the probe that switches steering on, and the class and probability at which it does.
    pub probe: String,
    pub class: String,
    pub above: f64,
    /// The vector leads from answers by one strategy to answers by the other, to users of `class`.
    pub from: String,
    pub to: String,
    /// Sites to choose among.
    pub sites: String,
    /// Strengths to choose among, in residual norms (`0.5n`).
    pub strengths: Vec<String>,
    /// The tokens that are steered.
    pub tokens: Selector,
    pub max_tokens: usize,
}

impl Experiment {
    /// # Errors
    /// A file that is no such experiment; the line is named.
    pub fn parse(place: &str, text: &str) -> Result<Experiment> {
        let experiment: Experiment = parse(place, text, "an experiment as in experiments/demo.toml")?;
        experiment.data.check(place)?;
        Ok(experiment)
    }

    pub fn load(path: &Path) -> Result<Experiment> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        Experiment::parse(&path.display().to_string(), &text)
    }
}

/// What a TOML file says; an error names the line.
pub(super) fn parse<T: serde::de::DeserializeOwned>(place: &str, text: &str, expected: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        Error::input(format!("{place}:{line}"), error.message(), expected)
    })
}

impl Data {
    pub(super) fn check(&self, place: &str) -> Result<()> {
        match (&self.file, self.draw) {
            (Some(_), None) | (None, Some(1..)) => Ok(()),
            _ => Err(Error::input(
                format!("{place}, data"),
                "no dialogues, or two sources",
                "file = PATH or draw = COUNT",
            )),
        }
    }
}

impl Steering {
    /// The strengths, ascending as written.
    pub fn strengths(&self) -> Result<Vec<Strength>> {
        self.strengths.iter().map(|text| text.parse()).collect()
    }
}
