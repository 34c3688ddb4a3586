//! Decision region of a class under a probe: an intersection of half-spaces of activation space, and the signed distances
//! of states to its boundary.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use crate::error::{Error, Result};
use crate::probe::{Link, NONE, Probe};

/// A convex polyhedron: the states `h` with `normal · h + offset ≥ 0` for each of its half-spaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// The class.
    pub class: String,
    /// For each half-space, the class on its other side.
    pub across: Vec<String>,
    /// `[half-spaces, width]`, of length 1, pointing inwards.
    normals: Array2<f64>,
    /// `[half-spaces]`, in activation units.
    offsets: Array1<f64>,
}

/// The signed distance of a state to the boundary of a region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedDistance {
    /// Distance to the boundary in activation units: positive inside, negative outside.
    pub margin: f64,
    /// The nearest half-space, an index into `across`: inside, the one with the nearest boundary; outside, the one with the
    /// greatest multiplier in the projection onto the region.
    pub half_space: usize,
}

impl Region {
    /// The region of `class`. Two classes: the boundary is where the calibrated probability is one half. More classes: the
    /// half-spaces are bounded where two logits are equal, which all calibrations but the isotonic one preserve. Ordinal:
    /// where the probability of reaching a level, or the next one, is one half. Multilabel: a class has one half-space, its
    /// own head's; the states outside all classes are the region of [`NONE`], with a half-space for each class.
    ///
    /// # Errors
    /// A class that the probe lacks; equal weights on both sides of a boundary.
    pub fn of_class(probe: &Probe, class: &str) -> Result<Region> {
        let head = |index: usize| (probe.weight.row(index).mapv(f64::from), f64::from(probe.bias[index]));
        let less = |(a, b): (Array1<f64>, f64), (c, d): (Array1<f64>, f64)| (a - c, b - d);
        let nothing = || (Array1::zeros(probe.weight.ncols()), 0.0);
        let outside = probe.link == Link::MultiLabel && class == NONE && probe.class(class).is_err();
        let own = if outside { 0 } else { probe.class(class)? };
        let others = (0..probe.classes.len()).filter(|&other| other != own);
        let name = |index: usize| probe.classes[index].clone();
        let planes: Vec<(String, (Array1<f64>, f64))> = match probe.link {
            Link::Binary => {
                let (weight, bias) = head(0);
                let shifted = (weight, bias - even_logit(probe));
                vec![(name(1 - own), if own == 1 { shifted } else { less(nothing(), shifted) })]
            }
            Link::Multinomial => others.map(|other| (name(other), less(head(own), head(other)))).collect(),
            Link::MultiLabel if outside => {
                (0..probe.classes.len()).map(|other| (name(other), less(nothing(), head(other)))).collect()
            }
            Link::MultiLabel => vec![(NONE.to_owned(), head(own))],
            Link::Ordinal => {
                let lower = own.checked_sub(1).map(|below| (name(below), head(below)));
                let upper =
                    (own + 1 < probe.classes.len()).then(|| (name(own + 1), less(nothing(), head(own))));
                lower.into_iter().chain(upper).collect()
            }
        };
        let mut normals = Array2::zeros((planes.len(), probe.weight.ncols()));
        let mut offsets = Array1::zeros(planes.len());
        let mut across = Vec::new();
        for (index, (name, (normal, offset))) in planes.into_iter().enumerate() {
            let length = normal.dot(&normal).sqrt();
            if !(length.is_finite() && length > 0.0) {
                let found = format!("no direction from {class:?} to {name:?}");
                return Err(Error::input(
                    format!("probe of {}", probe.source.label),
                    found,
                    "weights that differ",
                ));
            }
            normals.row_mut(index).assign(&(normal / length));
            offsets[index] = offset / length;
            across.push(name);
        }
        Ok(Region { class: class.to_owned(), across, normals, offsets })
    }

    /// Signed distances `[rows, half-spaces]` of states `[rows, width]` to each bounding plane, positive inside.
    ///
    /// # Errors
    /// States of another width.
    pub fn distances(&self, states: ArrayView2<f32>) -> Result<Array2<f64>> {
        if states.ncols() != self.normals.ncols() {
            let found = format!("activations of width {}", states.ncols());
            let expected = format!("width {}", self.normals.ncols());
            return Err(Error::input(format!("region of {}", self.class), found, expected));
        }
        Ok(states.mapv(f64::from).dot(&self.normals.t()) + &self.offsets)
    }

    /// The signed distance of each state `[rows, width]` to the boundary.
    ///
    /// # Errors
    /// States of another width.
    pub fn signed_distances(&self, states: ArrayView2<f32>) -> Result<Vec<SignedDistance>> {
        let products = self.normals.dot(&self.normals.t());
        let signed_distance = |distances: ArrayView1<f64>| {
            let (half_space, &least) = least(distances);
            if least >= 0.0 {
                return SignedDistance { margin: least, half_space };
            }
            let multipliers = multipliers(products.view(), distances);
            let length = multipliers.dot(&products.dot(&multipliers)).max(0.0).sqrt();
            let (half_space, _) = self::least(multipliers.mapv(|multiplier| -multiplier).view());
            SignedDistance { margin: -length, half_space }
        };
        Ok(self.distances(states)?.rows().into_iter().map(signed_distance).collect())
    }

    /// The displacement `[width]` from a state to the nearest point of the region; 0 for a state inside.
    ///
    /// # Errors
    /// A state of another width.
    pub fn displacement(&self, state: ArrayView1<f32>) -> Result<Array1<f64>> {
        let distances = self.distances(state.insert_axis(ndarray::Axis(0)))?;
        let multipliers = multipliers(self.normals.dot(&self.normals.t()).view(), distances.row(0));
        Ok(multipliers.dot(&self.normals))
    }
}

/// Index and value of the least entry, the first of several.
fn least(values: ArrayView1<'_, f64>) -> (usize, &f64) {
    let mut best = (0, &f64::INFINITY);
    for (index, value) in values.into_iter().enumerate() {
        if value < best.1 {
            best = (index, value);
        }
    }
    best
}

/// The multipliers of the projection onto the region, at least 0 each, by Hildreth's procedure (1957): coordinate ascent
/// on the dual until no multiplier changes. `products`: the Gram matrix of the normals; `distances`: those of the state to
/// the bounding planes.
fn multipliers(products: ArrayView2<f64>, distances: ArrayView1<f64>) -> Array1<f64> {
    let mut multipliers = Array1::<f64>::zeros(distances.len());
    let size = distances.fold(0.0f64, |most, distance| most.max(distance.abs()));
    for _ in 0..10_000 {
        let mut moved = 0.0f64;
        for index in 0..multipliers.len() {
            let violation = -(distances[index] + products.row(index).dot(&multipliers));
            let multiplier = (multipliers[index] + violation / products[[index, index]]).max(0.0);
            moved = moved.max((multiplier - multipliers[index]).abs());
            multipliers[index] = multiplier;
        }
        if moved <= 1e-12 * size {
            break;
        }
    }
    multipliers
}

/// The logit of a probe with one head at which its calibrated probability is one half; 0 where it never is.
fn even_logit(probe: &Probe) -> f64 {
    let above = |logit: f64| {
        let logits = Array2::from_elem((1, 1), logit);
        probe.from_logits(logits)[[0, 1]] >= 0.5
    };
    let (mut low, mut high) = (-1e6, 1e6);
    if above(low) || !above(high) {
        return 0.0;
    }
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if above(middle) { high = middle } else { low = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::tests::{cloud, probe};
    use crate::probe::Calibration;
    use ndarray::array;
    use proptest::prelude::*;

    /// The safe class is the quarter x ≤ −1, y ≤ −2.
    fn quarter() -> Probe {
        let mut probe = probe(array![[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], &["safe", "rumours", "fraud"]);
        probe.bias = array![0.0, 3.0, 8.0];
        probe
    }

    #[test]
    fn signed_distances_by_hand() {
        let region = Region::of_class(&quarter(), "safe").unwrap();
        assert_eq!(region.across, ["rumours", "fraud"]);
        let states = array![[-3.0f32, -3.0], [-1.5, -9.0], [2.0, -5.0], [2.0, 2.0]];
        let found = region.signed_distances(states.view()).unwrap();
        let expected = [(1.0, 1), (0.5, 0), (-3.0, 0), (-5.0, 1)];
        for (found, (margin, half_space)) in found.iter().zip(expected) {
            assert!((found.margin - margin).abs() < 1e-9 && found.half_space == half_space, "{found:?}");
        }
        // From (2, 2) the nearest point is the corner, (−1, −2).
        let displacement = region.displacement(array![2.0f32, 2.0].view()).unwrap();
        assert!(
            (displacement[0] + 3.0).abs() < 1e-9 && (displacement[1] + 4.0).abs() < 1e-9,
            "{displacement}"
        );
        assert!(Region::of_class(&quarter(), "else").is_err());
    }

    #[test]
    fn labels_bound_what_is_none_of_them_and_levels_bound_each_other() {
        let mut labels = probe(array![[3.0, 0.0], [0.0, 4.0]], &["rumours", "fraud"]);
        (labels.bias, labels.link) = (array![3.0, 8.0], Link::MultiLabel);
        let state = array![[2.0f32, 2.0]];
        let margin = |probe: &Probe, class: &str| {
            let region = Region::of_class(probe, class).unwrap();
            (region.signed_distances(state.view()).unwrap()[0].margin, region.across)
        };
        // As in the quarter above.
        let (out, across) = margin(&labels, NONE);
        assert!((out + 5.0).abs() < 1e-9 && across == ["rumours", "fraud"], "{out}");
        assert!((margin(&labels, "fraud").0 - 4.0).abs() < 1e-9);
        // Levels along x: R1 begins at x = −1, R2 at x = 3.
        let mut levels = probe(array![[2.0, 0.0], [2.0, 0.0]], &["R0", "R1", "R2"]);
        (levels.bias, levels.link) = (array![2.0, -6.0], Link::Ordinal);
        assert_eq!(margin(&levels, "R1"), (1.0, vec!["R0".to_owned(), "R2".to_owned()]));
        assert_eq!((margin(&levels, "R0").0, margin(&levels, "R2").0), (-3.0, -1.0));
    }

    #[test]
    fn of_two_classes_the_boundary_is_where_calibration_puts_one_half() {
        let mut probe = probe(array![[2.0, 0.0]], &["benign", "malicious"]);
        probe.bias = array![0.0];
        // Platt: 0.5 · logit − 3 is 0 at a logit of 6, which is at x = 3.
        probe.calibration = Calibration::Platt { slope: 0.5, offset: -3.0 };
        for (class, sign) in [("malicious", 1.0), ("benign", -1.0)] {
            let region = Region::of_class(&probe, class).unwrap();
            let found = region.signed_distances(array![[5.0f32, 7.0]].view()).unwrap();
            assert!((found[0].margin - 2.0 * sign).abs() < 1e-9, "{found:?}");
        }
    }

    proptest! {
        #[test]
        fn the_displacement_ends_on_the_boundary_and_none_is_shorter(seed in 0u64..500) {
            let probe = probe(cloud(4, 6, seed), &["a", "b", "c", "d"]);
            let region = Region::of_class(&probe, "c").unwrap();
            let states = cloud(12, 6, seed + 900) * 3.0;
            let inside = probe.predict(states.view()).unwrap();
            for (row, found) in region.signed_distances(states.view()).unwrap().iter().enumerate() {
                prop_assert_eq!(found.margin > 0.0, inside[row] == 2);
                let displacement = region.displacement(states.row(row)).unwrap();
                let length = displacement.dot(&displacement).sqrt();
                prop_assert!((length - (-found.margin).max(0.0)).abs() < 1e-6);
                let goal = |share: f64| {
                    let at = states.row(row).mapv(f64::from) + &displacement * share;
                    let distances = region.normals.dot(&at) + &region.offsets;
                    distances.fold(f64::INFINITY, |a, &b| a.min(b))
                };
                if length > 0.0 {
                    // At its end every bound holds, and a little before one doesn't: as the region is convex, and the
                    // displacement is a sum of normals of the bounds that are active there, no other is shorter.
                    prop_assert!(goal(1.0).abs() < 1e-5 * length.max(1.0), "{}", goal(1.0));
                    prop_assert!(goal(0.999) < 0.0);
                }
            }
        }
    }
}
