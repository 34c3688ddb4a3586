//! A proportional–integral controller: log-odds of a probe in, steering strength out.

use serde::{Deserialize, Serialize};

use super::probe_reader::{log_odds, probability};
use crate::error::{Error, Result};

/// A proportional–integral controller in discrete time (Åström & Hägglund, PID Controllers, 1995, chapter 3), a step a
/// token: `u = proportional · e + integral · Σ e`, clamped to `[min, max]`. The error `e` is in log-odds, in which a
/// linear probe is linear in the state. While the output is at a limit, errors that would push it further are not summed
/// (conditional integration), which prevents wind-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PiController {
    /// Target probability, between 0 and 1.
    pub target: f64,
    /// Proportional gain: strength a unit of log-odds.
    pub proportional: f64,
    /// Integral gain: strength a unit of log-odds and token.
    #[serde(default)]
    pub integral: f64,
    /// Least strength.
    #[serde(default = "PiController::default_min", alias = "least")]
    pub min: f64,
    /// Greatest strength.
    #[serde(default = "PiController::default_max", alias = "most")]
    pub max: f64,
}

/// The sum of a row's errors, in log-odds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ErrorSum(f64);

impl PiController {
    /// The default of `min`: steering never acts against its vector.
    pub(super) const fn default_min() -> f64 {
        0.0
    }

    /// The default of `max`: once the strength of the intervention.
    pub(super) const fn default_max() -> f64 {
        1.0
    }

    /// Checks target, gains and limits.
    ///
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
        if !self.min.is_finite() || !self.max.is_finite() || self.min >= self.max {
            let found = format!("a strength from {} to {}", self.min, self.max);
            return wrong(found, "limits of which the first is below the second");
        }
        Ok(())
    }

    /// Target minus reading, in log-odds.
    pub(super) fn error(&self, reading: f64) -> f64 {
        log_odds(self.target) - reading
    }

    /// The probability whose error this is.
    pub(super) fn reading(&self, error: f64) -> f64 {
        probability(log_odds(self.target) - error)
    }

    /// Adds an error to the sum, and returns the strength.
    pub(super) fn step(&self, sum: &mut ErrorSum, error: f64) -> f64 {
        let wanted = |sum: f64| self.proportional * error + self.integral * sum;
        let summed = wanted(sum.0 + error);
        let (over, under) = (summed > self.max, summed < self.min);
        // Whether an error of this sign raises the output.
        let rises = self.integral * error > 0.0;
        if !(over && rises || under && !rises) {
            sum.0 += error;
        }
        wanted(sum.0).clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONTROLLER: PiController =
        PiController { target: 0.5, proportional: 0.2, integral: 0.1, min: 0.0, max: 1.0 };

    #[test]
    fn two_steps_by_hand() {
        let mut sum = ErrorSum::default();
        assert!((CONTROLLER.step(&mut sum, 1.0) - 0.3).abs() < 1e-12);
        assert!((CONTROLLER.step(&mut sum, 0.5) - 0.25).abs() < 1e-12);
        assert_eq!(CONTROLLER.error(2.0), -2.0);
    }

    #[test]
    fn it_comes_out_of_a_limit_at_once() {
        let mut sum = ErrorSum::default();
        (0..1000).for_each(|_| assert!(CONTROLLER.step(&mut sum, 5.0) == 1.0));
        // Without the stop, the sum would be 5,000, and it would take 5,000 steps of −1 to get out.
        let steps = (0..).find(|_| CONTROLLER.step(&mut sum, -1.0) < 1.0).unwrap();
        assert!(steps <= 10, "{steps}");
    }

    #[test]
    fn a_plant_that_lags_is_brought_to_the_target() {
        // The reading follows the strength with a lag, from an offset that the controller does not know.
        let (mut sum, mut reading) = (ErrorSum::default(), -3.0);
        for _ in 0..300 {
            let strength = CONTROLLER.step(&mut sum, CONTROLLER.error(reading));
            reading += 0.3 * (-3.0 + 6.0 * strength - reading);
        }
        assert!(reading.abs() < 1e-3, "{reading}");
    }

    #[test]
    fn controllers_that_make_no_sense_are_refused() {
        for controller in [
            PiController { target: 1.0, ..CONTROLLER },
            PiController { target: f64::NAN, ..CONTROLLER },
            PiController { proportional: f64::NAN, ..CONTROLLER },
            PiController { proportional: 0.0, integral: 0.0, ..CONTROLLER },
            PiController { integral: -0.1, ..CONTROLLER },
            PiController { min: 1.0, ..CONTROLLER },
            PiController { max: f64::INFINITY, ..CONTROLLER },
        ] {
            assert!(controller.check().is_err(), "{controller:?}");
        }
        assert!(CONTROLLER.check().is_ok());
    }

    proptest! {
        #[test]
        fn the_strength_stays_within_its_limits(errors in prop::collection::vec(-50f64..50.0, 1..60), sign in prop::bool::ANY) {
            let sign = if sign { 1.0 } else { -1.0 };
            let controller = PiController { proportional: 0.2 * sign, integral: 0.1 * sign, min: -0.5, ..CONTROLLER };
            let mut sum = ErrorSum::default();
            for error in errors {
                let strength = controller.step(&mut sum, error);
                prop_assert!((-0.5..=1.0).contains(&strength));
            }
        }
    }
}
