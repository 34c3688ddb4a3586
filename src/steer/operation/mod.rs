//! What steering does to one token's activations. Each operation has a file of its own.
//! It knows nothing of models, tokens or plans.

mod ablate;
mod add;
mod cap;
mod clamp;
mod project;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use project::{HalfSpace, SafeSet};

use crate::error::{Error, Result};

/// How far to steer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strength {
    /// In multiples of the vector as it was found; of `ablate` and `project`, the share of the change that is made.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `h + strength · v` (CAA, arXiv 2312.06681).
    #[default]
    Add,
    /// The same, brought back to the length that `h` had: the direction changes, the norm stays.
    AddKeepNorm,
    /// `h − strength · (h·v̂) v̂`: at strength 1 nothing is left along the direction (Arditi et al., arXiv 2406.11717).
    Ablate,
    /// `h + (strength − h·v̂) v̂`: the projection becomes what was asked for.
    Clamp,
    /// The projection becomes `strength` where it is more, and stays where it is less.
    Cap,
    /// The smallest change that brings calibrated probes to the safe side of their thresholds; `strength` is the share
    /// of it that is made.
    Project,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Add => "add",
            Operation::AddKeepNorm => "add-keep-norm",
            Operation::Ablate => "ablate",
            Operation::Clamp => "clamp",
            Operation::Cap => "cap",
            Operation::Project => "project",
        }
    }

    /// Whether strength 0 leaves the model as it is; of `clamp` and `cap`, strength is a value that the projection gets.
    pub fn is_nothing_at_0(self) -> bool {
        !matches!(self, Operation::Clamp | Operation::Cap)
    }

    /// Whether strength is a share of the change, so that it has no unit.
    pub fn is_share(self) -> bool {
        matches!(self, Operation::Ablate | Operation::Project)
    }
}

/// A change that is ready to be made at one site.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// `unit`: the direction at length 1. `amount`: how far along it, in activation units, or which share.
    Along { operation: Operation, unit: Vec<f32>, amount: f32 },
    /// The share of the way to the polyhedron.
    Project { polyhedron: SafeSet, share: f32 },
}

impl Edit {
    /// Changes one token's activations by `scale` times the whole change. `pushes`: how hard each face pushed, in
    /// activation units; filled by a projection only.
    pub fn apply(&self, h: &mut [f32], scale: f32, pushes: &mut Vec<f64>) {
        pushes.clear();
        match self {
            Edit::Along { operation, unit, amount } => match operation {
                Operation::Add => add::add(h, unit, amount * scale),
                Operation::AddKeepNorm => add::add_keeping_norm(h, unit, amount * scale),
                Operation::Ablate => ablate::ablate(h, unit, amount * scale),
                Operation::Clamp => clamp::clamp(h, unit, *amount, scale),
                Operation::Cap => cap::cap(h, unit, *amount, scale),
                // Has faces instead of a direction.
                Operation::Project => (),
            },
            Edit::Project { polyhedron, share } => polyhedron.project(h, share * scale, pushes),
        }
    }

    /// Whether it leaves every state as it is.
    pub fn is_nothing(&self) -> bool {
        match self {
            Edit::Along { operation, amount, .. } => operation.is_nothing_at_0() && *amount == 0.0,
            Edit::Project { share, .. } => *share == 0.0,
        }
    }
}

/// `a · b`, summed in f64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    // Four sums side by side: one alone would wait for itself at every number.
    let mut sums = [0.0f64; 4];
    let (a4, b4) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    for (a, b) in a4.0.iter().zip(b4.0) {
        for lane in 0..4 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a4.1.iter().zip(b4.1).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    sums.iter().sum::<f64>() + rest
}

/// `h + by · v`.
fn move_along(h: &mut [f32], v: &[f32], by: f32) {
    for (h, v) in h.iter_mut().zip(v) {
        *h += by * v;
    }
}

#[cfg(test)]
mod tests_unit {
    /// A vector at length 1, unless it is too short for that.
    pub(super) fn unit(v: &[f32]) -> Option<Vec<f32>> {
        let length = super::dot(v, v).sqrt() as f32;
        (length > 0.1).then(|| v.iter().map(|v| v / length).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_strengths() {
        assert_eq!("0.4n".parse::<Strength>().unwrap(), Strength::Norms(0.4));
        assert_eq!("-2".parse::<Strength>().unwrap(), Strength::Raw(-2.0));
        for wrong in ["", "n", "NaN", "inf", "2x"] {
            assert!(wrong.parse::<Strength>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_dot_product_of_any_width() {
        let a: Vec<f32> = (1..=7).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), 140.0);
        assert_eq!(dot(&a[..3], &a[..3]), 14.0);
    }
}
