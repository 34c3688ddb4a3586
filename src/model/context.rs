//! The longest dialogue that a model reads: its context length, which a prompt is compared with before any forward pass.

use std::str::FromStr;

use super::transformer::architecture::Architecture;
use super::transformer::rope::Scaling;
use super::{Chat, Model};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};

/// What happens to a dialogue with more tokens than the model's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TooLong {
    /// It is an error.
    #[default]
    Error,
    /// It is left out and counted.
    Skip,
}

impl FromStr for TooLong {
    type Err = Error;

    fn from_str(text: &str) -> Result<TooLong> {
        match text {
            "error" => Ok(TooLong::Error),
            "skip" => Ok(TooLong::Skip),
            _ => Err(Error::input("--too-long", text, "error or skip")),
        }
    }
}

/// Bytes that a template writes around a message, at most, when the length of a dialogue is only estimated.
const AROUND_MESSAGE: usize = 256;

impl Architecture {
    /// The most tokens of a dialogue: the learned positions, or the context length, times the factor where a rotary embedding is
    /// stretched beyond it.
    pub fn longest(&self) -> usize {
        let factor = self.ropes.iter().map(|rope| match rope.scaling {
            Scaling::Linear { factor } | Scaling::Dynamic { factor, .. } => factor,
            _ => 1.0,
        });
        let factor = factor.fold(1.0, f64::max);
        self.positions.unwrap_or((self.context as f64 * factor) as usize)
    }

    /// The error of a dialogue with more than [`Architecture::longest`] tokens.
    pub fn too_long(&self, dialogue: &Dialogue, tokens: usize) -> Error {
        let expected = format!("at most {}, the model's context, or --too-long skip", self.longest());
        Error::input(format!("dialogue {}", dialogue.id), format!("{tokens} tokens"), expected)
    }
}

impl Chat {
    /// The number of tokens of a dialogue, where it may be above `limit`: a token stands for a byte or more of the text.
    fn length_if_long(
        &self,
        dialogue: &Dialogue,
        limit: usize,
        thinking: Option<bool>,
    ) -> Result<Option<usize>> {
        let fields = |message: &crate::dialogue::Message| match message.fields.is_empty() {
            true => 0,
            false => message.fields.values().map(|value| value.to_string().len()).sum(),
        };
        let messages =
            dialogue.messages.iter().map(|message| message.content.len() + fields(message) + AROUND_MESSAGE);
        let variables = dialogue.variables.values().map(|value| value.to_string().len());
        let bytes = messages.chain(variables).sum::<usize>() + self.template().unwrap_or_default().len();
        match bytes > limit {
            true => Ok(Some(self.tokens(dialogue, 0, thinking)?.len())),
            false => Ok(None),
        }
    }
}

impl Model {
    /// The number of tokens of a dialogue that has more than the model's context.
    ///
    /// # Errors
    /// A dialogue that the chat template refuses.
    pub fn excess(&self, dialogue: &Dialogue, thinking: Option<bool>) -> Result<Option<usize>> {
        let limit = self.decoder.architecture().longest();
        let length = self.chat.length_if_long(dialogue, limit, thinking)?;
        Ok(length.filter(|length| *length > limit))
    }
}
