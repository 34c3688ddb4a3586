//! Logits processing: repetition penalty, top-k, top-p and min-p filtering of logits `[vocabulary]`.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::sampling::Sampling;
use crate::error::{Error, Result};

/// Changes to the logits before sampling, in the order of Hugging Face transformers: the penalty, then, on probabilities
/// at the temperature, top-k, top-p and min-p.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogitsProcessor {
    /// Divides the logits of tokens in the row where they are positive, and multiplies them where negative (CTRL, arXiv
    /// 1909.05858).
    pub repetition_penalty: Option<f32>,
    /// Keeps this many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Keeps the fewest likeliest tokens whose probabilities sum to this (nucleus sampling, arXiv 1904.09751).
    pub top_p: Option<f32>,
    /// Keeps tokens of at least this share of the greatest probability (arXiv 2407.01082).
    pub min_p: Option<f32>,
}

impl LogitsProcessor {
    /// Checks the numbers.
    ///
    /// # Errors
    /// A number out of range; the message names the option.
    pub fn check(&self) -> Result<()> {
        let in_range = |value: Option<f32>, zero: bool| {
            value.is_none_or(|p| (if zero { p >= 0.0 } else { p > 0.0 }) && p <= 1.0)
        };
        let penalty = self.repetition_penalty.is_none_or(|penalty| penalty.is_finite() && penalty > 0.0);
        let wrong = |name: &str, value: String, expected: &str| Err(Error::input(name, value, expected));
        let shown = |value: Option<f32>| value.map_or(String::new(), |value| value.to_string());
        match (penalty, self.top_k != Some(0), in_range(self.top_p, false), in_range(self.min_p, true)) {
            (true, true, true, true) => Ok(()),
            (false, ..) => {
                wrong("repetition penalty", shown(self.repetition_penalty), "a number above 0; 1 for none")
            }
            (_, false, ..) => wrong("top-k", "0".into(), "1 or more"),
            (.., false, _) => wrong("top-p", shown(self.top_p), "a number above 0 and at most 1"),
            _ => wrong("min-p", shown(self.min_p), "a number from 0 to 1"),
        }
    }

    /// Changes the logits of one row; filtered ones become −∞. `seen`: ids of the tokens in the row.
    pub fn apply(&self, logits: &mut [f32], sampling: Sampling, seen: &HashSet<u32>) {
        if let Some(penalty) = self.repetition_penalty {
            for &id in seen {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                }
            }
        }
        // The likeliest token is never filtered out, so greedy decoding needs no filter.
        let Sampling::Temperature(temperature) = sampling else { return };
        if let Some(threshold) = self.threshold(logits, temperature) {
            logits
                .iter_mut()
                .filter(|logit| **logit < threshold)
                .for_each(|logit| *logit = f32::NEG_INFINITY);
        }
    }

    /// The least logit that passes the filters, if there is a filter.
    fn threshold(&self, logits: &[f32], temperature: f32) -> Option<f32> {
        let mut threshold: Option<f32> = None;
        let mut raise = |logit: f32| threshold = Some(threshold.map_or(logit, |least| least.max(logit)));
        if let Some(k) = self.top_k.filter(|k| *k < logits.len()) {
            raise(likeliest(logits, k).last().copied()?);
        }
        if let Some(p) = self.top_p.filter(|p| *p < 1.0) {
            // Among the tokens that top-k keeps.
            let k = self.top_k.unwrap_or(logits.len()).min(logits.len());
            raise(nucleus(logits, k, p, temperature)?);
        }
        if let Some(p) = self.min_p.filter(|p| *p > 0.0) {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            raise(most + temperature * p.ln());
        }
        threshold
    }
}

/// The `k` largest logits, descending.
fn likeliest(logits: &[f32], k: usize) -> Vec<f32> {
    let mut sorted = logits.to_vec();
    let k = k.min(sorted.len());
    if k < sorted.len() {
        sorted.select_nth_unstable_by(k, |a, b| b.total_cmp(a));
        sorted.truncate(k);
    }
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    sorted
}

/// The logit of the token at which the cumulative probability of the `k` likeliest reaches the share `p` of their sum.
fn nucleus(logits: &[f32], k: usize, p: f32, temperature: f32) -> Option<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from((logit - most) / temperature).exp();
    let total: f64 = match k < logits.len() {
        true => likeliest(logits, k).iter().map(|&logit| weight(logit)).sum(),
        false => logits.iter().map(|&logit| weight(logit)).sum(),
    };
    // A few tokens hold most of the probability, so only as many are sorted as are needed.
    let mut count = 256;
    loop {
        let sorted = likeliest(logits, count.min(k));
        let mut sum = 0.0;
        for &logit in &sorted {
            sum += weight(logit);
            if sum >= f64::from(p) * total {
                return Some(logit);
            }
        }
        if sorted.len() >= k {
            return sorted.last().copied();
        }
        count *= 8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn left(processor: LogitsProcessor, logits: &[f32], temperature: f32) -> Vec<usize> {
        let mut logits = logits.to_vec();
        processor.apply(&mut logits, Sampling::Temperature(temperature), &HashSet::from([0, 1]));
        (0..logits.len()).filter(|&id| logits[id] > f32::NEG_INFINITY).collect()
    }

    #[test]
    fn cuts_by_hand() {
        // Probabilities .1, .4, .3, .2.
        let logits = [0.1f32, 0.4, 0.3, 0.2].map(f32::ln);
        let processor = LogitsProcessor::default();
        assert_eq!(left(LogitsProcessor { top_k: Some(2), ..processor }, &logits, 1.0), [1, 2]);
        assert_eq!(left(LogitsProcessor { top_p: Some(0.65), ..processor }, &logits, 1.0), [1, 2]);
        assert_eq!(left(LogitsProcessor { top_p: Some(0.75), ..processor }, &logits, 1.0), [1, 2, 3]);
        assert_eq!(left(LogitsProcessor { min_p: Some(0.45), ..processor }, &logits, 1.0), [1, 2, 3]);
        // At half the temperature they are 1 : 16 : 9 : 4.
        assert_eq!(left(LogitsProcessor { min_p: Some(0.45), ..processor }, &logits, 0.5), [1, 2]);
        // Of the first two alone the first has 4/7.
        assert_eq!(
            left(LogitsProcessor { top_k: Some(2), top_p: Some(0.55), ..processor }, &logits, 1.0),
            [1]
        );
        assert_eq!(left(processor, &logits, 1.0).len(), 4);
    }

    #[test]
    fn the_penalty_lowers_the_logits_of_tokens_in_the_row() {
        let processor = LogitsProcessor { repetition_penalty: Some(2.0), ..LogitsProcessor::default() };
        let mut logits = [3.0, -1.0, 3.0];
        processor.apply(&mut logits, Sampling::Greedy, &HashSet::from([0, 1, 99]));
        assert_eq!(logits, [1.5, -2.0, 3.0]);
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let processor = LogitsProcessor::default();
        for (processor, name) in [
            (LogitsProcessor { top_k: Some(0), ..processor }, "top-k"),
            (LogitsProcessor { top_p: Some(0.0), ..processor }, "top-p"),
            (LogitsProcessor { top_p: Some(f32::NAN), ..processor }, "top-p"),
            (LogitsProcessor { min_p: Some(1.5), ..processor }, "min-p"),
            (LogitsProcessor { repetition_penalty: Some(0.0), ..processor }, "repetition penalty"),
        ] {
            assert!(processor.check().unwrap_err().to_string().starts_with(name), "{name}");
        }
    }

    proptest! {
        /// Against the definition, with everything sorted.
        #[test]
        fn the_nucleus_is_the_smallest_set(logits in prop::collection::vec(-4f32..4.0, 1..600), p in 0.05f32..0.99) {
            let processor = LogitsProcessor { top_p: Some(p), ..LogitsProcessor::default() };
            let kept = left(processor, &logits, 1.0);
            let weight = |id: usize| f64::from(logits[id]).exp();
            let total: f64 = (0..logits.len()).map(weight).sum();
            let held: f64 = kept.iter().map(|&id| weight(id)).sum();
            let least = kept.iter().map(|&id| weight(id)).fold(f64::INFINITY, f64::min);
            prop_assert!(held >= f64::from(p) * total * (1.0 - 1e-6));
            // Without its least it would not reach p; equals of the least stay together.
            let equals = kept.iter().filter(|&&id| weight(id) == least).count() as f64;
            prop_assert!(held - equals * least < f64::from(p) * total * (1.0 + 1e-6));
        }
    }
}
