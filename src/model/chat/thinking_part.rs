//! Token ids of a thinking part and of its tags.

use super::Chat;
use super::harmony::Channels;
use super::message_spans::{CLOSE, OPEN};
use crate::dialogue::Role;
use crate::error::{Error, Result};
use crate::model::token::Token;

impl Chat {
    /// Token ids of the closing thinking tag.
    ///
    /// # Errors
    /// A tokenizer that can't encode it.
    pub fn close_thinking(&self) -> Result<Vec<u32>> {
        if let Some(channels) = Channels::of(&self.vocabulary) {
            return channels.closing(|text| self.encode(text));
        }
        if let Some(id) = self.vocabulary.id(CLOSE) {
            return Ok(vec![id]);
        }
        let pieces = self.vocabulary.encode(CLOSE, &[], false)?;
        let ids: Vec<u32> = pieces.iter().map(|piece| piece.id).collect();
        match self.decode(&ids, false)?.trim() == CLOSE {
            true => Ok(ids),
            false => Err(Error::input(&self.place, format!("no tokens for {CLOSE}"), "a model that thinks")),
        }
    }

    /// Token ids of a thinking part with its tags, as the beginning of the answer to `prompt`; none where [`Chat::thinking_tags`] are none.
    ///
    /// # Errors
    /// Text that the tokenizer can't encode.
    pub fn thinking_part(&self, prompt: &[Token], text: &str) -> Result<Option<Vec<u32>>> {
        let Some([open, close]) = self.thinking_tags(prompt)? else { return Ok(None) };
        Ok(Some([open, self.encode(text)?, close].concat()))
    }

    /// Token ids before and behind a thinking part that begins the answer to `prompt`; none where the tokenizer has no token for a tag, or
    /// the prompt has closed the thinking part.
    ///
    /// # Errors
    /// A tokenizer that can't encode a line break.
    pub fn thinking_tags(&self, prompt: &[Token]) -> Result<Option<[Vec<u32>; 2]>> {
        let (Some(open), Some(close)) = (self.vocabulary.id(OPEN), self.vocabulary.id(CLOSE)) else {
            return Ok(None);
        };
        let turn = prompt.last().filter(|last| last.role == Role::Assistant).map(|last| last.turn);
        let own = prompt.iter().rev().take_while(|token| Some(token.turn) == turn);
        let tag = own.map(|token| token.id).find(|id| [open, close].contains(id));
        if tag == Some(close) {
            return Ok(None);
        }
        let mut before = if tag.is_none() { vec![open] } else { Vec::new() };
        let line = self.encode("\n")?;
        before.extend(&line);
        let behind = [line, vec![close], self.encode("\n\n")?].concat();
        Ok(Some([before, behind]))
    }
}
