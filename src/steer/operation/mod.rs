//! Steering operations: changes of one token's hidden state along a direction, or into a set of safe states.
//!
//! Each operation is a type that implements [`Edit`], in a file of its own, and one line of [`OPERATIONS`].

mod ablate;
mod add;
mod add_keep_norm;
mod cap;
mod clamp;
mod curved_face;
mod half_space;
mod project;
mod reference;
mod safe_set;
mod strength;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use curved_face::CurvedFace;
pub use half_space::HalfSpace;
pub use reference::Reference;
pub use safe_set::SafeSet;
pub use strength::{Measure, Strength};

use super::vector::Direction;
use crate::error::{Error, Result};

/// Every operation. Names, help texts, the error for an unknown name and the constructors come from here.
pub static OPERATIONS: [Operation; 6] = [
    Operation::ADD,
    Operation::ADD_KEEP_NORM,
    Operation::ABLATE,
    Operation::CLAMP,
    Operation::CAP,
    Operation::PROJECT,
];

/// A change of one hidden state, with its direction and its amount fixed.
pub trait Edit: fmt::Debug + Send + Sync {
    /// Changes `h` `[width]` by `scale` times the whole change. `multipliers` is cleared and, by a projection, filled
    /// with the distance that each half-space moved `h` along its normal, in activation units.
    fn apply(&self, h: &mut [f32], scale: f32, multipliers: &mut Vec<f64>);

    /// Whether the edit leaves every state as it is, at any scale.
    fn is_identity(&self) -> bool;

    /// The half-spaces that `multipliers` belongs to; none unless the edit is a projection.
    fn half_spaces(&self) -> &[HalfSpace] {
        &[]
    }
}

/// A kind of change, as the key `operation` of a plan names it.
#[derive(Clone, Copy)]
pub struct Operation {
    name: &'static str,
    help: &'static str,
    measure: Measure,
    constructor: Constructor,
}

/// How an operation makes its edit at one site.
#[derive(Clone, Copy)]
enum Constructor {
    /// From a direction with an amount.
    Direction(fn(Along) -> Box<dyn Edit>),
    /// From a set of safe states and the amount.
    SafeSet(fn(SafeSet, f32) -> Box<dyn Edit>),
}

/// A direction with what is done along it.
struct Along {
    /// `[width]`, of length 1.
    unit: Vec<f32>,
    /// What [`Measure`] describes.
    amount: f32,
    /// The component of the reference point, in activation units; 0 but for an ablation.
    reference: f32,
}

/// An operation with its strength and, for an ablation, its reference point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The kind of change.
    pub operation: Operation,
    /// How far.
    pub strength: Strength,
    /// What an ablation ablates to.
    pub to: Reference,
}

impl From<(Operation, Strength)> for Change {
    fn from((operation, strength): (Operation, Strength)) -> Change {
        Change { operation, strength, to: Reference::Zero }
    }
}

impl Operation {
    /// The name in plans: `add`, `ablate`, …
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The formula, in one line.
    pub const fn help(self) -> &'static str {
        self.help
    }

    /// What the strength measures.
    pub const fn measure(self) -> Measure {
        self.measure
    }

    /// Whether the operation takes probes instead of a vector.
    pub const fn takes_probes(self) -> bool {
        matches!(self.constructor, Constructor::SafeSet(_))
    }

    /// The edit along a direction. `place` begins the errors.
    ///
    /// # Errors
    /// An operation that takes probes; a direction of length 0; a strength in residual norms where the direction has no
    /// norm or the operation takes a share; a reference point where the direction has no class means or the operation is no
    /// ablation.
    pub(super) fn along(change: Change, direction: &Direction, place: &str) -> Result<Box<dyn Edit>> {
        let Change { operation, strength, to } = change;
        operation.check_strength(strength)?;
        operation.check_reference(to)?;
        match operation.constructor {
            Constructor::Direction(make) => {
                let amount = strength.amount(operation.measure, direction, place)?;
                let reference = to.component(direction, place)?;
                Ok(make(Along { unit: direction.unit()?.to_vec(), amount, reference }))
            }
            Constructor::SafeSet(_) => Err(Error::input(operation, "a vector", "probes instead of a vector")),
        }
    }

    /// Checks the reference point.
    ///
    /// # Errors
    /// Another point than the origin, of an operation that is no ablation.
    pub(super) fn check_reference(self, to: Reference) -> Result<()> {
        if to.is_zero() || self == Operation::ABLATE {
            return Ok(());
        }
        Err(Error::input(
            self,
            format!("to = \"{to}\""),
            "operation ablate, which alone has a reference point",
        ))
    }

    /// The edit into a set of safe states.
    ///
    /// # Errors
    /// An operation that takes a vector; a strength in residual norms.
    pub(super) fn within(self, safe_set: SafeSet, strength: Strength) -> Result<Box<dyn Edit>> {
        self.check_strength(strength)?;
        match (self.constructor, strength) {
            (Constructor::SafeSet(make), Strength::Raw(share) | Strength::Norms(share)) => {
                Ok(make(safe_set, share))
            }
            (Constructor::Direction(_), _) => Err(Error::input(self, "probes", "a vector instead of probes")),
        }
    }

    /// Checks the unit of a strength.
    ///
    /// # Errors
    /// A strength in residual norms where the operation takes a share.
    pub(super) fn check_strength(self, strength: Strength) -> Result<()> {
        match (self.measure, strength) {
            (Measure::Share, Strength::Norms(_)) => {
                let expected = "a share of the change, such as 1, without n";
                Err(Error::input(self, format!("strength {strength}"), expected))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Operation {
    fn default() -> Operation {
        Operation::ADD
    }
}

impl PartialEq for Operation {
    fn eq(&self, other: &Operation) -> bool {
        self.name == other.name
    }
}

impl Eq for Operation {}

impl Hash for Operation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// As errors name it: `operation add`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}", self.name)
    }
}

impl FromStr for Operation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Operation> {
        let operation = OPERATIONS.iter().find(|operation| operation.name == text);
        operation.copied().ok_or_else(|| {
            let names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
            Error::input(format!("operation {text:?}"), "no such operation", names.join(", "))
        })
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Operation, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `a · b`, summed in f64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    // Four independent sums, so that an addition needn't wait for the one before it.
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

/// `h + amount · v`, in place.
fn add_scaled(h: &mut [f32], v: &[f32], amount: f32) {
    for (h, v) in h.iter_mut().zip(v) {
        *h += amount * v;
    }
}

#[cfg(test)]
mod fixtures {
    use super::*;

    /// `v` as a direction of length 1; none where it is too short.
    pub(super) fn unit(v: &[f32]) -> Option<Direction> {
        let length = dot(v, v).sqrt() as f32;
        let values = v.iter().map(|v| v / length).collect();
        (length > 0.1).then_some(Direction::new(values, Some(10.0)))
    }

    /// `h` after an operation along a direction.
    pub(super) fn applied(operation: Operation, direction: &Direction, strength: f32, h: &[f32]) -> Vec<f32> {
        let mut h = h.to_vec();
        let change = (operation, Strength::Raw(strength)).into();
        let edit = Operation::along(change, direction, "test").unwrap();
        edit.apply(&mut h, 1.0, &mut Vec::new());
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_of_any_width() {
        let a: Vec<f32> = (1..=7).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), 140.0);
        assert_eq!(dot(&a[..3], &a[..3]), 14.0);
    }

    #[test]
    fn every_operation_is_named_once_explained_and_does_nothing_at_scale_0() {
        let direction = fixtures::unit(&[3.0, 0.0, -4.0]).unwrap();
        for operation in OPERATIONS {
            assert_eq!(operation.name().parse::<Operation>().unwrap(), operation);
            assert_eq!(OPERATIONS.iter().filter(|other| **other == operation).count(), 1);
            assert!(!operation.help().is_empty() && !operation.help().contains('\n'));
            let edit = match operation.takes_probes() {
                false => {
                    Operation::along((operation, Strength::Raw(1.5)).into(), &direction, "test").unwrap()
                }
                true => {
                    let half_space = HalfSpace { name: "x".into(), normal: vec![1.0, 0.0, 0.0], bound: 0.0 };
                    let safe_set = SafeSet::new(vec![half_space]).unwrap();
                    operation.within(safe_set, Strength::Raw(1.5)).unwrap()
                }
            };
            assert!(!edit.is_identity(), "{operation}");
            assert_eq!(edit.half_spaces().is_empty(), !operation.takes_probes());
            let mut h = [5.0, 6.0, -7.0];
            edit.apply(&mut h, 0.0, &mut Vec::new());
            assert_eq!(h, [5.0, 6.0, -7.0], "{operation}");
            edit.apply(&mut h, 1.0, &mut Vec::new());
            assert_ne!(h, [5.0, 6.0, -7.0], "{operation}");
        }
    }

    #[test]
    fn an_unknown_operation_is_refused_with_the_names_of_the_table() {
        let error = "turn".parse::<Operation>().unwrap_err().to_string();
        let names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name()).collect();
        assert_eq!(error, format!("operation \"turn\": no such operation; expected {}", names.join(", ")));
    }
}
