//! Which tokens may be drawn: what is unlikely is ruled out, what was said before made less likely.
//! It knows nothing of how a token is drawn from the rest.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Sampling;
use crate::error::{Error, Result};

/// Changes to logits before one is drawn, in the order in which transformers makes them: the penalty, then, on
/// probabilities at the temperature, top-k, top-p and min-p.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Logits of tokens that the row holds are divided by it where they are above 0, and multiplied where below (CTRL,
    /// arXiv 1909.05858).
    pub repetition_penalty: Option<f32>,
    /// Only the so many likeliest.
    pub top_k: Option<usize>,
    /// Only the likeliest whose probabilities sum to this (nucleus sampling, arXiv 1904.09751).
    pub top_p: Option<f32>,
    /// Only those at least so likely, as a share of the likeliest (arXiv 2407.01082).
    pub min_p: Option<f32>,
}

impl Shape {
    /// # Errors
    /// A number that makes no sense; the option is named.
    pub fn check(&self) -> Result<()> {
        let share = |value: Option<f32>, least: bool| {
            value.is_none_or(|p| (if least { p >= 0.0 } else { p > 0.0 }) && p <= 1.0)
        };
        let penalty = self.repetition_penalty.is_none_or(|penalty| penalty.is_finite() && penalty > 0.0);
        let wrong = |name: &str, value: String, expected: &str| Err(Error::input(name, value, expected));
        let shown = |value: Option<f32>| value.map_or(String::new(), |value| value.to_string());
        match (penalty, self.top_k != Some(0), share(self.top_p, false), share(self.min_p, true)) {
            (true, true, true, true) => Ok(()),
            (false, ..) => {
                wrong("repetition penalty", shown(self.repetition_penalty), "a number above 0; 1 for none")
            }
            (_, false, ..) => wrong("top-k", "0".into(), "1 or more"),
            (.., false, _) => wrong("top-p", shown(self.top_p), "a number above 0 and at most 1"),
            _ => wrong("min-p", shown(self.min_p), "a number from 0 to 1"),
        }
    }

    /// Changes the logits of one row; what is ruled out becomes −∞. `seen`: ids that the row holds.
    pub fn apply(&self, logits: &mut [f32], sampling: Sampling, seen: &HashSet<u32>) {
        if let Some(penalty) = self.repetition_penalty {
            for &id in seen {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                }
            }
        }
        // The likeliest is never ruled out, so that for greedy decoding nothing else matters.
        let Sampling::Temperature(temperature) = sampling else { return };
        let least = self.least(logits, temperature);
        if let Some(least) = least {
            logits.iter_mut().filter(|logit| **logit < least).for_each(|logit| *logit = f32::NEG_INFINITY);
        }
    }

    /// The least logit that may be drawn, where there is a bound.
    fn least(&self, logits: &[f32], temperature: f32) -> Option<f32> {
        let mut least: Option<f32> = None;
        let mut bound = |logit: f32| least = Some(least.map_or(logit, |least| least.max(logit)));
        if let Some(k) = self.top_k.filter(|k| *k < logits.len()) {
            bound(likeliest(logits, k).last().copied()?);
        }
        if let Some(p) = self.top_p.filter(|p| *p < 1.0) {
            // Among those that top-k has left.
            let k = self.top_k.unwrap_or(logits.len()).min(logits.len());
            bound(nucleus(logits, k, p, temperature)?);
        }
        if let Some(p) = self.min_p.filter(|p| *p > 0.0) {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            bound(most + temperature * p.ln());
        }
        least
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

/// The logit of the token with which the likeliest of the first `k` reach the share `p` of their probability.
fn nucleus(logits: &[f32], k: usize, p: f32, temperature: f32) -> Option<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from((logit - most) / temperature).exp();
    let total: f64 = match k < logits.len() {
        true => likeliest(logits, k).iter().map(|&logit| weight(logit)).sum(),
        false => logits.iter().map(|&logit| weight(logit)).sum(),
    };
    // Few tokens hold most of it: only as many are sorted as are needed.
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

    fn left(shape: Shape, logits: &[f32], temperature: f32) -> Vec<usize> {
        let mut logits = logits.to_vec();
        shape.apply(&mut logits, Sampling::Temperature(temperature), &HashSet::from([0, 1]));
        (0..logits.len()).filter(|&id| logits[id] > f32::NEG_INFINITY).collect()
    }

    #[test]
    fn cuts_by_hand() {
        // Probabilities .1, .4, .3, .2.
        let logits = [0.1f32, 0.4, 0.3, 0.2].map(f32::ln);
        let shape = Shape::default();
        assert_eq!(left(Shape { top_k: Some(2), ..shape }, &logits, 1.0), [1, 2]);
        assert_eq!(left(Shape { top_p: Some(0.65), ..shape }, &logits, 1.0), [1, 2]);
        assert_eq!(left(Shape { top_p: Some(0.75), ..shape }, &logits, 1.0), [1, 2, 3]);
        assert_eq!(left(Shape { min_p: Some(0.45), ..shape }, &logits, 1.0), [1, 2, 3]);
        // At half the temperature they are 1 : 16 : 9 : 4.
        assert_eq!(left(Shape { min_p: Some(0.45), ..shape }, &logits, 0.5), [1, 2]);
        // Of the first two alone the first has 4/7.
        assert_eq!(left(Shape { top_k: Some(2), top_p: Some(0.55), ..shape }, &logits, 1.0), [1]);
        assert_eq!(left(shape, &logits, 1.0).len(), 4);
    }

    #[test]
    fn the_penalty_makes_what_was_said_less_likely() {
        let shape = Shape { repetition_penalty: Some(2.0), ..Shape::default() };
        let mut logits = [3.0, -1.0, 3.0];
        shape.apply(&mut logits, Sampling::Greedy, &HashSet::from([0, 1, 99]));
        assert_eq!(logits, [1.5, -2.0, 3.0]);
    }

    #[test]
    fn numbers_that_make_no_sense_are_named() {
        let shape = Shape::default();
        for (shape, name) in [
            (Shape { top_k: Some(0), ..shape }, "top-k"),
            (Shape { top_p: Some(0.0), ..shape }, "top-p"),
            (Shape { top_p: Some(f32::NAN), ..shape }, "top-p"),
            (Shape { min_p: Some(1.5), ..shape }, "min-p"),
            (Shape { repetition_penalty: Some(0.0), ..shape }, "repetition penalty"),
        ] {
            assert!(shape.check().unwrap_err().to_string().starts_with(name), "{name}");
        }
    }

    proptest! {
        /// Against the definition, with everything sorted.
        #[test]
        fn the_nucleus_is_the_smallest_set(logits in prop::collection::vec(-4f32..4.0, 1..600), p in 0.05f32..0.99) {
            let shape = Shape { top_p: Some(p), ..Shape::default() };
            let kept = left(shape, &logits, 1.0);
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
