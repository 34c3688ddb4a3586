//! Logits of generated tokens: all of them, or the log-probabilities of the likeliest.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::Chat;

/// Which logits of an answer's tokens are kept: the model's own, steered where it is, before temperature, penalties and cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeptLogits {
    /// None.
    #[default]
    None,
    /// The log-probabilities of this many likeliest tokens, in the transcripts.
    Top(usize),
    /// All of them, `[tokens][vocabulary]`.
    All,
}

/// The log-probabilities at one token of an answer, natural logarithms; the form of OpenAI's `logprobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogits {
    /// The generated token's id.
    pub id: u32,
    /// Its text.
    pub token: String,
    /// Its log-probability.
    pub logprob: f64,
    /// The likeliest tokens, in descending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<TokenLogits>,
}

impl TokenLogits {
    /// The log-probabilities of token `id` and of the `count` likeliest, from logits `[vocabulary]`; of equal ones the least id first.
    pub(crate) fn new(chat: &Chat, id: u32, logits: &[f32], count: usize) -> Result<TokenLogits> {
        let most = f64::from(logits.iter().fold(f32::NEG_INFINITY, |most, &logit| most.max(logit)));
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum();
        let one = |id: u32| -> Result<TokenLogits> {
            let logprob = f64::from(logits[id as usize]) - most - sum.ln();
            let token = chat.decode(&[id], false)?;
            Ok(TokenLogits { id, token, logprob, top_logprobs: Vec::new() })
        };
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let count = count.min(order.len());
        let descending =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if count > 0 {
            order.select_nth_unstable_by(count - 1, descending);
        }
        order.truncate(count);
        order.sort_by(descending);
        let top_logprobs = order.into_iter().map(one).collect::<Result<_>>()?;
        Ok(TokenLogits { top_logprobs, ..one(id)? })
    }
}
