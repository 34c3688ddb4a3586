//! Sampling: logits `[vocabulary]` in, the id of the next token out.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sampling {
    /// The likeliest token; the first of equals.
    Greedy,
    /// A draw from the softmax of the logits divided by this temperature.
    Temperature(f32),
}

impl Sampling {
    /// Sampling at a temperature.
    ///
    /// # Errors
    /// A temperature that is not a finite number above 0.
    pub fn temperature(temperature: f32) -> Result<Sampling> {
        match temperature {
            t if t.is_finite() && t > 0.0 => Ok(Sampling::Temperature(t)),
            t => Err(Error::input("temperature", t, "a number above 0, or greedy decoding")),
        }
    }

    /// The id of the next token. `logits` must not be empty.
    pub fn next(self, logits: &[f32], rng: &mut impl Rng) -> u32 {
        let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
        let Sampling::Temperature(temperature) = self else {
            return best as u32;
        };
        let weight = |&logit: &f32| ((logit - logits[best]) / temperature).exp();
        let total: f32 = logits.iter().map(weight).sum();
        let mut left = rng.random::<f32>() * total;
        for (id, logit) in logits.iter().enumerate() {
            left -= weight(logit);
            if left < 0.0 {
                return id as u32;
            }
        }
        // Rounding may leave a remainder.
        best as u32
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn draws_by_the_softmax() {
        let logits = [3f32.ln(), f32::NEG_INFINITY, 0.0, 0.0];
        let mut rng = StdRng::seed_from_u64(3);
        let mut counts = [0; 4];
        for _ in 0..10_000 {
            counts[Sampling::Temperature(1.0).next(&logits, &mut rng) as usize] += 1;
        }
        // 3 : 0 : 1 : 1, within four standard deviations.
        assert!(
            (counts[0] - 6000i32).abs() < 200 && counts[1] == 0 && (counts[2] - 2000).abs() < 160,
            "{counts:?}"
        );
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut rng = StdRng::seed_from_u64(3);
        assert_eq!(Sampling::Greedy.next(&[0.0, 2.0, 2.0], &mut rng), 1);
    }
}
