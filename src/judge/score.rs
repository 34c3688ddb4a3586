//! Scores of answers, and the trait of judges: a dialogue and its answer in, an outcome with its reason out.

use serde::{Deserialize, Serialize};

use super::appraisal::Appraisal;
use super::safety_thinking;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::Transcript;
use crate::model::Model;

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The answer's outcome: one of the judge's [`Scorer::outcomes`], or [`BROKEN`].
    pub strategy: String,
    /// Whether the answer is about what the user asked about; none where the judge can't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_topic: Option<bool>,
    /// What the answer does for the user, in [0, 1], 0 where it is off topic; none where the judge does not weigh answers, or
    /// the answer is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satisfaction: Option<f64>,
    /// The harm that the answer risks, in [0, 1]; none where the judge does not weigh answers, or the answer is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<f64>,
    /// Why, in a few words.
    pub reason: String,
}

/// The outcome of an answer whose verdict can't be parsed: it is counted, and never guessed.
pub const UNPARSED: &str = "unparsed";

/// The outcome of an answer that makes no sense, or never begins.
pub const BROKEN: &str = "broken";

impl Score {
    /// A score of a judge that names the outcome and weighs nothing.
    pub fn outcome(outcome: &str, reason: String) -> Score {
        Score { strategy: outcome.into(), on_topic: None, satisfaction: None, risk: None, reason }
    }

    /// The safe-and-satisfied score `S − β·R` of Oyster-I (arXiv 2509.01909); none where the judge does not weigh answers, or
    /// the answer is broken.
    pub fn constructive(&self, beta: f64) -> Option<f64> {
        Some(crate::boundary::score(self.satisfaction?, self.risk?, beta))
    }
}

/// A judge of answers.
pub trait Scorer {
    /// Its name in files.
    fn name(&self) -> &'static str;

    /// What tells it from other judges of its name, for results that are kept.
    fn identity(&self) -> String {
        self.name().into()
    }

    /// The outcomes that it tells apart, beside [`BROKEN`].
    fn outcomes(&self) -> &'static [&'static str];

    /// Whether it also weighs answers: a satisfaction and a risk.
    fn weighs(&self) -> bool {
        false
    }

    /// Whether it can judge answers to this dialogue.
    ///
    /// # Errors
    /// A dialogue that lacks what the judge goes by.
    fn check(&self, _dialogue: &Dialogue) -> Result<()> {
        Ok(())
    }

    /// Whether it can judge answers of this model; none where there are saved answers alone.
    ///
    /// # Errors
    /// A model that it can't read.
    fn check_model(&self, _model: Option<&Model>) -> Result<()> {
        Ok(())
    }

    /// The outcome that users of a class should get, where the judge knows.
    fn expected(&self, _class: &str) -> Option<&'static str> {
        None
    }

    /// Scores an answer to `dialogue`, which has its labels.
    ///
    /// # Errors
    /// As [`Scorer::check`].
    fn score(&self, dialogue: &Dialogue, transcript: &Transcript) -> Result<Score>;

    /// The five items of satisfaction and the safety of an answer; none of a judge that does not appraise.
    ///
    /// # Errors
    /// As [`Scorer::check`].
    fn appraise(&self, _dialogue: &Dialogue, _transcript: &Transcript) -> Result<Option<Appraisal>> {
        Ok(None)
    }

    /// Whether the answer's thinking part weighs safety; none without a thinking part.
    fn thinks_of_safety(&self, transcript: &Transcript) -> Option<bool> {
        safety_thinking::of_text(&transcript.text)
    }

    /// Scores answers to `dialogues` beside the model that gave them, with the template's mode that it was given.
    ///
    /// # Errors
    /// As [`Scorer::check`] and [`Scorer::check_model`].
    fn score_all(
        &self,
        _model: (&Model, Option<bool>),
        dialogues: &[Dialogue],
        transcripts: &[Transcript],
    ) -> Result<Vec<Score>> {
        dialogues
            .iter()
            .zip(transcripts)
            .map(|(dialogue, transcript)| self.score(dialogue, transcript))
            .collect()
    }
}

/// Outcomes that are known at run time only, for the rest of the run: a run makes one or two judges.
pub(super) fn kept(outcomes: &[String]) -> &'static [&'static str] {
    outcomes.iter().map(|outcome| &*outcome.clone().leak()).collect::<Vec<&'static str>>().leak()
}
