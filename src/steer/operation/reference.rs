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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::array;

    use super::super::{Change, Operation, Strength};
    use super::*;
    use crate::steer::{Measured, Unit};

    #[test]
    fn an_ablation_to_a_point_gives_every_state_its_component() {
        let measured = Measured {
            unit: Unit::ResidualStream,
            site_norm: 1.0,
            means: [array![8.0, 1.0], array![2.0, 3.0]],
            rows: [3, 1],
        };
        let known =
            Direction { measured: Some(Arc::new(measured)), ..Direction::new(array![2.0, 0.0], Some(1.0)) };
        let ablated = |to: Reference, share: f32, direction: &Direction| {
            let change = Change { operation: Operation::ABLATE, strength: Strength::Raw(share), to };
            let edit = Operation::along(change, direction, "test")?;
            let mut h = [-4.0, 9.0];
            edit.apply(&mut h, 1.0, &mut Vec::new());
            Ok::<_, Error>(h)
        };
        assert_eq!(ablated(Reference::Zero, 1.0, &known).unwrap(), [0.0, 9.0]);
        // 3 rows at 8 and 1 at 2; half-way between 8 and 2; half of the way from −4 to there.
        assert_eq!(ablated(Reference::Mean, 1.0, &known).unwrap(), [6.5, 9.0]);
        assert_eq!(ablated(Reference::Midpoint, 1.0, &known).unwrap(), [5.0, 9.0]);
        assert_eq!(ablated(Reference::Midpoint, 0.5, &known).unwrap(), [0.5, 9.0]);
        let error = ablated(Reference::Mean, 1.0, &Direction::new(array![2.0, 0.0], None)).unwrap_err();
        assert!(error.to_string().contains("no class means"), "{error}");
        let change =
            Change { operation: Operation::ADD, strength: Strength::Raw(1.0), to: Reference::Midpoint };
        let error = Operation::along(change, &known, "test").unwrap_err().to_string();
        assert!(error.contains("operation ablate"), "{error}");
    }
}
