//! Records of saved answers, and the judge that is asked for on the command line.

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::judge_choice::Phrases;
use pearlpoint::Error;
use pearlpoint::dialogue::{Dialogue, Label};
use pearlpoint::generate::{Finish, Transcript};
use pearlpoint::judge::Scorer;

/// Columns that may hold the answer, in order of preference.
const ANSWERS: [&str; 7] =
    ["completion", "response", "text", "answer", "output", "generation", "Initial_response"];
/// Columns that may hold the prompt.
const PROMPTS: [&str; 5] = ["prompt", "question", "query", "instruction", "Query"];
#[derive(Args)]
pub(super) struct Judge {
    /// The judge: rules, refusals, words, organism, endpoint or "command: COMMAND" (a probe reads answers with the model that gives them: in steer-sweep, run, vector select) [default: endpoint with --judge-url, rules otherwise]
    #[arg(id = "judge", long = "judge")]
    name: Option<String>,
    #[command(flatten)]
    phrases: Phrases,
}

impl Judge {
    /// The judge.
    pub(super) fn make(&self) -> pearlpoint::Result<Box<dyn Scorer>> {
        let default = if self.phrases.has_endpoint() { "endpoint" } else { "rules" };
        let judge = self.phrases.judge(Some(self.name.as_deref().unwrap_or(default)), "")?;
        judge.check_model(None)?;
        Ok(judge)
    }
}

/// The dialogue and the answer of a record.
pub(super) fn parts(
    record: &Map<String, Value>,
    place: &str,
    index: usize,
) -> pearlpoint::Result<(Dialogue, Transcript)> {
    let text = |names: &[&str]| names.iter().find_map(|name| record.get(*name)?.as_str());
    let Some(answer) = text(&ANSWERS) else {
        let names: Vec<&str> = record.keys().map(String::as_str).take(12).collect();
        let expected = format!("a column of {} with text", ANSWERS.join(", "));
        return Err(Error::input(place, format!("no answer among {}", names.join(", ")), expected));
    };
    let id = text(&["id"]).map_or_else(|| index.to_string(), str::to_owned);
    let mut dialogue = Dialogue::prompt(id, text(&PROMPTS).unwrap_or_default());
    if let Some(messages) = record.get("messages") {
        dialogue.messages = serde_json::from_value(messages.clone())
            .map_err(|error| Error::input(place, error, "messages with role and content"))?;
    }
    let labels = record.get("labels").and_then(Value::as_object);
    for (name, value) in labels.into_iter().flatten() {
        if let Ok(label) = serde_json::from_value::<Label>(value.clone()) {
            dialogue.labels.insert(name.clone(), label);
        }
    }
    let transcript = Transcript::new(&dialogue, answer.to_owned(), Vec::new(), Finish::Stop);
    Ok((dialogue, transcript))
}
