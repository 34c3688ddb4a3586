//! The experiment file: what is read, decided and steered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Data, defaults, toml_file};
use crate::artifact;
use crate::boundary::Guarantee;
use crate::error::{Error, Result};
use crate::judge;
use crate::model::Selector;
use crate::organism;
use crate::probe::TargetKind;
use crate::steer::Strength;

/// A whole experiment. Every stage that it names is run, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Experiment {
    /// The experiment's name, in its report.
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
    /// The dialogues and their split.
    pub data: Data,
    /// What is read from every dialogue.
    pub read: Read,
    /// Probes, each fitted at every site.
    #[serde(rename = "probe", default)]
    pub probes: Vec<Probe>,
    /// Cross-validations.
    #[serde(default, rename = "cross_validation", alias = "cross-validation", alias = "cross")]
    pub cross_validations: Vec<CrossValidation>,
    /// The risk map.
    pub boundary: Option<Boundary>,
    /// The boundary's report.
    #[serde(rename = "boundary_report", alias = "boundary-report", alias = "bounding")]
    pub boundary_report: Option<BoundaryReport>,
    /// Interpolations between twins.
    #[serde(default, rename = "interpolation", alias = "crossing")]
    pub interpolations: Vec<Interpolation>,
    /// A probe's readout at every token.
    #[serde(rename = "token_readout", alias = "token-readout", alias = "watching")]
    pub token_readout: Option<TokenReadout>,
    /// Steering by one vector.
    pub steer: Option<Steering>,
    /// Answers at several strengths of a vector between two classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dose: Option<DoseResponse>,
}

/// What is read from every dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Sites, such as `*.resid_post`.
    pub sites: String,
    /// Tokens: one a dialogue, or pooled.
    pub tokens: Selector,
}

/// A probe, fitted at every site and tested on held-out groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probe {
    /// The label that the probe reads.
    pub label: String,
    /// Target type.
    #[serde(default)]
    pub kind: TargetKind,
    /// The classes in order; sorted by name where none are given.
    #[serde(default)]
    pub order: Vec<String>,
    /// Tokens to read instead of the experiment's.
    pub tokens: Option<Selector>,
    /// The label to group by instead of the data's …
    pub group: Option<String>,
    /// … with its own held-out groups.
    #[serde(default)]
    pub held_out: Vec<String>,
}

/// Cross-validation: every dialogue is tested on, by a probe that never saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CrossValidation {
    /// What is held out, for figures and charts: rows, kinds, …
    pub name: String,
    /// The label that the probe reads.
    pub label: String,
    /// Target type.
    #[serde(default)]
    pub kind: TargetKind,
    /// The classes in order; sorted by name where none are given.
    #[serde(default)]
    pub order: Vec<String>,
    /// The label whose values are held out whole; single dialogues where none is given.
    pub group: Option<String>,
    /// Number of folds; where it is left out, every group is held out alone.
    pub folds: Option<usize>,
    /// The probe's method.
    #[serde(default = "defaults::method")]
    pub method: String,
    /// Regularisation strengths to choose among; the method's own where none are given.
    #[serde(default)]
    pub strengths: Vec<f64>,
}

/// The risk map: the plane on which a multiclass probe decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boundary {
    /// Label of the probe.
    pub probe: String,
    /// The map's first axis runs from this class …
    pub from: String,
    /// … to this one.
    pub to: String,
}

/// The boundary's report over the test part: margins, faces, calibration, and a threshold with an error bound. The options
/// of `pearl boundary map`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BoundaryReport {
    /// Label of the probe.
    pub probe: String,
    /// The map's first axis runs from this class …
    pub from: String,
    /// … to this one.
    pub to: String,
    /// The class whose region is the safe one; `from` where it is not given.
    pub safe: Option<String>,
    /// The class that the threshold flags; `to` where it is not given.
    pub flag: Option<String>,
    /// The error rate that the threshold bounds; without it there is no threshold.
    pub alpha: Option<f64>,
    /// The bound holds with confidence 1 − `delta`.
    #[serde(default = "defaults::delta")]
    pub delta: f64,
    /// Bound the expected rate only (conformal risk control).
    #[serde(default)]
    pub expected: bool,
    /// Bound the false alarms instead of the misses.
    #[serde(default)]
    pub false_alarms: bool,
    /// The rows over which the bound holds: `exchangeable` ones, or every group, the worst too (`worst-group`).
    #[serde(default)]
    pub guarantee: Guarantee,
    /// Resamplings on which the bound is tested.
    #[serde(default = "defaults::resamplings")]
    pub resamplings: usize,
    /// Number of examples nearest to the boundary that are listed for labelling.
    #[serde(default = "defaults::next")]
    pub next: usize,
}

/// Interpolation between twins: where the probe's class flips, and where the answer's outcome does. The options of
/// `pearl boundary interpolate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Interpolation {
    /// What the twins differ in, for figures and files.
    pub name: String,
    /// Label of the probe.
    pub probe: String,
    /// Sites to interpolate at; all of the probe's where none are named.
    pub sites: Option<String>,
    /// A file of twins.
    pub file: Option<PathBuf>,
    /// The label whose value two twins share.
    #[serde(default = "defaults::pair")]
    pub pair: String,
    /// Instead of a file: this many pairs sampled from the organism's world …
    #[serde(alias = "draw")]
    pub sample: Option<usize>,
    /// … that differ in this.
    pub contrast: Option<String>,
    /// Phrases of which every refusal holds one; the experiment's judge where none are given.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// Points of the way that are evaluated before the first change is halved.
    #[serde(default = "defaults::parts")]
    pub parts: usize,
    /// Halvings of the interval that holds the first change.
    #[serde(default = "defaults::halvings")]
    pub halvings: usize,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
}

/// The probes' readout at every token of dialogues of the test part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenReadout {
    /// Label of the probe.
    pub probe: String,
    /// The class whose probability is shown.
    pub class: String,
    /// Ids of the dialogues; the one of most messages where none is named.
    #[serde(default)]
    pub ids: Vec<String>,
}

/// Steering by a vector between two outcomes of the model's own answers: the strength is chosen on the validation part,
/// the effect measured on the test part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Steering {
    /// Label of the probe that switches steering on.
    pub probe: String,
    /// The class of users that is steered …
    pub class: String,
    /// … where the probe reads it with more than this probability.
    pub above: f64,
    /// The vector leads from answers with this outcome …
    pub from: String,
    /// … to answers with this one, to users of `class`.
    pub to: String,
    /// The outcome that users of the other classes should get. Where a class has none here, it is the judge's, and where the
    /// judge knows none either, `to` is counted: how far steering reaches users whom it should leave alone.
    #[serde(default)]
    pub expect: BTreeMap<String, String>,
    /// Sites to choose among.
    pub sites: String,
    /// Strengths to choose among, in residual norms (`0.5n`).
    pub strengths: Vec<String>,
    /// Tokens that are steered.
    pub tokens: Selector,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Null directions of each random kind that the vector is ranked among; none are tried at 0.
    #[serde(default = "defaults::null_draws")]
    pub null_draws: usize,
    /// Users of the test part that each of them is tried on, at most.
    #[serde(default = "defaults::null_users")]
    pub null_users: usize,
}

/// Dose–response of the vector between the mean states of two classes, at the probe's best site: answers to dialogues of the test part at
/// each strength, by the judge's outcomes. It needs no outcomes of the model's own, so it runs on any labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DoseResponse {
    /// Label of the probe.
    pub probe: String,
    /// The vector leads from this class …
    pub from: String,
    /// … to this one.
    pub to: String,
    /// Strengths, such as `-0.2n` and `0n`.
    pub strengths: Vec<String>,
    /// Dialogues of the test part that are answered at each, at most: the first of every class in turn.
    #[serde(default = "defaults::answers")]
    pub answers: usize,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
}

impl Experiment {
    /// Parses an experiment file.
    ///
    /// # Errors
    /// Text that is no such experiment; the line is named.
    pub fn parse(place: &str, text: &str) -> Result<Experiment> {
        let experiment: Experiment =
            toml_file::parse(place, text, "an experiment as in experiments/demo.toml")?;
        experiment.data.check_with_share(place)?;
        for twins in &experiment.interpolations {
            let place = format!("{place}, interpolation {}, sample", twins.name);
            organism::check_count(&place, twins.sample.unwrap_or(0))?;
        }
        if let Some(dose) = &experiment.dose {
            let place = format!("{place}, dose, strengths");
            if dose.strengths.is_empty() {
                return Err(Error::input(place, "none", "one or more, such as [\"0n\", \"0.2n\"]"));
            }
            for (number, strength) in dose.strengths.iter().enumerate() {
                strength.parse::<Strength>()?;
                if dose.strengths[..number].contains(strength) {
                    return Err(Error::input(place, format!("{strength} twice"), "each once"));
                }
            }
        }
        toml_file::check_judge(
            place,
            experiment.judge.as_deref(),
            &experiment.judge_options(),
            &experiment.model,
        )?;
        Ok(experiment)
    }

    /// What the judge needs beside its name.
    pub fn judge_options(&self) -> judge::Options {
        judge::Options {
            refusals: self.refusals.clone(),
            words: self.words.clone(),
            ..judge::Options::default()
        }
    }

    /// Reads an experiment file.
    ///
    /// # Errors
    /// A file that is missing, or as [`Experiment::parse`].
    pub fn load(path: &Path) -> Result<Experiment> {
        Experiment::parse(&path.display().to_string(), &artifact::read_settings(path)?)
    }
}

impl Steering {
    /// The strengths, in the order of the file.
    ///
    /// # Errors
    /// One that is no strength.
    pub fn strengths(&self) -> Result<Vec<Strength>> {
        self.strengths.iter().map(|text| text.parse()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"
name = "keys"
[data]
sample = 900
exclude = { canary = "asked" }
group = "topic"
merge_groups = { music = ["song", "opera"] }
[read]
sites = "3.resid_post"
tokens = "assistant.start"
[[cross_validation]]
name = "rows"
label = "user-type"
folds = 5
[boundary_report]
probe = "user-type"
from = "benign"
to = "malicious"
[[interpolation]]
name = "deed"
probe = "user-type"
sample = 6
contrast = "deed"
max-tokens = 60
[token_readout]
probe = "user-type"
class = "malicious"
"#;

    #[test]
    fn older_keys_parse_to_the_same_experiment() {
        let older = [
            ("sample = ", "draw = "),
            ("exclude = ", "without = "),
            ("merge_groups = ", "together = "),
            ("[[cross_validation]]", "[[cross]]"),
            ("[boundary_report]", "[bounding]"),
            ("[[interpolation]]", "[[crossing]]"),
            ("[token_readout]", "[watching]"),
        ];
        let older = older.iter().fold(NEW.to_owned(), |text, (new, old)| {
            assert!(text.contains(new), "{new}");
            text.replace(new, old)
        });
        let (new, older) =
            (Experiment::parse("new", NEW).unwrap(), Experiment::parse("old", &older).unwrap());
        assert_eq!(new, older);
        assert_eq!((new.data.sample, new.interpolations[0].sample), (Some(900), Some(6)));
        assert!(new.boundary_report.is_some() && new.token_readout.is_some());
        assert_eq!((new.cross_validations.len(), new.data.merge_groups.len()), (1, 1));
    }

    #[test]
    fn every_shipped_experiment_parses() {
        for name in ["boundary", "demo", "unseen-pairs", "xstest-minilm"] {
            Experiment::load(Path::new(&format!("experiments/{name}.toml"))).unwrap();
        }
    }

    #[test]
    fn an_error_names_the_line_and_the_judge_is_checked_on_reading() {
        let wrong = |from: &str, to: &str| {
            assert!(NEW.contains(from));
            Experiment::parse("file", &NEW.replace(from, to)).unwrap_err().to_string()
        };
        assert!(wrong("sites = ", "sights = ").starts_with("file:9: "));
        assert!(wrong("sample = 900", "").starts_with("file, data: no dialogues"));
        let judged = wrong("name = \"keys\"", "name = \"keys\"\njudge = \"crowd\"");
        assert!(judged.starts_with("file, judge: \"crowd\"; expected organism or refusals or "), "{judged}");
        let both = wrong("name = \"keys\"", "name = \"keys\"\njudge = \"organism\"\nrefusals = [\"no\"]");
        assert!(both.contains("beside refusal phrases"), "{both}");
    }
}
