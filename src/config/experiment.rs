//! The experiment file: what is read, decided and steered, in TOML.
//! It knows nothing of how any of it is done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::analysis::cross_validation::Cross;
use crate::probe::TargetKind;
use crate::boundary::Search;
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
    pub bounding: Option<Bounding>,
    #[serde(default)]
    pub crossing: Vec<Twins>,
    pub watching: Option<Watching>,
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
    pub kind: TargetKind,
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

/// The boundary's card over the test part: margins, faces, honesty, and a threshold with a promise. The options of
/// `pearl boundary`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bounding {
    /// Label of the probe.
    pub probe: String,
    pub from: String,
    pub to: String,
    /// The class whose region is the safe one; `from` where it is not given.
    pub safe: Option<String>,
    /// The class that the threshold flags; `to` where it is not given.
    pub flag: Option<String>,
    /// The rate that is promised; without it nothing is.
    pub alpha: Option<f64>,
    #[serde(default = "tenth")]
    pub delta: f64,
    #[serde(default)]
    pub expected: bool,
    #[serde(default)]
    pub false_alarms: bool,
    #[serde(default = "two_hundred")]
    pub resamplings: usize,
    #[serde(default = "twenty")]
    pub next: usize,
}

fn tenth() -> f64 {
    0.1
}

fn two_hundred() -> usize {
    200
}

fn twenty() -> usize {
    20
}

/// The way between twins: where the probe flips, and where the answer does. The options of `pearl boundary cross`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Twins {
    /// What the twins differ in, for figures and files.
    pub name: String,
    /// Label of the probe, and the sites at which its sweep is asked; all where none are named.
    pub probe: String,
    pub sites: Option<String>,
    /// A file of twins …
    pub file: Option<PathBuf>,
    #[serde(default = "pair")]
    pub pair: String,
    /// … or so many pairs drawn from the organism's world, and what they differ in.
    pub draw: Option<usize>,
    pub contrast: Option<String>,
    /// Phrases of which every refusal holds one; without any, the organism's own judge says how it answers.
    #[serde(default)]
    pub refusals: Vec<String>,
    #[serde(default = "parts")]
    pub parts: usize,
    #[serde(default = "halvings")]
    pub halvings: usize,
    pub max_tokens: usize,
}

fn pair() -> String {
    "pair".into()
}

fn parts() -> usize {
    Search::default().parts
}

fn halvings() -> usize {
    Search::default().halvings
}

/// Dialogues of the test part under the probes' eye.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watching {
    /// Label of the probe, and the class whose probability is shown.
    pub probe: String,
    pub class: String,
    /// The dialogue of most rounds where none is named.
    #[serde(default)]
    pub ids: Vec<String>,
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
pub(crate) fn parse<T: serde::de::DeserializeOwned>(place: &str, text: &str, expected: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        Error::input(format!("{place}:{line}"), error.message(), expected)
    })
}

impl Data {
    pub(crate) fn check(&self, place: &str) -> Result<()> {
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
