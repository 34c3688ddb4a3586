//! Prompts that were read, by dialogue: a later round of the same dialogue begins with their keys and values, so that only what is new is
//! read.

use std::collections::HashMap;

use super::token::Token;
use super::transformer::decoder::Decoder;
use super::transformer::kv_cache::Prefix;

/// Keys and values of dialogues' prompts as they were last read without steering, in memory linear in their tokens.
#[derive(Default)]
pub struct PromptCache {
    kept: HashMap<String, (Vec<Token>, Prefix)>,
}

impl PromptCache {
    /// What a dialogue's prompt may begin with, and how many of its tokens: as many as leave every number as it is without it. None where it
    /// would be none.
    pub fn find(&self, decoder: &Decoder, id: &str, prompt: &[Token]) -> Option<(&Prefix, usize)> {
        let (tokens, prefix) = self.kept.get(id)?;
        let takes = decoder.takes(prompt.len(), same_tokens(tokens, prompt).min(prefix.length()));
        (takes > 0).then_some((prefix, takes))
    }

    /// Keeps what was read of a dialogue, in place of what was kept of it before: its first tokens, and their keys and values in every
    /// block.
    pub fn keep(&mut self, id: &str, tokens: Vec<Token>, prefix: Prefix) {
        self.kept.insert(id.into(), (tokens, prefix));
    }

    /// Its size in memory, in bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.kept.values().map(|(_, prefix)| prefix.bytes()).sum()
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
