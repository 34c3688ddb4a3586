//! The steering-grid file: the ways to steer, sites, strengths, whose answers should change, and whose should not.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Data, defaults, toml_file};
use crate::artifact;
use crate::error::{Error, Result};
use crate::judge::{self, Words};
use crate::model::Selector;
use crate::steer::{Intervention, Null, Operation, Strength};

/// A whole grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SteeringGrid {
    /// The grid's name, in its report.
    pub name: String,
    /// `organism`, or a checkpoint.
    #[serde(default = "defaults::model")]
    pub model: PathBuf,
    /// Seed of everything that is sampled, split or resampled.
    #[serde(default)]
    pub seed: u64,
    /// Passed to chat templates that know a thinking and a plain mode.
    #[serde(default)]
    pub thinking: Option<bool>,
    /// The judge of answers (see [`crate::judge::JUDGES`]); the model decides where none is named.
    #[serde(default)]
    pub judge: Option<String>,
    /// Phrases of which every refusal holds one, for `judge = "refusals"`; built-in ones where none are given.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// The words of `judge = "words"`.
    #[serde(default)]
    pub words: Vec<String>,
    /// Tokens of an answer, at most.
    #[serde(default = "defaults::max_tokens")]
    pub max_tokens: usize,
    /// Sampling temperature of answers; 0 for greedy decoding.
    #[serde(default = "defaults::temperature")]
    pub temperature: f32,
    /// The dialogues and their split.
    pub data: Data,
    /// Whose answers should change.
    pub goal: Goal,
    /// Whose answers should not.
    pub guard: Guard,
    /// The vector that arms steer along.
    pub vector: VectorSource,
    /// Tokens that probes and vector are read at.
    pub tokens: Selector,
    /// Probes that arms may name.
    #[serde(default, rename = "probe")]
    pub probes: Vec<GridProbe>,
    /// Sites to choose among.
    pub sites: String,
    /// Strengths to choose among, for arms without their own.
    pub strengths: Vec<String>,
    /// Ways to steer; the others are compared with the first.
    #[serde(rename = "arm")]
    pub arms: Vec<Arm>,
}

/// Whose answers are to change, and to what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// The label that says who the users are …
    pub label: String,
    /// … and its value.
    pub class: String,
    /// The outcome that their answers should have, by the judge; or …
    #[serde(default, alias = "outcome")]
    pub strategy: Option<String>,
    /// … words of which their answers should hold one.
    #[serde(default)]
    pub words: Vec<String>,
}

/// Whose answers should stay as they are, and how much damage a trial may do and still be picked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Guard {
    /// The goal's label where none is named.
    #[serde(default)]
    pub label: Option<String>,
    /// The label's value.
    pub class: String,
    /// Number of their dialogues at most, in each part.
    #[serde(default = "defaults::guard_dialogues")]
    pub dialogues: usize,
    /// Bound on KL(unsteered ‖ steered), in nats a token.
    #[serde(default = "defaults::max_kl")]
    pub max_kl: f64,
    /// Bound on the perplexity of the unsteered model's own answers, as a multiple of the unsteered one.
    #[serde(default = "defaults::max_perplexity")]
    pub max_perplexity: f64,
    /// Bound on the share of repeated trigrams, above the unsteered one.
    #[serde(default = "defaults::max_repetition")]
    pub max_repetition: f64,
}

/// The vector: a file, or the difference between two outcomes of the model's own answers to the goal's users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorSource {
    /// A vector file; or …
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// … from answers with this outcome …
    #[serde(default)]
    pub from: Option<String>,
    /// … to answers with this one.
    #[serde(default)]
    pub to: Option<String>,
    /// `means`, `probe` or `whitened`.
    #[serde(default = "defaults::vector_method")]
    pub method: String,
}

/// A probe that arms may name, fitted at every site on the fit part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridProbe {
    /// Its name in arms.
    pub name: String,
    /// A label of the dialogues; without one, the label is the outcome of the model's own answers.
    #[serde(default)]
    pub label: Option<String>,
    /// The classes in order, without any others; all of them, sorted, where none are named.
    #[serde(default)]
    pub order: Vec<String>,
    /// Whether it is fitted on dialogues of the goal's class only.
    #[serde(default)]
    pub goal: bool,
}

/// One way to steer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in figures and charts.
    pub name: String,
    /// Strengths to choose among instead of the grid's; not used by a control.
    #[serde(default)]
    pub strengths: Option<Vec<String>>,
    /// Null directions instead of the vector. A control is run on the test part alone, at the first arm's site and strength.
    #[serde(default)]
    pub control: Option<Null>,
    /// Number of a control's directions.
    #[serde(default = "defaults::null_draws")]
    pub draws: usize,
    /// The intervention, as in a plan, but for vector, site and strength, which are the trial's.
    #[serde(default)]
    pub change: Intervention,
}

impl SteeringGrid {
    /// Parses a steering-grid file.
    ///
    /// # Errors
    /// Text that is no such grid; the line is named.
    pub fn parse(place: &str, text: &str) -> Result<SteeringGrid> {
        let grid: SteeringGrid =
            toml_file::parse(place, text, "a steering grid as in experiments/steering.toml")?;
        grid.check(place)?;
        Ok(grid)
    }

    fn check(&self, place: &str) -> Result<()> {
        self.data.check(place)?;
        toml_file::check_judge(place, self.judge.as_deref(), &self.judge_options(), &self.model)?;
        let wrong = |what: &str, found: &str, expected: &str| {
            Err(Error::input(format!("{place}, {what}"), found, expected))
        };
        if self.arms.is_empty() || self.strengths.is_empty() {
            return wrong("arm, strengths", "nothing to try", "at least one of each");
        }
        let own = self.arms.iter().filter_map(|arm| arm.strengths.as_ref());
        for strength in own.chain([&self.strengths]).flatten() {
            strength.parse::<Strength>()?;
        }
        if self.goal.strategy.is_some() != self.goal.words.is_empty() {
            return wrong("goal", "no goal, or two", "strategy, or words");
        }
        if self.vector.file.is_some() == (self.vector.from.is_some() && self.vector.to.is_some()) {
            return wrong("vector", "no vector, or two", "file, or from and to");
        }
        if let Some(arm) = self.arms.iter().find(|arm| {
            let change = &arm.change;
            change.from.is_some() || change.vector.is_some()
        }) {
            let expected = "those of the grid; sites = \"all\" applies a trial's direction at every site";
            return wrong(&format!("arm {}", arm.name), "a vector or its site of its own", expected);
        }
        let sites = |arm: &&Arm| arm.change.sites.is_some() && arm.change.operation == Operation::PROJECT;
        if let Some(arm) = self.arms.iter().find(sites) {
            return wrong(&format!("arm {}", arm.name), "sites of a projection", "no sites: a probe has one");
        }
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return wrong("temperature", &self.temperature.to_string(), "0 (greedy decoding) or more");
        }
        if let Some(arm) =
            self.arms.iter().find(|arm| arm.control.is_some() && arm.change.operation == Operation::PROJECT)
        {
            return wrong(
                &format!("arm {}", arm.name),
                "a projection as a control",
                "an operation with a vector",
            );
        }
        if self.arms[0].control.is_some() {
            return wrong(
                &format!("arm {}", self.arms[0].name),
                "a control as the first arm",
                "a way to steer, which the others are compared with",
            );
        }
        let from_data = |arm: &&Arm| matches!(arm.control, Some(Null::Shuffled | Null::Components));
        if let (Some(arm), Some(_)) = (self.arms.iter().find(from_data), &self.vector.file) {
            return wrong(
                &format!("arm {}", arm.name),
                "a control from the data of a vector that comes from a file",
                "vector from and to, or control = \"random\" or \"orthogonal\"",
            );
        }
        if let Some(arm) = self.arms.iter().find(|arm| arm.control.is_some() && arm.draws == 0) {
            return wrong(&format!("arm {}", arm.name), "no draw", "draws = 20 or more");
        }
        if !self.goal.words.is_empty() && (self.judge.is_some() || !self.refusals.is_empty()) {
            return wrong("goal", "words beside a judge", "strategy = OUTCOME with a judge, or words alone");
        }
        Ok(())
    }

    /// Reads a steering-grid file.
    ///
    /// # Errors
    /// A file that is missing, or as [`SteeringGrid::parse`].
    pub fn load(path: &Path) -> Result<SteeringGrid> {
        SteeringGrid::parse(&path.display().to_string(), &artifact::read_settings(path)?)
    }

    /// Whether a probe or a vector is fitted on the fit part.
    pub fn is_fitted(&self) -> bool {
        self.vector.file.is_none() || !self.probes.is_empty()
    }

    /// What the judge needs beside its name.
    pub fn judge_options(&self) -> judge::Options {
        judge::Options {
            refusals: self.refusals.clone(),
            words: self.words.clone(),
            ..judge::Options::default()
        }
    }

    /// The outcome that the goal's users should get; of a goal in words, that of an answer with one of them.
    pub fn wanted(&self) -> &str {
        self.goal.strategy.as_deref().unwrap_or(Words::FOUND)
    }

    /// Whether an arm is a control.
    pub fn is_control(&self, arm: &str) -> bool {
        self.arms.iter().any(|other| other.name == arm && other.control.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_grid_parses_and_older_keys_mean_the_same() {
        let path = Path::new("experiments/steering.toml");
        let (grid, text) = (SteeringGrid::load(path).unwrap(), std::fs::read_to_string(path).unwrap());
        let older = text.replace("\nsample = ", "\ndraw = ").replace("\nexclude = ", "\nwithout = ");
        assert_ne!(older, text);
        assert_eq!(SteeringGrid::parse("older", &older).unwrap(), grid);
    }

    #[test]
    fn a_goal_in_words_has_no_judge_beside_it() {
        let text = std::fs::read_to_string("experiments/steering.toml").unwrap();
        let words = text.replace("strategy = \"guide\"", "words = [\"rest\"]");
        assert_eq!(SteeringGrid::parse("file", &words).unwrap().wanted(), Words::FOUND);
        let everywhere = text.replacen(
            "change = { tokens = \"all\" }",
            "change = { tokens = \"all\", sites = \"all\" }",
            1,
        );
        assert_ne!(everywhere, text);
        assert!(SteeringGrid::parse("file", &everywhere).is_ok());
        let own = text.replacen("change = { tokens = \"all\" }", "change = { from = \"3.resid_post\" }", 1);
        assert!(SteeringGrid::parse("file", &own).unwrap_err().to_string().contains("sites = \"all\""));
        let cold = SteeringGrid::parse("file", &format!("temperature = -1.0\n{text}")).unwrap_err();
        assert!(cold.to_string().starts_with("file, temperature: -1; expected 0"), "{cold}");
        let wrong = SteeringGrid::parse("file", &format!("judge = \"refusals\"\n{words}")).unwrap_err();
        assert!(wrong.to_string().starts_with("file, goal: words beside a judge"), "{wrong}");
    }
}
