//! One row during generation: logits in, the next token out; its text is streamed, and its end is detected.

use std::collections::HashSet;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::options::GenerateOptions;
use super::token_logits::{KeptLogits, TokenLogits};
use super::transcript::{Finish, Transcript};
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::{Chat, Continuation, Phase, Token};

/// The state of one row.
pub(super) struct Sequence<'a> {
    /// The index of the dialogue.
    pub row: usize,
    /// Prompt and answer, so that the row can be read again.
    pub tokens: Vec<Token>,
    chat: &'a Chat,
    options: Arc<GenerateOptions>,
    continuation: Continuation<'a>,
    rng: StdRng,
    /// Ids of the answer's tokens.
    generated: Vec<u32>,
    /// How many of them were given.
    given: usize,
    /// Ids in the row; kept where there is a repetition penalty.
    seen: HashSet<u32>,
    /// Number of tokens in the thinking part.
    think_tokens: usize,
    /// Ids that close the thinking part.
    closing: Arc<[u32]>,
    /// How many of them are written, once the budget is used up.
    closing_written: Option<usize>,
    /// The text so far; kept up where it is streamed or searched for stop texts.
    text: String,
    /// Whether the text is streamed.
    stream: bool,
    /// Tokens of prompt and answer, at most: the learned positions.
    longest: usize,
    /// Bytes of the text that were streamed.
    streamed: usize,
    finish: Option<Finish>,
    /// Log-probabilities and logits, as the options ask for.
    logprobs: Vec<TokenLogits>,
    logits: Vec<Vec<f32>>,
}

impl<'a> Sequence<'a> {
    /// A row with its prompt, whose tokens have the row's number. `random_stream`: number of its stream of random numbers;
    /// `stream`: whether its text is heard as it is decoded; `longest`: the model's learned positions, or no limit.
    pub fn new(
        (prompt, longest): (Vec<Token>, usize),
        random_stream: usize,
        chat: &'a Chat,
        options: Arc<GenerateOptions>,
        closing: Arc<[u32]>,
        stream: bool,
    ) -> Sequence<'a> {
        // Without a prompt there is no token whose logits would give the next.
        let finish = (options.max_tokens == 0 || prompt.is_empty()).then_some(Finish::Length);
        let random = options.seed ^ (random_stream as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let seen = match options.logits_processor.repetition_penalty {
            Some(_) => prompt.iter().map(|token| token.id).collect(),
            None => HashSet::new(),
        };
        Sequence {
            row: prompt.first().map_or(0, |token| token.row),
            continuation: chat.continuation(&prompt),
            tokens: prompt,
            chat,
            options,
            rng: StdRng::seed_from_u64(random),
            generated: Vec::new(),
            given: 0,
            seen,
            think_tokens: 0,
            closing,
            closing_written: None,
            text: String::new(),
            stream,
            longest,
            streamed: 0,
            finish,
            logprobs: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Begins the answer with tokens that are given. They don't count toward the most tokens.
    pub fn begin(&mut self, ids: &[u32]) {
        for &id in ids {
            self.append(id);
        }
        self.given = self.generated.len();
    }

    /// Whether the answer is complete.
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether the answer has a token, or is complete without one.
    pub fn has_begun(&self) -> bool {
        self.finish.is_some() || !self.generated.is_empty()
    }

    /// Chooses the next token and appends it.
    pub fn step(&mut self, logits: Vec<f32>, on_token: &mut dyn FnMut(usize, &str)) -> Result<()> {
        self.choose(logits, on_token)?;
        let is_full = self.tokens.len() >= self.longest;
        if (is_full || self.generated.len() - self.given >= self.options.max_tokens) && self.finish.is_none()
        {
            self.finish = Some(Finish::Length);
        }
        if self.is_finished() {
            self.flush_text(on_token);
        }
        Ok(())
    }

    fn choose(&mut self, mut logits: Vec<f32>, on_token: &mut dyn FnMut(usize, &str)) -> Result<()> {
        let own = match self.options.logits {
            KeptLogits::None => Vec::new(),
            _ => logits.clone(),
        };
        let id = match self.forced() {
            Some(id) => id,
            None => {
                self.options.logits_processor.apply(&mut logits, self.options.sampling, &self.seen);
                self.options.sampling.next(&logits, &mut self.rng)
            }
        };
        if self.chat.eos().contains(&id) {
            self.finish = Some(Finish::Stop);
            return Ok(());
        }
        match self.options.logits {
            KeptLogits::None => {}
            KeptLogits::Top(count) => self.logprobs.push(TokenLogits::new(self.chat, id, &own, count)?),
            KeptLogits::All => self.logits.push(own),
        }
        self.append(id);
        if !self.options.stop.is_empty() || self.stream {
            self.text = self.chat.answer_text(&self.generated)?;
            if let Some(before) = self.before_stop()? {
                self.text = before;
                self.finish = Some(Finish::Stop);
            }
            if self.stream {
                self.stream_text(on_token);
            }
        }
        Ok(())
    }

    fn append(&mut self, id: u32) {
        self.generated.push(id);
        if self.options.logits_processor.repetition_penalty.is_some() {
            self.seen.insert(id);
        }
        let token = self.continuation.next(id);
        self.think_tokens += usize::from(token.phase == Phase::Think);
        self.tokens.push(token);
    }

    /// The text before the first stop text. Stop texts are searched in the text with special tokens, which the answer is written
    /// without.
    fn before_stop(&self) -> Result<Option<String>> {
        if self.options.stop.is_empty() {
            return Ok(None);
        }
        let whole = self.chat.decode(&self.generated, false)?;
        let Some(at) = self.options.stop.iter().filter_map(|stop| whole.find(stop)).min() else {
            return Ok(None);
        };
        // Tokens that end before the stop text, and the text of the next one up to it.
        let mut count = self.generated.len();
        let mut length = whole.len();
        while length > at {
            count -= 1;
            length = self.chat.decode(&self.generated[..count], false)?.len();
        }
        let before = self.chat.answer_text(&self.generated[..count])?;
        Ok(Some(before + whole.get(length..at).unwrap_or_default()))
    }

    /// The next closing token, once the thinking part has used up its budget.
    fn forced(&mut self) -> Option<u32> {
        let budget = self.options.think_budget?;
        let thinks = self.continuation.is_thinking();
        match self.closing_written {
            None if thinks && self.think_tokens >= budget => self.closing_written = Some(0),
            None => return None,
            Some(_) => (),
        }
        let written = self.closing_written.as_mut()?;
        let id = self.closing.get(*written).copied();
        *written += 1;
        id
    }

    /// Streams the text that can't change any more: no incomplete character, no beginning of a stop text.
    fn stream_text(&mut self, on_token: &mut dyn FnMut(usize, &str)) {
        let mut stable = self.text.trim_end_matches('\u{fffd}').len();
        if self.finish.is_none() {
            let whole = &self.text[..stable];
            let partial_stop = |stop: &String| {
                (1..stop.len())
                    .rev()
                    .filter(|&at| stop.is_char_boundary(at))
                    .find(|&at| whole.ends_with(&stop[..at]))
            };
            stable -= self.options.stop.iter().filter_map(partial_stop).max().unwrap_or(0);
        }
        if stable > self.streamed {
            on_token(self.row, &self.text[self.streamed..stable]);
            self.streamed = stable;
        }
    }

    /// Streams the rest of the text, at the end.
    pub fn flush_text(&mut self, on_token: &mut dyn FnMut(usize, &str)) {
        if self.stream && self.streamed < self.text.len() {
            on_token(self.row, &self.text[self.streamed..]);
            self.streamed = self.text.len();
        }
    }

    /// The answer's tokens so far.
    pub fn answer(&self) -> &[Token] {
        &self.tokens[self.tokens.len() - self.generated.len()..]
    }

    /// The log-probabilities of the last token, where they are kept.
    pub fn last_logits(&self) -> Option<&TokenLogits> {
        self.logprobs.last()
    }

    /// Why the answer is complete, if it is.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The answer with its dialogue; `is_stopped`: whether the run was.
    pub fn into_transcript(self, dialogue: &Dialogue, is_stopped: bool) -> Result<Transcript> {
        let unfinished = if is_stopped { Finish::Stopped } else { Finish::Length };
        // With stop texts, the text is kept up, and was cut before the first of them.
        let text = match self.options.stop.is_empty() {
            true => self.chat.answer_text(&self.generated)?,
            false => self.text,
        };
        let transcript = Transcript::new(dialogue, text, self.generated, self.finish.unwrap_or(unfinished));
        let logprobs = matches!(self.options.logits, KeptLogits::Top(_)).then_some(self.logprobs);
        Ok(Transcript { logprobs, logits: self.logits, ..transcript })
    }
}
