//! When to steer: a condition on what a probe reads from the prompt (CAST, arXiv 2409.05907).
//! It knows nothing of what is steered.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use crate::activations::{Reading, extract};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::probe::Probe;

/// `probe FILE[:CLASS] > NUMBER` (or `<`): the class's calibrated probability, read where the probe was fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub probe: PathBuf,
    /// The class that is asked about; the last of a binary probe where none is named.
    pub class: Option<String>,
    /// Whether the probability must be above or below the bound.
    pub above: bool,
    pub bound: f64,
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Condition> {
        let wrong = || {
            let expected = "probe FILE:CLASS > PROBABILITY, or <, with a probability from 0 to 1";
            Error::input(format!("when {text:?}"), "no such condition", expected)
        };
        let rest = text.trim().strip_prefix("probe ").ok_or_else(wrong)?;
        let above = rest.contains('>');
        let (probe, bound) = rest.split_once(['>', '<']).ok_or_else(wrong)?;
        let bound = bound.trim().parse().ok().filter(|bound| (0.0..=1.0).contains(bound));
        let (file, class) = match probe.trim().rsplit_once(':') {
            None => (probe.trim(), None),
            Some((file, class)) => (file, Some(class.to_string())),
        };
        Ok(Condition { probe: file.into(), class, above, bound: bound.ok_or_else(wrong)? })
    }
}

/// Tokens of a batch when prompts are read for a condition.
const BATCH_TOKENS: usize = 8192;

impl Condition {
    /// The rows (numbers of the dialogues) whose prompt meets the condition.
    pub fn rows(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<BTreeSet<usize>> {
        self.rows_by(&Probe::load(&self.probe)?, model, dialogues, thinking)
    }

    /// The same with a probe that is at hand.
    pub fn rows_by(
        &self,
        probe: &Probe,
        model: &Model,
        dialogues: &[Dialogue],
        thinking: Option<bool>,
    ) -> Result<BTreeSet<usize>> {
        let place = || format!("probe {}", self.probe.display());
        if probe.source.model_hash.as_ref().is_some_and(|hash| *hash != model.hash) {
            let expected = format!("a probe of {}", model.name);
            return Err(Error::input(place(), "it was fitted on another model's weights", expected));
        }
        let class = match (&self.class, probe.classes.as_slice()) {
            (Some(class), _) => probe.class(class)?,
            (None, [_, _]) => 1,
            (None, classes) => return Err(Error::input(place(), "no class is named", classes.join(" or "))),
        };
        let reading = Reading {
            sites: vec![probe.source.site],
            tokens: probe.source.tokens.clone(),
            thinking,
            batch_tokens: BATCH_TOKENS,
        };
        let activations = extract(model, dialogues, &reading, &mut |_| true)?;
        let probabilities = probe.probabilities(activations.at(probe.source.site)?.view())?;
        let meets = |row: &usize| (probabilities[[*row, class]] > self.bound) == self.above;
        let rows = (0..activations.example.len()).filter(meets);
        Ok(rows.map(|row| activations.example[row]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_condition() {
        let condition: Condition =
            "probe runs/demo/probes/user-type.safetensors:sensitive > 0.5".parse().unwrap();
        assert_eq!(condition.class.as_deref(), Some("sensitive"));
        assert!(condition.above && condition.bound == 0.5);
        for wrong in ["", "probe a:b", "probe a:b > 2", "a:b > 0.5", "probe a > NaN"] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }
}
