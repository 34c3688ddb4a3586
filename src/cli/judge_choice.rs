//! Judge of answers, as arguments of a command.

use clap::Args;

use pearlpoint::Result;
use pearlpoint::judge::{self, Options, Scorer};

/// What a judge looks for.
#[derive(Args)]
pub struct Phrases {
    /// A phrase of which every refusal holds one, for `--judge refusals`; may be repeated [default: common phrases]
    #[arg(long = "refusal", value_name = "PHRASE", allow_hyphen_values = true)]
    refusals: Vec<String>,
    /// A word to look for, for `--judge words`; may be repeated
    #[arg(long = "word", value_name = "WORD", allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Phrases {
    /// The judge of this name, or the one that phrases, words and the model's name imply.
    ///
    /// # Errors
    /// No such judge; phrases or words that it has no use for.
    pub fn judge(&self, name: Option<&str>, model: &str) -> Result<Box<dyn Scorer>> {
        let options = Options { refusals: self.refusals.clone(), words: self.words.clone() };
        judge::of_file(name, &options, model)
    }
}

/// The judge of answers that a model gives.
#[derive(Args)]
pub struct JudgeChoice {
    /// The judge of answers: organism, refusals, rules or words [default: words with --word, organism for the embedded model, refusals otherwise]
    #[arg(long)]
    judge: Option<String>,
    #[command(flatten)]
    phrases: Phrases,
}

impl JudgeChoice {
    /// Checks what needs no model, so that a wrong judge is named before one is loaded.
    ///
    /// # Errors
    /// As [`Phrases::judge`].
    pub fn check(&self) -> Result<()> {
        self.of_model("").map(drop)
    }

    /// The judge of answers of the model with this name.
    ///
    /// # Errors
    /// As [`Phrases::judge`].
    pub fn of_model(&self, model: &str) -> Result<Box<dyn Scorer>> {
        self.phrases.judge(self.judge.as_deref(), model)
    }
}
