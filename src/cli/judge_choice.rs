//! Judge of answers, as arguments of a command.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use pearlpoint::Result;
use pearlpoint::judge::{self, Endpoint, Options, Purpose, Scorer};
use pearlpoint::model::Model;

/// What a judge looks for.
#[derive(Args)]
pub struct Phrases {
    /// A phrase of which every refusal holds one, for `--judge refusals`; may be repeated [default: common phrases]
    #[arg(long = "refusal", value_name = "PHRASE", allow_hyphen_values = true)]
    refusals: Vec<String>,
    /// A word to look for, for `--judge words`; may be repeated
    #[arg(long = "word", value_name = "WORD", allow_hyphen_values = true)]
    words: Vec<String>,
    /// URL of an OpenAI-compatible endpoint, for `--judge endpoint`; a token for it is read from PEARL_JUDGE_KEY
    #[arg(long, value_name = "URL")]
    judge_url: Option<String>,
    /// The model's name at the endpoint
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    judge_model: Option<String>,
    /// Seconds that an answer of the endpoint may take [default: 60]
    #[arg(long, value_name = "SECONDS", requires = "judge_url")]
    judge_timeout: Option<u64>,
    /// Further tries of the endpoint after a failure, each after a longer pause [default: 3]
    #[arg(long, value_name = "NUMBER", requires = "judge_url")]
    judge_retries: Option<usize>,
    /// Folder in which the endpoint's verdicts are kept, so that none is asked for twice
    #[arg(long, value_name = "FOLDER", requires = "judge_url")]
    judge_cache: Option<PathBuf>,
    /// A judge of your own instead: a command that names its outcomes in its first line, then answers a line of JSON with one (docs/formats.md)
    #[arg(long, value_name = "COMMAND", conflicts_with = "judge")]
    judge_command: Option<String>,
}

impl Phrases {
    /// Whether a URL was given.
    pub fn has_endpoint(&self) -> bool {
        self.judge_url.is_some()
    }

    fn options(&self) -> Options {
        let default = Endpoint::default();
        let endpoint = self.judge_url.as_ref().map(|url| Endpoint {
            purpose: Purpose::Judge,
            url: url.clone(),
            model: self.judge_model.clone().unwrap_or(default.model),
            timeout: self.judge_timeout.map_or(default.timeout, Duration::from_secs),
            retries: self.judge_retries.unwrap_or(default.retries),
            cache: self.judge_cache.clone(),
            key: std::env::var("PEARL_JUDGE_KEY").ok().filter(|key| !key.is_empty()),
        });
        // Who types a command may run it.
        Options { refusals: self.refusals.clone(), words: self.words.clone(), endpoint, commands: true }
    }

    /// The judge of this name, or the one that phrases, words and the model's name imply.
    ///
    /// # Errors
    /// No such judge; phrases or words that it has no use for.
    pub fn judge(&self, name: Option<&str>, model: &str) -> Result<Box<dyn Scorer>> {
        let command = self.judge_command.as_ref().map(|command| format!("command: {command}"));
        judge::of_file(command.as_deref().or(name), &self.options(), model)
    }
}

/// The judge of answers that a model gives.
#[derive(Args)]
pub struct JudgeChoice {
    /// The judge of answers: organism, refusals, rules, words, endpoint or "probe: FILE" [default: endpoint with --judge-url, words with --word, organism for the embedded model, refusals otherwise]
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

    /// The judge of answers of a loaded model, which it can read.
    ///
    /// # Errors
    /// As [`Phrases::judge`]; a probe of another model.
    pub fn of(&self, model: &Model) -> Result<Box<dyn Scorer>> {
        let judge = self.of_model(&model.name)?;
        judge.check_model(Some(model))?;
        Ok(judge)
    }
}
