//! What steering does to one token's activations: add a direction, remove it, or set how much of it there is.
//! It knows nothing of models, tokens or plans.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How far to steer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strength {
    /// In multiples of the vector as it was found.
    Raw(f32),
    /// Along the unit vector, in multiples of the residual stream's mean norm: `0.4n`.
    Norms(f32),
}

impl FromStr for Strength {
    type Err = Error;

    fn from_str(text: &str) -> Result<Strength> {
        let (number, unit): (&str, fn(f32) -> Strength) = match text.trim().strip_suffix('n') {
            Some(number) => (number, Strength::Norms),
            None => (text.trim(), Strength::Raw),
        };
        let number = number.parse().ok().filter(|number: &f32| number.is_finite());
        number.map(unit).ok_or_else(|| {
            Error::input(
                format!("strength {text}"),
                "no finite number",
                "a number, or a number of residual norms (0.4n)",
            )
        })
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strength::Raw(number) => write!(f, "{number}"),
            Strength::Norms(number) => write!(f, "{number}n"),
        }
    }
}

/// The kind of change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// `h + strength · v` (CAA, arXiv 2312.06681).
    #[default]
    Add,
    /// `h − (h·v̂) v̂`: nothing is left along the direction (Arditi et al., arXiv 2406.11717).
    Ablate,
    /// `h + (strength − h·v̂) v̂`: the projection becomes what was asked for.
    Clamp,
}

impl Operation {
    /// Changes one token's activations. `unit`: the direction at length 1; `amount`: how far along it.
    pub fn apply(self, activations: &mut [f32], unit: &[f32], amount: f32) {
        let along = || activations.iter().zip(unit).map(|(h, v)| h * v).sum::<f32>();
        let by = match self {
            Operation::Add => amount,
            Operation::Ablate => -along(),
            Operation::Clamp => amount - along(),
        };
        for (h, v) in activations.iter_mut().zip(unit) {
            *h += by * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn along(h: &[f32], unit: &[f32]) -> f32 {
        h.iter().zip(unit).map(|(h, v)| h * v).sum()
    }

    proptest! {
        #[test]
        fn ablating_leaves_nothing_and_twice_is_once(h in prop::collection::vec(-9f32..9.0, 6), v in prop::collection::vec(-1f32..1.0, 6)) {
            let length = along(&v, &v).sqrt();
            prop_assume!(length > 0.1);
            let unit: Vec<f32> = v.iter().map(|v| v / length).collect();
            let mut once = h.clone();
            Operation::Ablate.apply(&mut once, &unit, 0.0);
            prop_assert!(along(&once, &unit).abs() < 1e-4);
            let mut twice = once.clone();
            Operation::Ablate.apply(&mut twice, &unit, 0.0);
            prop_assert!(once.iter().zip(&twice).all(|(a, b)| (a - b).abs() < 1e-4));
            let mut clamped = h;
            Operation::Clamp.apply(&mut clamped, &unit, 2.5);
            prop_assert!((along(&clamped, &unit) - 2.5).abs() < 1e-4);
        }
    }

    #[test]
    fn reads_strengths() {
        assert_eq!("0.4n".parse::<Strength>().unwrap(), Strength::Norms(0.4));
        assert_eq!("-2".parse::<Strength>().unwrap(), Strength::Raw(-2.0));
        for wrong in ["", "n", "NaN", "inf", "2x"] {
            assert!(wrong.parse::<Strength>().is_err(), "{wrong}");
        }
    }
}
