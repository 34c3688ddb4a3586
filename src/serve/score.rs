//! Log-probabilities of a prompt's own tokens, for `echo` of `/v1/completions`.

use tokio::sync::oneshot;

use super::job::Aside;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::TokenLogits;
use crate::model::{Cache, Chain, Hook, Model, SHORTEST_PART, Token};
use crate::steer::{Plan, SteerHook};
use std::sync::Arc;

/// A prompt whose tokens are scored between the tokens of answers.
pub(super) struct ScoreJob {
    pub dialogue: Arc<Dialogue>,
    pub tokens: Vec<Token>,
    pub plan: Option<Arc<Plan>>,
    /// Of how many likeliest tokens log-probabilities are given.
    pub likeliest: usize,
    pub reply: Option<oneshot::Sender<Result<Vec<TokenLogits>>>>,
    pub progress: Progress,
}

/// How far a prompt is read.
#[derive(Default)]
pub(super) struct Progress {
    cache: Cache,
    hooks: Option<Vec<SteerHook>>,
    read: usize,
    scores: Vec<TokenLogits>,
}

/// Tokens of a part. Logits of every token are in memory.
const PART: usize = 128;

impl ScoreJob {
    /// Reads the next part of the prompt. Whether that was all.
    fn read(&mut self, model: &Model) -> Result<bool> {
        let progress = &mut self.progress;
        if progress.hooks.is_none() {
            let dialogue = std::slice::from_ref(self.dialogue.as_ref());
            let hooks = self.plan.as_ref().map(|plan| plan.hooks(model, dialogue, None)).transpose()?;
            let hooks = hooks.unwrap_or_default();
            hooks.iter().try_for_each(|hook| hook.check_prompt(&self.tokens))?;
            progress.hooks = Some(hooks);
        }
        let is_local = progress.hooks.iter().flatten().all(SteerHook::is_local);
        let hooks = progress.hooks.iter_mut().flatten();
        let left = self.tokens.len() - progress.read;
        let unit = model.decoder.part_tokens().filter(|_| is_local);
        let part = unit.map_or(left, |unit| (PART / unit).max(1) * unit);
        // What is left over isn't shorter than a last part may be.
        let part = if left >= part + SHORTEST_PART { part } else { left };
        let tokens = &self.tokens[progress.read..progress.read + part];
        let all: Vec<usize> = (0..part).collect();
        let mut chain = Chain(hooks.map(|hook| hook as &mut dyn Hook).collect());
        let logits = model.decoder.forward(tokens, Some(&mut progress.cache), &all, &mut chain)?;
        for (at, logits) in logits.to_vec2::<f32>()?.into_iter().enumerate() {
            if let Some(next) = self.tokens.get(progress.read + at + 1) {
                progress.scores.push(TokenLogits::new(&model.chat, next.id, &logits, self.likeliest)?);
            }
        }
        progress.read += part;
        Ok(progress.read == self.tokens.len())
    }
}

impl Aside for ScoreJob {
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn advance(&mut self, model: &Model) -> bool {
        let answer = match self.read(model) {
            Ok(false) => return false,
            Ok(true) => Ok(std::mem::take(&mut self.progress.scores)),
            Err(error) => Err(error),
        };
        if let Some(reply) = self.reply.take() {
            // Nobody may wait any more.
            let _ = reply.send(answer);
        }
        true
    }
}
