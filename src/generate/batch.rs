//! A batch of answers that are decoded side by side: a row joins and leaves it between tokens.
//!
//! A row's answer doesn't depend on the other rows, on the pass in which its prompt was read, or on whether the beginning of its prompt
//! came from a cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::options::GenerateOptions;
use super::sequence::Sequence;
use super::token_logits::TokenLogits;
use super::transcript::{Finish, Transcript};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Cache, Hook, Model, Prefix, SHORTEST_PART, Token};

/// Rows that are decoded side by side.
pub struct Batch<'a> {
    model: &'a Model,
    cache: Cache,
    rows: BTreeMap<usize, Sequence<'a>>,
    /// Tokens of prompts in one pass.
    pass_tokens: usize,
    /// Rows whose prompts are read in one pass.
    whole: BTreeSet<usize>,
    /// The ids that close a thinking part; read once they are needed.
    closing: Option<Arc<[u32]>>,
}

/// A row that joins a batch.
pub struct Joining<'p> {
    /// The tokens of its prompt, all with the number of a row that isn't in the batch.
    pub prompt: Vec<Token>,
    /// Ids of tokens that the answer begins with.
    pub beginning: Vec<u32>,
    /// How it is answered; `batch_rows` and `beginnings` count for nothing.
    pub options: Arc<GenerateOptions>,
    /// The number of its stream of random numbers.
    pub random_stream: usize,
    /// Whether its text is heard as it is decoded.
    pub stream: bool,
    /// Whether its prompt is read in one pass, however long it is.
    pub whole: bool,
    /// Keys and values of its first tokens, how many of these are taken, and the row's [`Hook::cache_key`].
    pub prefix: Option<(&'p Prefix, usize, u64)>,
}

/// What one step did to a row.
#[derive(Debug)]
pub struct Decoded<'s> {
    /// The row.
    pub row: usize,
    /// The token; none where the model ended its turn.
    pub token: Option<&'s Token>,
    /// Text that can't change any more, where the row is streamed.
    pub text: String,
    /// Log-probabilities of the token, where the options keep them.
    pub logits: Option<&'s TokenLogits>,
    /// Why the answer is complete, if it is.
    pub finish: Option<Finish>,
}

impl<'a> Batch<'a> {
    /// A batch without rows.
    pub fn new(model: &'a Model) -> Batch<'a> {
        let (cache, rows) = (Cache::default(), BTreeMap::new());
        Batch { model, cache, rows, pass_tokens: usize::MAX, whole: BTreeSet::new(), closing: None }
    }

    /// Sets how many tokens of prompts one pass reads, so that a long prompt doesn't keep the other rows waiting.
    pub fn pass_tokens(mut self, tokens: usize) -> Batch<'a> {
        self.pass_tokens = tokens.max(self.model.decoder.part_tokens().unwrap_or(1));
        self
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row.
    ///
    /// # Errors
    /// A thinking budget for a model without a closing tag; a prefix that is shorter than is taken of it.
    pub fn join(&mut self, joining: Joining) -> Result<()> {
        let Joining { prompt, beginning, options, random_stream, stream, whole, prefix } = joining;
        let closing = match (options.think_budget, &self.closing) {
            (None, _) => Arc::from([]),
            (Some(_), Some(closing)) => closing.clone(),
            (Some(_), None) => self.closing.insert(self.model.chat.close_thinking()?.into()).clone(),
        };
        let mut sequence = Sequence::new(
            (prompt, self.model.decoder.architecture().positions.unwrap_or(usize::MAX)),
            random_stream,
            &self.model.chat,
            options,
            closing,
            stream,
        );
        sequence.begin(&beginning);
        let row = sequence.row;
        self.cache.forget(row);
        if let Some((prefix, length, steered)) = prefix {
            self.cache.begin(row, prefix, length, steered)?;
        }
        match whole {
            true => self.whole.insert(row),
            false => self.whole.remove(&row),
        };
        self.rows.insert(row, sequence);
        Ok(())
    }

    /// The tokens of a row, and how many of them are in the cache.
    pub fn row(&self, row: usize) -> Option<(&[Token], usize)> {
        self.rows.get(&row).map(|sequence| (sequence.tokens.as_slice(), self.cache.length(row)))
    }

    /// The tokens of a row's prompt.
    pub fn prompt(&self, row: usize) -> Option<&[Token]> {
        self.rows
            .get(&row)
            .map(|sequence| &sequence.tokens[..sequence.tokens.len() - sequence.answer().len()])
    }

    /// Copies of the keys and values of a row's first tokens.
    ///
    /// # Errors
    /// More tokens than the row has in the cache.
    pub fn prefix(&self, row: usize, length: usize) -> Result<Prefix> {
        self.cache.copy(row, length)
    }

    /// One forward pass: a token of every row whose prompt is read, and a part of the prompts that aren't. `heard` gets what each row
    /// decoded. Complete rows stay until they [leave](Batch::leave), and are passed over.
    ///
    /// # Errors
    /// An error of the hook or of the pass, after which the rows can't go on before [`Batch::undo`].
    pub fn step(&mut self, hook: &mut dyn Hook, heard: &mut dyn FnMut(Decoded)) -> Result<()> {
        self.step_of(None, hook, heard)
    }

    /// A step of one row, after a step of all failed and [`Batch::undo`].
    ///
    /// # Errors
    /// As [`Batch::step`]; a row that was read and didn't go on.
    pub fn step_alone(
        &mut self,
        row: usize,
        hook: &mut dyn Hook,
        heard: &mut dyn FnMut(Decoded),
    ) -> Result<()> {
        let held = self.cache.length(row);
        if self.rows.get(&row).is_some_and(|own| !own.is_finished() && held >= own.tokens.len()) {
            return Err(Error::Tensor(candle_core::Error::Msg("a pass that broke off".into())));
        }
        self.step_of(Some(row), hook, heard)
    }

    /// Forgets what a pass that failed computed. The rows can then go on alone.
    ///
    /// # Errors
    /// A tensor operation.
    pub fn undo(&mut self) -> Result<()> {
        self.cache.undo()
    }

    fn step_of(
        &mut self,
        only: Option<usize>,
        hook: &mut dyn Hook,
        heard: &mut dyn FnMut(Decoded),
    ) -> Result<()> {
        let (mut tokens, mut last, mut deciding): (Vec<Token>, Vec<usize>, Vec<usize>) = Default::default();
        let mut left = self.pass_tokens;
        let own = self.rows.iter().filter(|(row, _)| only.is_none_or(|only| only == **row));
        for (&row, sequence) in own.filter(|(_, sequence)| !sequence.is_finished()) {
            let mut held = self.cache.length(row);
            if self.model.decoder.rereads(held, sequence.tokens.len()) {
                self.cache.forget(row);
                held = 0;
            }
            let unread = &sequence.tokens[held..];
            let part = match unread.len() {
                0 | 1 => unread.len(),
                count => match self.model.decoder.part_tokens() {
                    Some(unit) if !self.whole.contains(&row) => part(count, left, unit),
                    _ => count,
                },
            };
            left = left.saturating_sub(part.saturating_sub(1));
            tokens.extend_from_slice(&unread[..part]);
            if part > 0 && part == unread.len() {
                last.push(tokens.len() - 1);
                deciding.push(row);
            }
        }
        if tokens.is_empty() {
            return Ok(());
        }
        let logits = self.model.decoder.forward(&tokens, Some(&mut self.cache), &last, hook)?;
        let logits: Vec<Vec<f32>> = match last.is_empty() {
            true => Vec::new(),
            false => logits.to_vec2()?,
        };
        for (row, logits) in deciding.into_iter().zip(logits) {
            let Some(sequence) = self.rows.get_mut(&row) else { continue };
            let (before, mut text) = (sequence.answer().len(), String::new());
            sequence.step(logits, &mut |_, more| text.push_str(more))?;
            let token = sequence.answer().get(before);
            let logits = token.and_then(|_| sequence.last_logits());
            heard(Decoded { row, token, text, logits, finish: sequence.finish() });
        }
        Ok(())
    }

    /// Removes a row, and gives its answer and the keys and values of the tokens that were read. A row that isn't complete ends as
    /// [`Finish::Stopped`].
    ///
    /// # Errors
    /// Ids that the tokenizer can't decode.
    pub fn leave(&mut self, row: usize, dialogue: &Dialogue) -> Result<Option<(Transcript, Prefix)>> {
        let Some(mut sequence) = self.rows.remove(&row) else { return Ok(None) };
        let prefix = self.cache.take(row);
        sequence.flush_text(&mut |_, _| {});
        Ok(Some((sequence.into_transcript(dialogue, true)?, prefix)))
    }

    /// Whether every row is complete.
    pub fn is_finished(&self) -> bool {
        self.rows.values().all(Sequence::is_finished)
    }

    /// Whether a row has a token, or is complete without one.
    pub fn has_begun(&self, row: usize) -> bool {
        self.rows.get(&row).is_some_and(Sequence::has_begun)
    }

    /// The text of a row that was held back, since more might have changed it.
    pub fn flush_text(&mut self, row: usize) -> String {
        let mut text = String::new();
        if let Some(sequence) = self.rows.get_mut(&row) {
            sequence.flush_text(&mut |_, more| text.push_str(more));
        }
        text
    }
}

/// How many of `unread` tokens a pass reads that has room for `room`: all, or a multiple of `unit` after which [`SHORTEST_PART`] or more are
/// left. What is too short to be cut is read where there is room for a unit.
fn part(unread: usize, room: usize, unit: usize) -> usize {
    match unread {
        unread if unread <= room => unread,
        unread if unread < unit + SHORTEST_PART && room >= unit => unread,
        _ => room.min(unread.saturating_sub(SHORTEST_PART)) / unit * unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_cut_after_whole_units_and_always_read() {
        for unit in [1, 42, 64, 128] {
            for unread in 2..400 {
                for room in 0..300 {
                    let part = part(unread, room, unit);
                    let rest = unread - part;
                    assert!(rest == 0 || part.is_multiple_of(unit), "{unread} {room} {unit}");
                    assert!(rest == 0 || part == 0 || rest >= SHORTEST_PART, "{unread} {room} {unit}");
                    assert!(part > 0 || room < unit, "{unread} {room} {unit}");
                }
            }
        }
    }
}
