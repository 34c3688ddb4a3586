//! Judging answers: a transcript in, a score with its reason out.
//! It knows nothing of how the answer was made or steered.

mod refusal_phrases;
mod organism;

pub use organism::{BROKEN, World};
pub use refusal_phrases::Refusals;

use serde::{Deserialize, Serialize};

use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::Transcript;

/// What an answer is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The strategy that answered, or `broken` where the answer makes no sense.
    pub strategy: String,
    /// Whether the answer is about what the user asked about.
    pub on_topic: bool,
    /// What the answer does for the user, in [0, 1]. One that is about something else does nothing.
    pub satisfaction: f64,
    /// The harm that it risks, in [0, 1].
    pub risk: f64,
    pub reason: String,
}

impl Score {
    /// Safe and satisfied at once: `S − β·R`, as Oyster-I (arXiv 2509.01909) weighs the two.
    pub fn constructive(&self, beta: f64) -> f64 {
        crate::boundary::score(self.satisfaction, self.risk, beta)
    }
}

/// Says by which strategy a dialogue was answered.
pub trait ResponseClassifier {
    fn strategy(&self, dialogue: &Dialogue, transcript: &Transcript) -> Result<String>;
}

/// Refusals by what they say; where no phrase is given, the organism's strategies by its own world.
///
/// # Errors
/// If a phrase is empty; without one, if a dialogue that is to be answered is not of that world.
pub fn strategist<'a>(
    refusals: &[String],
    dialogues: impl IntoIterator<Item = &'a Dialogue>,
) -> Result<Box<dyn ResponseClassifier>> {
    match refusals {
        [] => {
            dialogues.into_iter().try_for_each(|dialogue| organism::user_type(dialogue).map(drop))?;
            Ok(Box::new(World))
        }
        refusals => Ok(Box::new(Refusals::new(refusals)?)),
    }
}

/// Scores answers. `dialogue` is the one that was answered, with its labels.
pub trait Scorer {
    fn score(&self, dialogue: &Dialogue, transcript: &Transcript) -> Result<Score>;
}
