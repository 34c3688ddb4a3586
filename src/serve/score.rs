//! Log-probabilities of a prompt's own tokens, for `echo` of `/v1/completions`.

use tokio::sync::oneshot;

use super::job::Aside;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::TokenLogits;
use crate::model::{Cache, Chain, Hook, Model, SHORTEST_PART, Token};
use crate::steer::{Plan, SteerHook};

/// A prompt whose tokens are scored between the tokens of answers.
pub(super) struct ScoreJob {
    tokens: Vec<Token>,
    hooks: Vec<SteerHook>,
    /// Of how many likeliest tokens log-probabilities are given.
    likeliest: usize,
    reply: Option<oneshot::Sender<Result<Vec<TokenLogits>>>>,
    cache: Cache,
    /// Tokens that are read.
    read: usize,
    scores: Vec<TokenLogits>,
}

/// Tokens of a part. Logits of every token are in memory.
const PART: usize = 128;

impl ScoreJob {
    /// A prompt that isn't read yet, with its steering.
    ///
    /// # Errors
    /// A plan that can't be applied to the prompt.
    pub fn new(
        model: &Model,
        plan: Option<&Plan>,
        dialogue: &Dialogue,
        tokens: Vec<Token>,
        likeliest: usize,
        reply: oneshot::Sender<Result<Vec<TokenLogits>>>,
    ) -> Result<ScoreJob> {
        let dialogue = std::slice::from_ref(dialogue);
        let hooks = plan.map(|plan| plan.hooks(model, dialogue, None)).transpose()?.unwrap_or_default();
        hooks.iter().try_for_each(|hook| hook.check_prompt(&tokens))?;
        let (reply, cache) = (Some(reply), Cache::default());
        Ok(ScoreJob { tokens, hooks, likeliest, reply, cache, read: 0, scores: Vec::new() })
    }

    /// Reads the next part of the prompt. Whether that was all.
    fn read(&mut self, model: &Model) -> Result<bool> {
        let is_local = self.hooks.iter().all(SteerHook::is_local);
        let left = self.tokens.len() - self.read;
        let unit = model.decoder.part_tokens().filter(|_| is_local);
        let part = unit.map_or(left, |unit| (PART / unit).max(1) * unit);
        // What is left over isn't shorter than a last part may be.
        let part = if left >= part + SHORTEST_PART { part } else { left };
        let tokens = &self.tokens[self.read..self.read + part];
        let all: Vec<usize> = (0..part).collect();
        let mut chain = Chain(self.hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
        let logits = model.decoder.forward(tokens, Some(&mut self.cache), &all, &mut chain)?;
        for (at, logits) in logits.to_vec2::<f32>()?.into_iter().enumerate() {
            if let Some(next) = self.tokens.get(self.read + at + 1) {
                self.scores.push(TokenLogits::new(&model.chat, next.id, &logits, self.likeliest)?);
            }
        }
        self.read += part;
        Ok(self.read == self.tokens.len())
    }
}

impl Aside for ScoreJob {
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn advance(&mut self, model: &Model) -> bool {
        let answer = match self.read(model) {
            Ok(false) => return false,
            Ok(true) => Ok(std::mem::take(&mut self.scores)),
            Err(error) => Err(error),
        };
        if let Some(reply) = self.reply.take() {
            // Nobody may wait any more.
            let _ = reply.send(answer);
        }
        true
    }
}
