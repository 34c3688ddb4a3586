//! The record that each token of a batch carries: its place in the batch and its part in the dialogue.

use crate::dialogue::Role;

/// The part of a dialogue that a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The chat template's own tokens: role headers, turn markers, the delimiters of the thinking part.
    Template,
    /// The content of a system, user or tool message.
    Prompt,
    /// The content of an assistant's thinking part.
    Think,
    /// The content of an assistant's message outside its thinking part.
    Answer,
}

/// One token of a batch. A batch is ragged: the tokens of its rows stand end to end, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Index in the vocabulary.
    pub id: u32,
    /// Row of the batch, from 0.
    pub row: usize,
    /// Absolute position in its row, from 0.
    pub position: usize,
    /// Role of its message; the generation prompt belongs to the assistant message that it opens.
    pub role: Role,
    /// Number of its message in the dialogue, from 0.
    pub turn: usize,
    /// Its part of the message.
    pub phase: Phase,
    /// Number of tokens of the same message and phase before it.
    pub index: usize,
    /// Whether it is the last token of the template before the last answer.
    pub start: bool,
    /// Whether the model generated it in this run.
    pub generated: bool,
}

impl Token {
    /// Whether it is part of a message's content, and so not of the template around it.
    pub fn is_content(&self) -> bool {
        self.phase != Phase::Template
    }
}
