//! What was generated, and how it ended.

use serde::{Deserialize, Serialize};

use crate::dialogue::{Dialogue, Message};

/// One dialogue with the answer that was generated to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    pub id: String,
    /// The dialogue as it was given.
    pub messages: Vec<Message>,
    /// The answer; the tokenizer's special tokens are left out.
    pub text: String,
    /// Ids of what was generated.
    pub tokens: Vec<u32>,
    pub finish: Finish,
    /// What was read and changed, token by token, where that was asked for; the hooks' own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<serde_json::Value>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The limit of tokens was reached.
    Length,
}

impl Transcript {
    pub fn new(dialogue: &Dialogue, text: String, tokens: Vec<u32>, finish: Finish) -> Transcript {
        Transcript {
            id: dialogue.id.clone(),
            messages: dialogue.messages.clone(),
            text,
            tokens,
            finish,
            trace: None,
        }
    }
}
