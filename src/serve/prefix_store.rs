//! Beginnings of prompts whose keys and values are kept, by their tokens and by the steering that they were read under.

use std::collections::VecDeque;

use crate::model::{Prefix, Token, same_tokens};

/// A prompt that was read.
struct Entry {
    tokens: Vec<Token>,
    steering: Steering,
    prefix: Prefix,
}

/// What steering does to a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steering {
    /// [`crate::model::Hook::cache_key`] of the row; 0 where it is not steered.
    pub key: u64,
    /// The number of leading tokens that steering neither changes nor reads.
    pub untouched: usize,
    /// The number of leading tokens that may be taken from a prompt of the same key and the same tokens: what steering does there follows
    /// from these tokens alone, and nothing later depends on having seen them.
    pub resumable: usize,
}

impl Steering {
    /// How many of the `shared` first tokens of two prompts have the same keys and values.
    pub fn same(self, other: Steering, shared: usize) -> usize {
        let untouched = shared.min(self.untouched).min(other.untouched);
        match self.key == other.key {
            true => untouched.max(shared.min(self.resumable).min(other.resumable)),
            false => untouched,
        }
    }
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
    pub fn find(&mut self, tokens: &[Token], steering: Steering) -> Option<(&Prefix, usize)> {
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
    pub fn holds(&self, tokens: &[Token], steering: Steering) -> bool {
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
    pub fn keep(&mut self, tokens: Vec<Token>, steering: Steering, prefix: Prefix) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_one_plan_is_never_anothers() {
        let none = Steering { key: 0, untouched: usize::MAX, resumable: usize::MAX };
        let a = Steering { key: 1, untouched: 0, resumable: usize::MAX };
        let b = Steering { key: 2, untouched: 0, resumable: usize::MAX };
        assert_eq!((a.same(a, 9), a.same(b, 9), a.same(none, 9)), (9, 0, 0));
        assert_eq!(none.same(none, 9), 9);
        // What no plan touches is every plan's.
        let late = Steering { key: 3, untouched: 6, resumable: usize::MAX };
        assert_eq!((late.same(none, 9), late.same(a, 9), late.same(late, 9)), (6, 0, 9));
        let dosed = Steering { resumable: 6, ..late };
        assert_eq!(dosed.same(dosed, 9), 6);
    }
}
