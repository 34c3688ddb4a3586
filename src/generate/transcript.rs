//! Transcripts: a dialogue with its generated answer.

use serde::{Deserialize, Serialize};

use super::token_logits::TokenLogits;
use crate::dialogue::{Dialogue, Message};

/// A dialogue with the answer that was generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// The id of the dialogue.
    pub id: String,
    /// The messages of the dialogue, without the answer.
    pub messages: Vec<Message>,
    /// The answer, without special tokens.
    pub text: String,
    /// Ids of the generated tokens.
    pub tokens: Vec<u32>,
    /// Why generation ended.
    pub finish: Finish,
    /// What hooks read and changed, token by token, where a trace was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<serde_json::Value>,
    /// Log-probabilities, one a token, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogits>>,
    /// `[tokens][vocabulary]`: all logits, where they were asked for; not part of the JSON.
    #[serde(skip)]
    pub logits: Vec<Vec<f32>>,
    /// What a constructive policy read, believed and chose for this dialogue, where one steered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<serde_json::Value>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended its turn, or wrote a stop text.
    Stop,
    /// The limit of tokens was reached.
    Length,
    /// The run was stopped.
    Stopped,
}

impl Transcript {
    /// The transcript of a dialogue, without a trace.
    pub fn new(dialogue: &Dialogue, text: String, tokens: Vec<u32>, finish: Finish) -> Transcript {
        Transcript {
            id: dialogue.id.clone(),
            messages: dialogue.messages.clone(),
            text,
            tokens,
            finish,
            trace: None,
            logprobs: None,
            logits: Vec::new(),
            decision: None,
        }
    }
}
