//! Task: how it is known whether an aim was reached. An answer in, a verdict out.

use serde::{Deserialize, Serialize};

use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::Transcript;

/// What an answer was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The outcome's name.
    pub outcome: String,
    /// Whether the aim was reached.
    pub success: bool,
    /// Whether the request was turned down.
    pub refused: bool,
    /// What the answer is worth to its user, in [0, 1], where the judge knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub satisfaction: Option<f64>,
    /// The harm that it risks, in [0, 1], where the judge knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<f64>,
}

impl Verdict {
    /// The verdict on a refusal in the model's place: it satisfies nobody, and risks nothing.
    pub fn blocked() -> Verdict {
        Verdict {
            outcome: "blocked".into(),
            success: false,
            refused: true,
            satisfaction: Some(0.0),
            risk: Some(0.0),
        }
    }
}

/// A task.
pub trait Task {
    /// Judges an answer to a dialogue that ends with the user's message.
    ///
    /// # Errors
    /// A dialogue that lacks what the judge goes by.
    fn judge(&self, dialogue: &Dialogue, transcript: &Transcript) -> Result<Verdict>;

    /// The answer of a defence that refuses.
    fn refusal(&self) -> &str;
}

/// The answer as the user sees it, without the thinking part.
pub(super) fn visible(text: &str) -> &str {
    text.rsplit_once("</think>").map_or(text, |(_, visible)| visible).trim()
}
