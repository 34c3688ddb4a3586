//! Generation options: decoding, limits, seed and batching.

use super::logits_processor::LogitsProcessor;
use super::sampling::Sampling;
use super::token_logits::KeptLogits;
use crate::error::{Error, Result};

/// How answers are generated. The default samples at temperature 1, 128 tokens at most.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Changes to the logits before a token is chosen.
    pub logits_processor: LogitsProcessor,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Texts that end an answer, special tokens among them; the text is cut before the first of them.
    pub stop: Vec<String>,
    /// Tokens of the thinking part, at most: after that many it is closed, and the answer begins.
    pub think_budget: Option<usize>,
    /// Each row samples from a stream of its own, made of this seed and the row's index.
    pub seed: u64,
    /// The index of the first dialogue in the run that the dialogues are a part of; 0 where they are the whole run.
    pub first_row: usize,
    /// The thinking mode of chat templates that have one; their default where none is given.
    pub thinking: Option<bool>,
    /// Rows that are decoded side by side.
    pub batch_rows: usize,
    /// Which logits of the answers' tokens are kept.
    pub logits: KeptLogits,
    /// Token ids that the answers begin with, a list a dialogue, such as a thinking part that is given; empty for none. They count as
    /// generated, but not toward `max_tokens`, and have no logits.
    pub beginnings: Vec<Vec<u32>>,
}

impl Default for GenerateOptions {
    fn default() -> GenerateOptions {
        GenerateOptions {
            sampling: Sampling::Temperature(1.0),
            logits_processor: LogitsProcessor::default(),
            max_tokens: 128,
            stop: Vec::new(),
            think_budget: None,
            seed: 0,
            first_row: 0,
            thinking: None,
            // Decoding is bound by reading the weights, which rows share; more rows cost memory for keys and values.
            batch_rows: 32,
            logits: KeptLogits::None,
            beginnings: Vec::new(),
        }
    }
}

impl GenerateOptions {
    /// Sets how the next token is chosen.
    pub fn sampling(mut self, sampling: Sampling) -> GenerateOptions {
        self.sampling = sampling;
        self
    }

    /// Chooses the likeliest token each time.
    pub fn greedy(self) -> GenerateOptions {
        self.sampling(Sampling::Greedy)
    }

    /// Sets the changes to the logits.
    pub fn logits_processor(mut self, logits_processor: LogitsProcessor) -> GenerateOptions {
        self.logits_processor = logits_processor;
        self
    }

    /// Sets the most tokens of an answer.
    pub fn max_tokens(mut self, max_tokens: usize) -> GenerateOptions {
        self.max_tokens = max_tokens;
        self
    }

    /// Sets the texts that end an answer.
    pub fn stop(mut self, stop: Vec<String>) -> GenerateOptions {
        self.stop = stop;
        self
    }

    /// Sets the most tokens of the thinking part.
    pub fn think_budget(mut self, think_budget: impl Into<Option<usize>>) -> GenerateOptions {
        self.think_budget = think_budget.into();
        self
    }

    /// Sets the index of the first dialogue in the whole run, so that a part of a run samples as the whole does.
    pub fn first_row(mut self, first_row: usize) -> GenerateOptions {
        self.first_row = first_row;
        self
    }

    /// Sets the seed.
    pub fn seed(mut self, seed: u64) -> GenerateOptions {
        self.seed = seed;
        self
    }

    /// Sets the thinking mode.
    pub fn thinking(mut self, thinking: impl Into<Option<bool>>) -> GenerateOptions {
        self.thinking = thinking.into();
        self
    }

    /// Sets the number of rows that are decoded side by side.
    pub fn batch_rows(mut self, batch_rows: usize) -> GenerateOptions {
        self.batch_rows = batch_rows;
        self
    }

    /// Sets which logits of the answers' tokens are kept.
    pub fn logits(mut self, logits: KeptLogits) -> GenerateOptions {
        self.logits = logits;
        self
    }

    /// Sets the token ids that the answers begin with, a list a dialogue.
    pub fn beginnings(mut self, beginnings: Vec<Vec<u32>>) -> GenerateOptions {
        self.beginnings = beginnings;
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    /// A number of the logits processor that is out of range; an empty stop text.
    pub fn check(&self) -> Result<()> {
        self.logits_processor.check()?;
        match self.stop.iter().any(String::is_empty) {
            true => Err(Error::input("stop", "an empty text", "a text that ends an answer")),
            false => Ok(()),
        }
    }
}
