//! Steering strength: a multiple of the vector, or of the residual stream's median norm along it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Direction;
use crate::error::{Error, Result};

/// How far to steer. Written as `1.5` or `0.4n`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strength {
    /// A multiple of the vector, a projection or a share, as the operation's [`Measure`] says.
    Raw(f32),
    /// Along the unit vector, in multiples of the residual stream's norm at the site, [`Direction::residual_norm`]: `0.4n`.
    Norms(f32),
}

/// What the strength of an operation measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A displacement along the vector, in lengths of the vector; 0 is the unsteered model.
    Displacement,
    /// A projection onto the unit vector, in activation units.
    Projection,
    /// The share of the whole change, without a unit; 0 is the unsteered model.
    Share,
}

impl Strength {
    /// The amount in activation units; for a share, the share.
    ///
    /// # Errors
    /// A strength in residual norms where the direction has no norm.
    pub(super) fn amount(self, measure: Measure, direction: &Direction, place: &str) -> Result<f32> {
        match (self, measure) {
            (Strength::Raw(times), Measure::Displacement) => Ok(times * direction.length()),
            (Strength::Raw(value), Measure::Projection | Measure::Share) => Ok(value),
            (Strength::Norms(norms), _) => {
                direction.residual_norm.map(|norm| norms * norm).ok_or_else(|| {
                    let found = format!("strength {self}, but the vector has no residual norm");
                    let expected = "a strength without n, or a vector that `pearl vector build` made";
                    Error::input(place, found, expected)
                })
            }
        }
    }
}

/// Once the vector.
impl Default for Strength {
    fn default() -> Strength {
        Strength::Raw(1.0)
    }
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
            let expected = "a number, or a number of residual norms (0.4n)";
            Error::input(format!("strength {text}"), "no finite number", expected)
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

impl Serialize for Strength {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// From text, or from a bare number.
impl<'de> Deserialize<'de> for Strength {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Strength, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Strength;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a strength (1.5, or 0.4n in residual norms)")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Strength, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> std::result::Result<Strength, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> std::result::Result<Strength, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<Strength, E> {
                self.visit_str(&number.to_string())
            }
        }

        from.deserialize_any(Visitor)
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
    fn reads_numbers_and_text_of_json() {
        for (json, expected) in
            [("2", Strength::Raw(2.0)), ("-0.5", Strength::Raw(-0.5)), ("\"1n\"", Strength::Norms(1.0))]
        {
            assert_eq!(serde_json::from_str::<Strength>(json).unwrap(), expected);
        }
        assert!(serde_json::from_str::<Strength>("true").unwrap_err().to_string().contains("a strength"));
    }
}
