//! The constructive experiment: which policy is fitted, and which arms answer beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Data, defaults, toml_file};
use crate::error::{Error, Result};
use crate::judge;

/// A whole experiment: a policy is fitted, and arms answer the test part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConstructiveFile {
    /// The experiment's name.
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
    /// Tokens of an answer, at most.
    #[serde(default = "defaults::max_tokens")]
    pub max_tokens: usize,
    /// The dialogues and their split; the policy is fitted on the fit and validation parts, the arms answer the test part.
    pub data: Data,
    /// Further labels with values that nothing is fitted or chosen on; the test part has them, and is scored on them apart too.
    #[serde(default)]
    pub held_out: BTreeMap<String, Vec<String>>,
    /// What is fitted; the organism's where nothing else is said.
    #[serde(default)]
    pub fit: PolicyFit,
    /// Who answers beside the model alone, which the others are compared with.
    #[serde(rename = "arm")]
    pub arms: Vec<PolicyArm>,
}

/// What a policy is fitted from; the organism's labels and sites where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PolicyFit {
    /// The label of the user's type.
    pub label: Option<String>,
    /// Its value for users who attack.
    pub attack: Option<String>,
    /// Its value for benign users.
    pub benign: Option<String>,
    /// The label of the risk level.
    pub risk: Option<String>,
    /// The label of the level of disguise.
    pub disguise: Option<String>,
    /// Sites that the user's type is read at.
    pub read_sites: Option<String>,
    /// Sites that are steered.
    pub sites: Option<String>,
    /// Tokens that are steered, such as `generated`; by default the first of the answer.
    pub tokens: Option<String>,
    /// The strategies that are steered.
    #[serde(rename = "strategy")]
    pub strategies: Vec<StrategySpec>,
    /// A game (TOML); measured with simulated users of the organism's world where there is none.
    pub game: Option<PathBuf>,
    /// Simulated users of each type.
    pub users: Option<usize>,
    /// Greatest strength tried, in residual norms.
    pub max_strength: Option<f64>,
    /// Answers that a dose rests on.
    pub dose_answers: Option<usize>,
}

/// A strategy that is steered: for which class of users its direction is found, and between which outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategySpec {
    /// The action of the game.
    pub action: String,
    /// The class of users whose answers are contrasted.
    pub class: String,
    /// The outcome steered from.
    pub from: String,
    /// The outcome steered to.
    pub to: String,
    /// The prompts that its direction is found on, where it is not found on the model's own answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrast: Option<PromptContrast>,
}

/// A contrast of prompts by a label: the direction leads from prompts of one value to those of the other, whatever the model answers
/// (refusal direction, Arditi et al., arXiv 2406.11717).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptContrast {
    /// The label.
    pub label: String,
    /// Its value that the direction leads from.
    pub from: String,
    /// Its value that the direction leads to.
    pub to: String,
}

impl StrategySpec {
    /// Parses `ACTION=CLASS:FROM:TO`.
    ///
    /// # Errors
    /// Text of another form.
    pub fn parse(text: &str) -> Result<StrategySpec> {
        let [action, class, from, to] = four_parts("strategy", text, "ACTION=CLASS:FROM:TO")?;
        Ok(StrategySpec { action, class, from, to, contrast: None })
    }
}

impl PromptContrast {
    /// Parses `ACTION=LABEL:FROM:TO`; gives the action too.
    ///
    /// # Errors
    /// Text of another form.
    pub fn parse(text: &str) -> Result<(String, PromptContrast)> {
        let [action, label, from, to] = four_parts("contrast", text, "ACTION=LABEL:FROM:TO")?;
        Ok((action, PromptContrast { label, from, to }))
    }
}

fn four_parts(place: &str, text: &str, expected: &str) -> Result<[String; 4]> {
    let wrong = || Error::input(place, format!("{text:?}"), expected);
    let (action, rest) = text.split_once('=').ok_or_else(wrong)?;
    let parts: Vec<&str> = rest.split(':').collect();
    match parts.as_slice() {
        [first, from, to] if ![action, first, from, to].iter().any(|part| part.is_empty()) => {
            Ok([action, first, from, to].map(str::to_owned))
        }
        _ => Err(wrong()),
    }
}

/// Who answers: the policy, whole or without a part, or something that it has to beat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyArm {
    /// Its name in tables.
    pub name: String,
    /// Parts of the policy that are taken away: game, belief, reasoning, face.
    #[serde(default)]
    pub without: Vec<String>,
    /// The action that every user gets, whatever is read.
    #[serde(default)]
    pub always: Option<String>,
    /// Whether the directions are random ones of the same length.
    #[serde(default)]
    pub random: bool,
    /// A system message instead of any steering.
    #[serde(default)]
    pub system: Option<String>,
}

impl ConstructiveFile {
    /// Parses and checks a file; `place` is its name in errors.
    ///
    /// # Errors
    /// Text that is no such file; an arm named twice, or as the model alone is, or that asks for two things.
    pub fn parse(place: &str, text: &str) -> Result<ConstructiveFile> {
        let file: ConstructiveFile = toml_file::parse(place, text, "keys of a constructive experiment")?;
        file.data.check(place)?;
        toml_file::check_judge(place, file.judge.as_deref(), &judge::Options::default(), &file.model)?;
        for (index, arm) in file.arms.iter().enumerate() {
            let at = || format!("{place}, arm {:?}", arm.name);
            if arm.name.is_empty()
                || arm.name == UNSTEERED
                || file.arms[..index].iter().any(|other| other.name == arm.name)
            {
                return Err(Error::input(at(), "a name that is taken", "a name of its own"));
            }
            let steers = !arm.without.is_empty() || arm.always.is_some() || arm.random;
            if arm.system.is_some() && steers {
                return Err(Error::input(at(), "a system message beside steering", "one of them"));
            }
        }
        Ok(file)
    }
}

/// Name of the model alone in tables.
pub const UNSTEERED: &str = "unsteered";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_is_written_with_its_class_and_outcomes() {
        let spec = StrategySpec::parse("guide=sensitive:refuse:guide").unwrap();
        assert_eq!(
            (spec.class.as_str(), spec.from.as_str(), spec.to.as_str()),
            ("sensitive", "refuse", "guide")
        );
        for text in ["guide", "guide=a:b", "guide=a::c", "=a:b:c", "guide=a:b:c:d"] {
            let error = StrategySpec::parse(text).unwrap_err().to_string();
            assert!(error.ends_with("expected ACTION=CLASS:FROM:TO"), "{error}");
        }
        let (action, contrast) = PromptContrast::parse("refuse=label:safe:unsafe").unwrap();
        assert_eq!(
            (action.as_str(), contrast.label.as_str(), contrast.to.as_str()),
            ("refuse", "label", "unsafe")
        );
        assert!(PromptContrast::parse("refuse=label:safe").is_err());
    }
}
