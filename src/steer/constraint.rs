//! Bounds on probes' probabilities that `project` satisfies: `FILE:CLASS < PROBABILITY`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::probe_query::ProbeQuery;
use crate::error::{Error, Result};

/// A bound on a class's calibrated probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    /// The probability that is bounded.
    pub query: ProbeQuery,
    /// The bound; below the probe's own calibrated threshold for the class where none is given.
    pub bound: Option<Inequality>,
}

/// `< probability` or `> probability`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inequality {
    /// Whether the probability must be above the bound, instead of below.
    pub above: bool,
    /// Between 0 and 1.
    pub probability: f64,
}

impl fmt::Display for Inequality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.above { '>' } else { '<' }, self.probability)
    }
}

impl FromStr for Constraint {
    type Err = Error;

    /// `FILE:CLASS < PROBABILITY`, with `>`, or without a bound.
    fn from_str(text: &str) -> Result<Constraint> {
        let Some(sign) = text.find(['<', '>']) else {
            return Ok(Constraint { query: ProbeQuery::parse(text.trim()), bound: None });
        };
        let (query, number) = (text[..sign].trim(), text[sign + 1..].trim());
        let probability = number.parse().ok().filter(|number: &f64| *number > 0.0 && *number < 1.0);
        let probability = probability.ok_or_else(|| {
            let expected = "FILE:CLASS < PROBABILITY (or >), between 0 and 1";
            Error::input(format!("probe {text:?}"), "no bound", expected)
        })?;
        let bound = Inequality { above: text[sign..].starts_with('>'), probability };
        Ok(Constraint { query: ProbeQuery::parse(query), bound: Some(bound) })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.query.fmt(f)?;
        self.bound.map_or(Ok(()), |bound| write!(f, " {bound}"))
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Constraint, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// One constraint, or a list of them.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<Constraint>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<Constraint>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("FILE:CLASS < PROBABILITY, or a list of such texts")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Vec<Constraint>, E> {
            Ok(vec![text.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> std::result::Result<Vec<Constraint>, A::Error> {
            let mut constraints = Vec::new();
            while let Some(constraint) = list.next_element()? {
                constraints.push(constraint);
            }
            Ok(constraints)
        }
    }

    from.deserialize_any(Visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bounds_and_says_them_again() {
        let constraint: Constraint = "a b.safetensors:x/y > 0.25".parse().unwrap();
        assert_eq!(constraint.query.to_string(), "a b.safetensors:x/y");
        assert_eq!(constraint.bound, Some(Inequality { above: true, probability: 0.25 }));
        assert_eq!(constraint.to_string(), "a b.safetensors:x/y > 0.25");
        assert_eq!("a:x".parse::<Constraint>().unwrap().bound, None);
        for wrong in ["a < 1", "a < NaN", "a <", "a > 0"] {
            assert!(wrong.parse::<Constraint>().is_err(), "{wrong}");
        }
    }
}
