//! Prompts that were read, by dialogue and by what steered them: a later round of the same dialogue begins with their keys and values, so that
//! only what is new is read.

use std::collections::HashMap;

use super::hook::PromptSteering;
use super::token::Token;
use super::transformer::decoder::{Decoder, SHORTEST_PART};
use super::transformer::kv_cache::Prefix;

/// Keys and values of dialogues' prompts as they were last read, without steering and with it, in memory linear in their tokens.
#[derive(Default)]
pub struct PromptCache {
    kept: HashMap<String, Kept>,
    read: usize,
}

/// What is kept of a dialogue: its prompt as it was last read without steering, and under the last steering.
#[derive(Default)]
struct Kept {
    plain: Option<Entry>,
    steered: Option<Entry>,
}

struct Entry {
    tokens: Vec<Token>,
    steering: PromptSteering,
    prefix: Prefix,
}

impl PromptCache {
    /// What a dialogue's prompt may begin with, and how many of its tokens: as many as leave every number as it is without it. None where it
    /// would be none. A token that was read under other steering is never taken, but where neither steering touches it nor what is before it.
    pub fn find(
        &self,
        decoder: &Decoder,
        id: &str,
        prompt: &[Token],
        steering: PromptSteering,
    ) -> Option<(&Prefix, usize)> {
        let kept = self.kept.get(id)?;
        let takes = |entry: &Entry| {
            let shared = same_tokens(&entry.tokens, prompt).min(entry.prefix.length());
            decoder.takes(prompt.len(), steering.same(entry.steering, shared))
        };
        let both = [&kept.plain, &kept.steered].into_iter().flatten();
        let (entry, takes) = both.map(|entry| (entry, takes(entry))).max_by_key(|(_, takes)| *takes)?;
        (takes > 0).then_some((&entry.prefix, takes))
    }

    /// Keeps what was read of a dialogue, in place of what was kept of it before, with steering or without: its first tokens, and their keys and
    /// values in every block.
    pub fn keep(&mut self, id: &str, tokens: Vec<Token>, steering: PromptSteering, prefix: Prefix) {
        // Of fewer tokens nothing is ever taken.
        if steering.untouched.max(steering.resumable) < SHORTEST_PART {
            return;
        }
        let kept = self.kept.entry(id.into()).or_default();
        let place = if steering.key == 0 { &mut kept.plain } else { &mut kept.steered };
        *place = Some(Entry { tokens, steering, prefix });
    }

    /// Counts tokens that went through the model for rounds that begin here.
    pub(crate) fn count(&mut self, tokens: usize) {
        self.read += tokens;
    }

    /// The number of tokens that went through the model in the calls that this was given to, what was generated among them.
    pub fn tokens_read(&self) -> usize {
        self.read
    }

    /// Its size in memory, in bytes of keys and values.
    pub fn bytes(&self) -> usize {
        let entries = self.kept.values().flat_map(|kept| [&kept.plain, &kept.steered]).flatten();
        entries.map(|entry| entry.prefix.bytes()).sum()
    }
}

/// The number of first tokens that two prompts share, with all that is known of each but its row.
pub fn same_tokens(a: &[Token], b: &[Token]) -> usize {
    let same = |(a, b): &(&Token, &Token)| {
        (a.id, a.position, a.role, a.turn) == (b.id, b.position, b.role, b.turn)
            && (a.phase, a.index, a.start, a.generated) == (b.phase, b.index, b.start, b.generated)
    };
    a.iter().zip(b).take_while(same).count()
}
