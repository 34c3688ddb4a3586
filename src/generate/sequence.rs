//! One answer while it is being written: what was drawn, what was said of it, and whether it is over.
//! It knows nothing of the model or of other rows.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Finish, Options, Transcript};
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::{Chat, Continuation, Phase, Token};

pub(super) struct Row<'a> {
    /// The dialogue's.
    pub number: usize,
    /// All of the row, so that it can be read anew.
    pub tokens: Vec<Token>,
    chat: &'a Chat,
    options: &'a Options,
    continuation: Continuation<'a>,
    rng: StdRng,
    made: Vec<u32>,
    /// Ids that the row holds; kept where repeating one costs something.
    seen: HashSet<u32>,
    /// Tokens of the thinking part that were made.
    thought: usize,
    /// What closes the thinking part, and how much of it is written already.
    closing: &'a [u32],
    closed: Option<usize>,
    /// The text so far, as far as anybody needs it before the end.
    text: String,
    /// Whether somebody hears the text as it comes, and how many bytes of it were heard.
    listened: bool,
    heard: usize,
    finish: Option<Finish>,
}

impl<'a> Row<'a> {
    pub fn new(
        number: usize,
        prompt: Vec<Token>,
        chat: &'a Chat,
        options: &'a Options,
        closing: &'a [u32],
        listened: bool,
    ) -> Row<'a> {
        let seen = match options.shape.repetition_penalty {
            Some(_) => prompt.iter().map(|token| token.id).collect(),
            None => HashSet::new(),
        };
        Row {
            number,
            continuation: chat.continuation(&prompt),
            tokens: prompt,
            chat,
            options,
            rng: StdRng::seed_from_u64(options.seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            made: Vec::new(),
            seen,
            thought: 0,
            closing,
            closed: None,
            text: String::new(),
            listened,
            heard: 0,
            finish: None,
        }
    }

    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Writes one more token.
    pub fn go_on(&mut self, mut logits: Vec<f32>, on_token: &mut dyn FnMut(usize, &str)) -> Result<()> {
        let id = match self.forced() {
            Some(id) => id,
            None => {
                self.options.shape.apply(&mut logits, self.options.sampling, &self.seen);
                self.options.sampling.next(&logits, &mut self.rng)
            }
        };
        if self.chat.eos().contains(&id) {
            self.finish = Some(Finish::Stop);
            return Ok(());
        }
        self.made.push(id);
        if self.options.shape.repetition_penalty.is_some() {
            self.seen.insert(id);
        }
        let token = self.continuation.next(id);
        self.thought += usize::from(token.phase == Phase::Think);
        self.tokens.push(token);
        if !self.options.stop.is_empty() || self.listened {
            self.text = self.chat.decode(&self.made, true)?;
            let stops = self.options.stop.iter().filter_map(|stop| self.text.find(stop));
            if let Some(at) = stops.min() {
                self.text.truncate(at);
                self.finish = Some(Finish::Stop);
            }
            self.say(on_token);
        }
        Ok(())
    }

    /// The token that must come, where the thinking part has used up its budget.
    fn forced(&mut self) -> Option<u32> {
        let budget = self.options.think_budget?;
        let thinks = self.continuation.is_thinking();
        match self.closed {
            None if thinks && self.thought >= budget => self.closed = Some(0),
            None => return None,
            Some(_) => (),
        }
        let written = self.closed.as_mut()?;
        let id = self.closing.get(*written).copied();
        *written += 1;
        id
    }

    /// What is sure of the text: no character that is cut short, no beginning of what may become a stop.
    fn say(&mut self, on_token: &mut dyn FnMut(usize, &str)) {
        let mut sure = self.text.trim_end_matches('\u{fffd}').len();
        if self.finish.is_none() {
            let whole = &self.text[..sure];
            let begins = |stop: &String| {
                (1..stop.len())
                    .rev()
                    .filter(|&at| stop.is_char_boundary(at))
                    .find(|&at| whole.ends_with(&stop[..at]))
            };
            sure -= self.options.stop.iter().filter_map(begins).max().unwrap_or(0);
        }
        if sure > self.heard {
            on_token(self.number, &self.text[self.heard..sure]);
            self.heard = sure;
        }
    }

    /// What was held back, now that nothing more comes.
    pub fn say_rest(&mut self, on_token: &mut dyn FnMut(usize, &str)) {
        if self.heard < self.text.len() {
            on_token(self.number, &self.text[self.heard..]);
            self.heard = self.text.len();
        }
    }

    pub fn transcript(self, dialogue: &Dialogue) -> Result<Transcript> {
        // Where a text ended it, the text was cut there.
        let text = match self.options.stop.is_empty() {
            true => self.chat.decode(&self.made, true)?,
            false => self.text,
        };
        Ok(Transcript::new(dialogue, text, self.made, self.finish.unwrap_or(Finish::Length)))
    }
}
