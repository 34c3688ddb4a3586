//! A probe folder's `probe.toml`: the label, the data, where it is read, and how the probe is fitted.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Data, defaults, toml_file};
use crate::artifact;
use crate::error::Result;
use crate::judge;
use crate::model::Selector;
use crate::probe::{CalibrationChoice, TargetKind};

/// `probe.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProbeFile {
    /// What the probe reads, in a sentence; the card begins with it.
    pub about: String,
    /// The label that the probe reads.
    pub label: String,
    /// Target type.
    #[serde(default)]
    pub kind: TargetKind,
    /// The classes in order; sorted by name where none are given.
    #[serde(default)]
    pub order: Vec<String>,
    /// `organism`, or a checkpoint.
    pub model: PathBuf,
    /// Passed to chat templates that know a thinking and a plain mode.
    #[serde(default)]
    pub thinking: Option<bool>,
    /// Sites to fit at; the best is kept.
    pub sites: String,
    /// Tokens to read: one a dialogue, or pooled.
    pub tokens: Selector,
    /// The probe's method.
    #[serde(default = "defaults::method")]
    pub method: String,
    /// Regularisation strengths to choose among; the method's own where none are given.
    #[serde(default)]
    pub strengths: Vec<f64>,
    /// Folds inside the fit part, by which the strength is chosen.
    #[serde(default = "defaults::folds")]
    pub folds: usize,
    /// The calibration: `auto`, `temperature`, `platt`, `isotonic` or `none`.
    #[serde(default)]
    pub calibration: CalibrationChoice,
    /// Whether groups, and not rows, are the units of intervals.
    #[serde(default = "defaults::by_group")]
    pub by_group: bool,
    /// Seed of the data, the folds and the answers.
    #[serde(default)]
    pub seed: u64,
    /// The judge of the answers (see [`crate::judge::JUDGES`]); the model decides where none is named.
    #[serde(default)]
    pub judge: Option<String>,
    /// Phrases of which every refusal holds one, for `judge = "refusals"`; built-in ones where none are given.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// The words of `judge = "words"`.
    #[serde(default)]
    pub words: Vec<String>,
    /// The dialogues.
    pub data: Data,
    /// Where the label is not the dialogues' own: the outcome of the model's own answers is the label.
    pub answers: Option<Answers>,
}

/// The model answers every dialogue, and the answer's outcome is the label.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Answers {
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Sampling temperature; greedy decoding where none is given.
    pub temperature: Option<f32>,
}

impl ProbeFile {
    /// The file's name in a probe folder.
    pub const NAME: &str = "probe.toml";

    /// Parses the text of a `probe.toml`.
    ///
    /// # Errors
    /// Text that is no such file; the line is named.
    pub fn parse(place: &str, text: &str) -> Result<ProbeFile> {
        let file: ProbeFile =
            toml_file::parse(place, text, "a probe file as probes/risk-level/probe.toml is")?;
        file.data.check(place)?;
        toml_file::check_judge(place, file.judge.as_deref(), &file.judge_options(), &file.model)?;
        Ok(file)
    }

    /// What the judge needs beside its name.
    pub fn judge_options(&self) -> judge::Options {
        judge::Options {
            refusals: self.refusals.clone(),
            words: self.words.clone(),
            ..judge::Options::default()
        }
    }

    /// Reads the folder's `probe.toml`.
    ///
    /// # Errors
    /// A file that is missing, or as [`ProbeFile::parse`].
    pub fn load(folder: &Path) -> Result<ProbeFile> {
        let path = folder.join(ProbeFile::NAME);
        ProbeFile::parse(&path.display().to_string(), &artifact::read_settings(&path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_probes_parse_and_older_keys_mean_the_same() {
        for name in ["answer-strategy", "risk-level", "topic", "user-type"] {
            let file = ProbeFile::load(&Path::new("probes").join(name)).unwrap();
            let text = std::fs::read_to_string(Path::new("probes").join(name).join(ProbeFile::NAME)).unwrap();
            let older = text.replace("\nsample = ", "\ndraw = ").replace("\nexclude = ", "\nwithout = ");
            assert_ne!(older, text, "{name}");
            assert_eq!(ProbeFile::parse(name, &older).unwrap(), file, "{name}");
        }
    }

    #[test]
    fn a_judge_of_no_such_name_is_refused_when_the_file_is_read() {
        let text = std::fs::read_to_string("probes/answer-strategy/probe.toml").unwrap();
        let wrong = ProbeFile::parse("p", &format!("judge = \"crowd\"\n{text}")).unwrap_err();
        let wrong = wrong.to_string();
        assert!(wrong.starts_with("p, judge: \"crowd\"; expected organism or refusals or "), "{wrong}");
    }
}
