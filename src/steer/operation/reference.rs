//! The reference point of an ablation: what the component along a direction becomes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Direction;
use crate::error::{Error, Result};

/// The point whose component along the direction an ablated state gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reference {
    /// The origin: the component becomes 0 (Arditi et al., arXiv 2406.11717).
    #[default]
    Zero,
    /// The mean of the states that the vector was made from, of both classes together.
    Mean,
    /// The point half-way between the means of the two classes.
    Midpoint,
}

impl Reference {
    /// Whether it is the origin.
    pub fn is_zero(&self) -> bool {
        *self == Reference::Zero
    }

    /// The point's component along the direction, in activation units.
    ///
    /// # Errors
    /// Another point than the origin, where the direction has no class means.
    pub(super) fn component(self, direction: &Direction, place: &str) -> Result<f32> {
        if self.is_zero() {
            return Ok(0.0);
        }
        let Some(measured) = &direction.measured else {
            let found = format!("to = \"{self}\", but the vector has no class means");
            return Err(Error::input(
                place,
                found,
                "to = \"zero\", or a vector that `pearl vector build` made anew",
            ));
        };
        let unit = direction.unit()?.to_vec();
        let along = measured.along(&unit);
        let shares = match self {
            Reference::Mean => measured.rows.map(|rows| rows as f64),
            _ => [1.0, 1.0],
        };
        Ok(((along[0] * shares[0] + along[1] * shares[1]) / (shares[0] + shares[1])) as f32)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reference::Zero => "zero",
            Reference::Mean => "mean",
            Reference::Midpoint => "midpoint",
        })
    }
}
