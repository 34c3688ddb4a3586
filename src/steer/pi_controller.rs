//! A closed loop: a controller that sets the strength so that a reading is held at a target.
//! It knows nothing of models or hooks: readings come in, strengths go out.

use serde::{Deserialize, Serialize};

use super::probe_reader::{log_odds, probability};
use crate::error::{Error, Result};

/// A proportional–integral law in discrete time (Åström & Hägglund, PID Controllers, 1995, chapter 3), a step a token:
/// `u = proportional · e + integral · Σ e`, held between `least` and `most`. The error `e` is in log-odds, where a linear
/// probe's reading is linear in the state. While a limit holds the output, errors that push against it are not summed
/// (conditional integration), so that the sum does not wind up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PiController {
    /// The probability that the reading is held at.
    pub target: f64,
    /// Strength a unit of log-odds.
    pub proportional: f64,
    /// Strength a unit of log-odds and token.
    #[serde(default)]
    pub integral: f64,
    #[serde(default)]
    pub least: f64,
    #[serde(default = "once")]
    pub most: f64,
}

fn once() -> f64 {
    1.0
}

/// What the law remembers of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum(f64);

impl PiController {
    /// # Errors
    /// A target that is no probability between 0 and 1; gains that are not finite, both 0 or of different signs; limits
    /// in the wrong order.
    pub fn check(&self) -> Result<()> {
        let wrong = |found: String, expected: &str| Err(Error::input("control", found, expected));
        if !(self.target > 0.0 && self.target < 1.0) {
            return wrong(format!("a target of {}", self.target), "a probability between 0 and 1");
        }
        let gains = [self.proportional, self.integral];
        let useless = gains.iter().any(|gain| !gain.is_finite()) || gains == [0.0, 0.0];
        if useless || self.proportional * self.integral < 0.0 {
            let found = format!("gains of {} and {}", self.proportional, self.integral);
            return wrong(found, "two finite gains of one sign, not both 0");
        }
        if !self.least.is_finite() || !self.most.is_finite() || self.least >= self.most {
            let found = format!("a strength from {} to {}", self.least, self.most);
            return wrong(found, "limits of which the first is below the second");
        }
        Ok(())
    }

    /// How far the reading, in log-odds, is below the target.
    pub(super) fn error(&self, reading: f64) -> f64 {
        log_odds(self.target) - reading
    }

    /// The probability that was read, given its error.
    pub(super) fn reading(&self, error: f64) -> f64 {
        probability(log_odds(self.target) - error)
    }

    /// The strength after one more error.
    pub(super) fn step(&self, sum: &mut Sum, error: f64) -> f64 {
        let wanted = |sum: f64| self.proportional * error + self.integral * sum;
        let summed = wanted(sum.0 + error);
        let (over, under) = (summed > self.most, summed < self.least);
        // Whether one more error of this sign pushes the output up.
        let rises = self.integral * error > 0.0;
        if !(over && rises || under && !rises) {
            sum.0 += error;
        }
        wanted(sum.0).clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAW: PiController =
        PiController { target: 0.5, proportional: 0.2, integral: 0.1, least: 0.0, most: 1.0 };

    #[test]
    fn two_steps_by_hand() {
        let mut sum = Sum::default();
        assert!((LAW.step(&mut sum, 1.0) - 0.3).abs() < 1e-12);
        assert!((LAW.step(&mut sum, 0.5) - 0.25).abs() < 1e-12);
        assert_eq!(LAW.error(2.0), -2.0);
    }

    #[test]
    fn it_comes_out_of_a_limit_at_once() {
        let mut sum = Sum::default();
        (0..1000).for_each(|_| assert!(LAW.step(&mut sum, 5.0) == 1.0));
        // Without the stop, the sum would be 5,000, and it would take 5,000 steps of −1 to get out.
        let steps = (0..).find(|_| LAW.step(&mut sum, -1.0) < 1.0).unwrap();
        assert!(steps <= 10, "{steps}");
    }

    #[test]
    fn a_plant_that_lags_is_brought_to_the_target() {
        // The reading follows the strength with a lag, from an offset that the law does not know.
        let (mut sum, mut reading) = (Sum::default(), -3.0);
        for _ in 0..300 {
            let strength = LAW.step(&mut sum, LAW.error(reading));
            reading += 0.3 * (-3.0 + 6.0 * strength - reading);
        }
        assert!(reading.abs() < 1e-3, "{reading}");
    }

    #[test]
    fn laws_that_make_no_sense_are_refused() {
        for law in [
            PiController { target: 1.0, ..LAW },
            PiController { target: f64::NAN, ..LAW },
            PiController { proportional: f64::NAN, ..LAW },
            PiController { proportional: 0.0, integral: 0.0, ..LAW },
            PiController { integral: -0.1, ..LAW },
            PiController { least: 1.0, ..LAW },
            PiController { most: f64::INFINITY, ..LAW },
        ] {
            assert!(law.check().is_err(), "{law:?}");
        }
        assert!(LAW.check().is_ok());
    }

    proptest! {
        #[test]
        fn the_strength_stays_within_its_limits(errors in prop::collection::vec(-50f64..50.0, 1..60), sign in prop::bool::ANY) {
            let sign = if sign { 1.0 } else { -1.0 };
            let law = PiController { proportional: 0.2 * sign, integral: 0.1 * sign, least: -0.5, ..LAW };
            let mut sum = Sum::default();
            for error in errors {
                let strength = law.step(&mut sum, error);
                prop_assert!((-0.5..=1.0).contains(&strength));
            }
        }
    }
}
