//! Principal components: rows of activations on the plane on which they spread most, with a label of each.
//!
//! It knows no probe: what falls apart here does so without having been looked for, and what doesn't may still be linear in a direction
//! of little variance.

use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::activations::Labelled;
use crate::error::{Error, Result};
use crate::model::{Selector, Site};
use crate::stats::principal_components;

/// Rows on their first two principal components (the table of a plot).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PcaScatter {
    /// The label whose values colour the points.
    pub label: String,
    /// Where the states were read.
    pub site: Site,
    /// Which tokens were read.
    pub tokens: Selector,
    /// Shares of the whole variance along the two components.
    pub variance: [f64; 2],
    /// A point a row.
    pub points: Vec<ScatterPoint>,
}

/// A row of activations on the two components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScatterPoint {
    /// Along the first component, from the mean of all rows, in activation units.
    pub x: f64,
    /// Along the second.
    pub y: f64,
    /// The row's label.
    pub label: String,
}

impl PcaScatter {
    /// The scatter of all rows of `states` at a site.
    ///
    /// # Errors
    /// A site that was not read; a label that rows lack; fewer than three rows, or rows that vary in one direction only.
    pub fn of(states: &Labelled, site: Site, label: &str) -> Result<PcaScatter> {
        let labels = states.labels(label)?;
        let (places, variance) = components(&states.at(site)?.mapv(f64::from))
            .map_err(|found| Error::input(site, found, "rows that vary in two directions"))?;
        let point = |(place, label): ([f64; 2], String)| ScatterPoint { x: place[0], y: place[1], label };
        Ok(PcaScatter {
            label: label.into(),
            site,
            tokens: states.tokens().clone(),
            variance,
            points: places.into_iter().zip(labels).map(point).collect(),
        })
    }
}

/// The places of rows on their first two principal components, and the shares of the variance along those. The largest coordinate of
/// each component is positive.
fn components(rows: &Array2<f64>) -> std::result::Result<(Vec<[f64; 2]>, [f64; 2]), String> {
    if rows.nrows() < 3 || rows.ncols() < 2 {
        return Err(format!("{} rows of width {}", rows.nrows(), rows.ncols()));
    }
    let mean = rows.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(rows.ncols()));
    let centred = rows - &mean;
    let whole: f64 = centred.iter().map(|value| value * value).sum();
    let mut places = Array2::<f64>::zeros((rows.nrows(), 2));
    for (mut place, (_, along)) in places.columns_mut().into_iter().zip(principal_components(centred, 2)) {
        place.assign(&along);
    }
    let share = |axis: usize| places.column(axis).dot(&places.column(axis)) / whole;
    let is_plane = places.iter().all(|value| value.is_finite()) && whole > 0.0;
    if !is_plane || share(1) < 1e-9 {
        return Err("rows along one line".into());
    }
    let place = |row: usize| [places[[row, 0]], places[[row, 1]]];
    Ok(((0..rows.nrows()).map(place).collect(), [share(0), share(1)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_by_hand() {
        // A cross about (10, 0, 3): ±4 along the direction (3, 4, 0)/5, ±1 along z. Variances 32 and 2 of 34.
        let rows = ndarray::array![[12.4, 3.2, 3.0], [7.6, -3.2, 3.0], [10.0, 0.0, 4.0], [10.0, 0.0, 2.0],];
        let (places, variance) = components(&rows).unwrap();
        let expected = [[4.0, 0.0], [-4.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        for (place, expected) in places.iter().flatten().zip(expected.iter().flatten()) {
            assert!((place - expected).abs() < 1e-6, "{places:?}");
        }
        assert!((variance[0] - 32.0 / 34.0).abs() < 1e-9 && (variance[1] - 2.0 / 34.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_and_two_rows_are_refused() {
        let line = Array2::from_shape_fn((5, 3), |(row, column)| (row * (column + 1)) as f64);
        assert!(components(&line).is_err());
        assert!(components(&Array2::from_elem((4, 3), 2.0)).is_err());
        assert!(components(&Array2::from_elem((2, 3), 2.0)).is_err());
    }
}
