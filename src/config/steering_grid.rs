//! A sweep's file: which ways to steer are tried, at which sites, how strongly, for whom, and what they must not harm.
//! It knows nothing of how any of it is done.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::experiment::Data;
use crate::error::{Error, Result};
use crate::model::Selector;
use crate::steer::{Intervention, Operation, Strength};

/// A whole sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SweepFile {
    pub name: String,
    /// `organism`, or a checkpoint folder.
    #[serde(default = "organism")]
    pub model: PathBuf,
    #[serde(default)]
    pub seed: u64,
    /// Passed to chat templates that know a thinking and a plain mode.
    #[serde(default)]
    pub thinking: Option<bool>,
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    pub data: Data,
    pub goal: Goal,
    pub guard: Guard,
    pub vector: Source,
    /// Where probes and vector are read.
    pub tokens: Selector,
    #[serde(default, rename = "probe")]
    pub probes: Vec<Probing>,
    /// Sites to choose among.
    pub sites: String,
    /// Strengths to choose among, for every arm that has none of its own.
    pub strengths: Vec<String>,
    /// The first is the one that others are held against.
    #[serde(rename = "arm")]
    pub arms: Vec<Arm>,
}

/// Whose answers are to change, and to what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    pub label: String,
    pub class: String,
    /// The strategy that should answer, by the organism's world; or …
    #[serde(default)]
    pub strategy: Option<String>,
    /// … words of which the answer should hold one.
    #[serde(default)]
    pub words: Vec<String>,
}

/// Whose answers should stay as they are, and how much they may change where a trial is to be picked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guard {
    /// The goal's label where none is named.
    #[serde(default)]
    pub label: Option<String>,
    pub class: String,
    /// So many of their dialogues at most, in each part.
    #[serde(default = "dialogues")]
    pub dialogues: usize,
    /// Nats a token, between the unsteered model and the steered.
    #[serde(default = "max_kl")]
    pub max_kl: f64,
    /// Perplexity of the unsteered model's own answers, as a multiple of what it is unsteered.
    #[serde(default = "max_perplexity")]
    pub max_perplexity: f64,
    /// Share of three words in a row that repeat, above what it is unsteered.
    #[serde(default = "max_repetition")]
    pub max_repetition: f64,
}

/// What the vector is: a file, or the difference between two kinds of the model's own answers to the goal's users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    #[serde(default)]
    pub file: Option<PathBuf>,
    #[serde(default)]
    pub from: Option<String>,
    #[serde(default)]
    pub to: Option<String>,
    /// `means`, `probe` or `whitened`.
    #[serde(default = "means")]
    pub method: String,
}

/// A probe that arms may name, fitted at every site on the fit part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probing {
    /// What arms call it.
    pub name: String,
    /// A label of the dialogues; without one, it tells the model's own answers apart by their strategies.
    #[serde(default)]
    pub label: Option<String>,
    /// The classes in order, the others left out; all of them, sorted, where none are named.
    #[serde(default)]
    pub order: Vec<String>,
    /// Only dialogues of the goal's class.
    #[serde(default)]
    pub goal: bool,
}

/// One way to steer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub name: String,
    #[serde(default)]
    pub strengths: Option<Vec<String>>,
    /// Another vector than the sweep's, as long: what any arm must beat.
    #[serde(default)]
    pub control: Option<Control>,
    /// As in a plan; site and strength are the trial's, and without a vector it is the sweep's.
    #[serde(default)]
    pub change: Intervention,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    Random,
    Orthogonal,
}

fn organism() -> PathBuf {
    "organism".into()
}

fn max_tokens() -> usize {
    128
}

fn dialogues() -> usize {
    64
}

fn max_kl() -> f64 {
    0.1
}

fn max_perplexity() -> f64 {
    1.2
}

fn max_repetition() -> f64 {
    0.05
}

fn means() -> String {
    "means".into()
}

impl SweepFile {
    /// # Errors
    /// A file that is no such sweep; the line is named.
    pub fn parse(place: &str, text: &str) -> Result<SweepFile> {
        let sweep: SweepFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let expected = "a sweep as in experiments/steering.toml";
            Error::input(format!("{place}:{line}"), error.message(), expected)
        })?;
        let wrong = |what: &str, found: &str, expected: &str| {
            Err(Error::input(format!("{place}, {what}"), found, expected))
        };
        if sweep.arms.is_empty() || sweep.strengths.is_empty() {
            return wrong("arm, strengths", "nothing to try", "at least one of each");
        }
        let own = sweep.arms.iter().filter_map(|arm| arm.strengths.as_ref());
        for strength in own.chain([&sweep.strengths]).flatten() {
            strength.parse::<Strength>()?;
        }
        if sweep.goal.strategy.is_some() != sweep.goal.words.is_empty() {
            return wrong("goal", "no goal, or two", "strategy, or words");
        }
        if sweep.vector.file.is_some() == (sweep.vector.from.is_some() && sweep.vector.to.is_some()) {
            return wrong("vector", "no vector, or two", "file, or from and to");
        }
        if let Some(arm) =
            sweep.arms.iter().find(|arm| arm.change.sites.is_some() || arm.change.vector.is_some())
        {
            return wrong(
                &format!("arm {}", arm.name),
                "a site or a vector of its own",
                "those of the sweep",
            );
        }
        if let Some(arm) =
            sweep.arms.iter().find(|arm| arm.control.is_some() && arm.change.operation == Operation::PROJECT)
        {
            return wrong(
                &format!("arm {}", arm.name),
                "a projection as a control",
                "an operation with a vector",
            );
        }
        Ok(sweep)
    }

    pub fn load(path: &Path) -> Result<SweepFile> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        SweepFile::parse(&path.display().to_string(), &text)
    }
}
