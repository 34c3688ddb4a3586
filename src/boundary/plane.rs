//! The plane in activation space that a risk map is drawn on, with projection onto it and back.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::{Link, Probe};
use crate::stats::principal_components;

/// A plane through `origin`, spanned by two orthonormal axes of activation space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plane {
    /// A point of the plane, `[width]`.
    pub origin: Vec<f64>,
    /// An orthonormal basis, each vector `[width]`.
    pub axes: [Vec<f64>; 2],
    /// The names of the axes.
    pub names: [String; 2],
}

impl Plane {
    /// The plane through the mean of `points` `[rows, width]` that a probe's probabilities depend on. Along the first axis
    /// the odds of class `to` against class `from` grow.
    ///
    /// Three classes: the plane contains all differences of weights, so the probabilities of any activation are those of its
    /// projection, and contours on the plane are exact for all of activation space. More classes: it contains the differences
    /// between `from`, `to` and the first other class. Two classes, or ordinal ones: the second axis is the first principal
    /// component of `points` after the first axis is projected out, and contours are exact too. Multilabel: `from` or `to`
    /// may be [`crate::probe::NONE`], and the plane contains the weights of two labels at most; contours of other labels are
    /// those on the plane itself.
    ///
    /// # Errors
    /// Classes that the probe lacks; points of another width, or fewer than two; directions that are 0 or parallel.
    pub fn of_probe(probe: &Probe, points: ArrayView2<f32>, from: &str, to: &str) -> Result<Plane> {
        let place = format!("plane of {}", probe.source.label);
        if points.ncols() != probe.weight.ncols() || points.nrows() < 2 {
            let found = format!("points of shape {:?}", points.shape());
            let expected = format!("two rows or more of width {}", probe.weight.ncols());
            return Err(Error::input(place, found, expected));
        }
        let points = points.mapv(f64::from);
        let origin = points.sum_axis(Axis(0)) / points.nrows() as f64;
        let first = probe.direction(from, to)?.mapv(f64::from);
        // All levels share one direction.
        let other = match probe.link {
            Link::Ordinal => None,
            _ => probe.classes.iter().find(|class| *class != from && *class != to),
        };
        let (second, name) = match other {
            Some(other) => {
                (probe.direction(from, other)?.mapv(f64::from), format!("{other} (the rest of it)"))
            }
            None => (main_direction(&points - &origin, first.view())?, "greatest variance".to_owned()),
        };
        let names = [format!("{from} → {to}"), name];
        Plane::of_directions(origin.view(), first.view(), second.view(), names)
    }

    /// The plane through `origin` with axes by Gram–Schmidt from `first` and `second`.
    ///
    /// # Errors
    /// Different widths; a direction that is 0 or not finite; parallel directions.
    pub fn of_directions(
        origin: ArrayView1<f64>,
        first: ArrayView1<f64>,
        second: ArrayView1<f64>,
        names: [String; 2],
    ) -> Result<Plane> {
        if origin.len() != first.len() || origin.len() != second.len() {
            let found = format!("widths {}, {} and {}", origin.len(), first.len(), second.len());
            return Err(Error::input("plane", found, "equal widths"));
        }
        let unit = |vector: Array1<f64>, least: f64| -> Result<Array1<f64>> {
            let length = vector.dot(&vector).sqrt();
            if length.is_finite() && length > least {
                return Ok(vector / length);
            }
            Err(Error::input(
                "plane",
                "directions that are 0, parallel or not finite",
                "two that span a plane",
            ))
        };
        let first = unit(first.to_owned(), 0.0)?;
        let length = second.dot(&second).sqrt();
        let beside = |vector: Array1<f64>| &vector - &(&first * first.dot(&vector));
        // Twice, to remove what rounding leaves after the first time.
        let second = unit(beside(beside(second.to_owned())), 1e-6 * length)?;
        Ok(Plane { origin: origin.to_vec(), axes: [first.to_vec(), second.to_vec()], names })
    }

    /// The coordinates `[rows, 2]` on the plane of the orthogonal projections of points `[rows, width]`, in activation units.
    ///
    /// # Errors
    /// Points of another width.
    pub fn project(&self, points: ArrayView2<f32>) -> Result<Array2<f64>> {
        if points.ncols() != self.origin.len() {
            let found = format!("points of width {}", points.ncols());
            return Err(Error::input("plane", found, format!("width {}", self.origin.len())));
        }
        let coordinate = |point: ArrayView1<f32>, axis: &[f64]| -> f64 {
            let along = point.iter().zip(&self.origin).zip(axis);
            along.map(|((&value, origin), axis)| (f64::from(value) - origin) * axis).sum()
        };
        let coordinates = |(row, axis): (usize, usize)| coordinate(points.row(row), &self.axes[axis]);
        Ok(Array2::from_shape_fn((points.nrows(), 2), coordinates))
    }

    /// The point `[width]` of activation space with these coordinates on the plane.
    pub fn lift(&self, at: [f64; 2]) -> Array1<f64> {
        let axes = self.axes[0].iter().zip(&self.axes[1]);
        let along = self.origin.iter().zip(axes);
        along.map(|(origin, (a, b))| origin + at[0] * a + at[1] * b).collect()
    }
}

/// The first principal component of centred points after `beside` is projected out.
fn main_direction(mut points: Array2<f64>, beside: ArrayView1<f64>) -> Result<Array1<f64>> {
    let whole: f64 = points.iter().map(|value| value * value).sum();
    let square = beside.dot(&beside);
    if square > 0.0 {
        for mut point in points.rows_mut() {
            let share = point.dot(&beside) / square;
            point.scaled_add(-share, &beside);
        }
    }
    match principal_components(points, 1).pop() {
        // What is left of points on one line are rounding errors.
        Some((direction, along)) if along.dot(&along) > 1e-24 * whole => Ok(direction),
        _ => Err(Error::input("plane", "no main direction", "points that vary in two directions")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::tests::{cloud, probe};
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn axes_by_hand() {
        let names = ["a".to_owned(), "b".to_owned()];
        let plane = |second: Array1<f64>| {
            let (origin, first) = (array![1.0, 1.0, 1.0], array![0.0, 3.0, 4.0]);
            Plane::of_directions(origin.view(), first.view(), second.view(), names.clone())
        };
        let made = plane(array![2.0, 6.0, 8.0]).unwrap();
        let expected = [[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]];
        for (axis, expected) in made.axes.iter().zip(expected) {
            assert!(axis.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-12), "{axis:?}");
        }
        let feet = made.project(array![[3.0f32, 4.0, 5.0]].view()).unwrap();
        assert!((feet[[0, 0]] - 5.0).abs() < 1e-12 && (feet[[0, 1]] - 2.0).abs() < 1e-12);
        assert!(plane(array![0.0, -6.0, -8.0]).is_err() && plane(array![0.0, 0.0, 0.0]).is_err());
        assert!(made.project(array![[3.0f32]].view()).is_err());
    }

    #[test]
    fn of_two_classes_the_second_axis_is_where_the_points_spread() {
        // Spread: 3 along x (the probe's own), 2 along z, 0.1 along y.
        let points = Array2::from_shape_fn((60, 3), |(row, column)| {
            let angle = row as f32 * 0.9 + column as f32;
            angle.sin() * [3.0, 0.1, 2.0][column]
        });
        let probe = probe(array![[5.0, 0.0, 0.0]], &["benign", "malicious"]);
        let plane = Plane::of_probe(&probe, points.view(), "benign", "malicious").unwrap();
        assert_eq!(plane.axes[0], [1.0, 0.0, 0.0]);
        assert!(plane.axes[1][2] > 0.99, "{:?}", plane.axes);
    }

    proptest! {
        #[test]
        fn a_plane_of_three_classes_holds_everything_that_the_probe_decides_on(seed in 0u64..1000) {
            let (weight, points) = (cloud(3, 7, seed), cloud(20, 7, seed + 5000));
            let probe = probe(weight, &["benign", "sensitive", "malicious"]);
            let plane = Plane::of_probe(&probe, points.view(), "benign", "malicious").unwrap();
            let all = probe.probabilities(points.view()).unwrap();
            for (row, foot) in plane.project(points.view()).unwrap().rows().into_iter().enumerate() {
                let lifted = plane.lift([foot[0], foot[1]]).mapv(|v| v as f32).insert_axis(Axis(0));
                let here = probe.probabilities(lifted.view()).unwrap();
                prop_assert!(all.row(row).iter().zip(&here).all(|(a, b)| (a - b).abs() < 1e-5));
                // Projecting what was lifted gives the place again.
                let again = plane.project(lifted.view()).unwrap();
                prop_assert!(again.iter().zip(&foot).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
}
