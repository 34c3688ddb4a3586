//! Beginnings of prompts whose keys and values are kept, by their tokens and by the steering that they were read under.

use std::collections::VecDeque;

use crate::model::{Prefix, PromptSteering, Token, same_tokens};

/// A prompt that was read.
struct Entry {
    tokens: Vec<Token>,
    steering: PromptSteering,
    prefix: Prefix,
}

/// Prefixes, the one used last first, in bounded memory.
pub(super) struct PrefixStore {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
}

/// Most prefixes, so that a search among them stays short beside a forward pass.
const MOST: usize = 128;

impl PrefixStore {
    /// A store of at most `limit` bytes.
    pub fn new(limit: usize) -> PrefixStore {
        PrefixStore { entries: VecDeque::new(), bytes: 0, limit }
    }

    /// The prefix of which a prompt can take the most tokens, and how many.
    pub fn find(&mut self, tokens: &[Token], steering: PromptSteering) -> Option<(&Prefix, usize)> {
        let length = |entry: &Entry| steering.same(entry.steering, same_tokens(&entry.tokens, tokens));
        let (at, length) =
            self.entries.iter().map(length).enumerate().rev().max_by_key(|(_, length)| *length)?;
        if length == 0 {
            return None;
        }
        let entry = self.entries.remove(at)?;
        self.entries.push_front(entry);
        self.entries.front().map(|entry| (&entry.prefix, length))
    }

    /// Whether a prompt is here whole, under the same steering.
    pub fn holds(&self, tokens: &[Token], steering: PromptSteering) -> bool {
        self.entries.iter().any(|entry| {
            entry.tokens.len() >= tokens.len()
                && entry.steering.key == steering.key
                && same_tokens(&entry.tokens, tokens) == tokens.len()
        })
    }

    /// Whether anything is kept at all.
    pub fn is_used(&self) -> bool {
        self.limit > 0
    }

    /// Keeps a prompt; the ones that weren't used for longest make room.
    pub fn keep(&mut self, tokens: Vec<Token>, steering: PromptSteering, prefix: Prefix) {
        let bytes = prefix.bytes();
        if bytes > self.limit {
            return;
        }
        self.bytes += bytes;
        self.entries.push_front(Entry { tokens, steering, prefix });
        while self.bytes > self.limit || self.entries.len() > MOST {
            let Some(last) = self.entries.pop_back() else { break };
            self.bytes -= last.prefix.bytes();
        }
    }

    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
