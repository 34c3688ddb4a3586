//! The smallest change that brings a state to the safe side of a set of half-spaces: projection on a polyhedron, and
//! which of its faces were in the way.
//! It knows nothing of probes: `reading.rs` makes half-spaces of them.
//!
//! With the faces' normals as rows of `A` and `r = A h − c`, the projection of `h` on `{x : A x ≤ c}` is `h − Aᵀλ`, where
//! `λ ≥ 0` makes `½ λᵀ A Aᵀ λ − λᵀ r` least (the dual; Boyd & Vandenberghe, Convex Optimization, 8.1.1). That has as many
//! unknowns as faces, and is solved by active sets as Lawson & Hanson (1974, chapter 23) solve non-negative least squares.

use super::{dot, move_along};
use crate::error::{Error, Result};

/// A half-space of safe states: `normal · h ≤ bound`.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfSpace {
    /// What it is called in traces.
    pub name: String,
    /// `[width]`, not 0.
    pub normal: Vec<f32>,
    pub bound: f64,
}

/// The states that are on the safe side of every face.
#[derive(Clone, Debug)]
pub struct SafeSet {
    faces: Vec<HalfSpace>,
    /// Lengths of the normals.
    lengths: Vec<f64>,
    /// Cosines between the normals, `[faces, faces]`, with a hair on the diagonal: of two faces that are the same one,
    /// each then pushes half.
    gram: Vec<f64>,
}

/// The hair, beside cosines of at most 1.
const RIDGE: f64 = 1e-10;
/// Steps of the active set: far more than a set of some faces needs; rounding could make it turn in circles.
const STEPS: usize = 200;
/// What is left of a violation, as a share of the largest, that counts as none.
const SLACK: f64 = 1e-6;

impl SafeSet {
    /// # Errors
    /// No face; faces of several widths; a normal that is 0 or not finite; faces that no state satisfies together.
    pub fn new(faces: Vec<HalfSpace>) -> Result<SafeSet> {
        let Some(first) = faces.first() else {
            return Err(Error::input("project", "no probe to satisfy", "at least one"));
        };
        let width = first.normal.len();
        for face in &faces {
            let length = dot(&face.normal, &face.normal).sqrt();
            if face.normal.len() != width || !length.is_finite() || length == 0.0 || !face.bound.is_finite() {
                let found = format!("a normal of width {} and length {length}", face.normal.len());
                let expected = format!("width {width}, and a length above 0");
                return Err(Error::input(&face.name, found, expected));
            }
        }
        let lengths: Vec<f64> = faces.iter().map(|face| dot(&face.normal, &face.normal).sqrt()).collect();
        let count = faces.len();
        let mut gram = vec![0.0; count * count];
        for i in 0..count {
            for j in 0..count {
                let cosine = dot(&faces[i].normal, &faces[j].normal) / (lengths[i] * lengths[j]);
                gram[i * count + j] = cosine + if i == j { RIDGE } else { 0.0 };
            }
        }
        let polyhedron = SafeSet { faces, lengths, gram };
        polyhedron.check_satisfiable()?;
        Ok(polyhedron)
    }

    pub fn faces(&self) -> &[HalfSpace] {
        &self.faces
    }

    pub fn width(&self) -> usize {
        self.faces[0].normal.len()
    }

    /// Moves `h` by `share` of the way to the nearest safe state; one that is safe is not touched. `pushes` becomes how
    /// far each face pushed along its normal, in activation units; 0 where it was not in the way.
    pub fn project(&self, h: &mut [f32], share: f32, pushes: &mut Vec<f64>) {
        pushes.clear();
        let faces = self.faces.iter().zip(&self.lengths);
        let violations: Vec<f64> =
            faces.map(|(face, length)| (dot(&face.normal, h) - face.bound) / length).collect();
        if violations.iter().all(|violation| *violation <= 0.0) {
            pushes.resize(self.faces.len(), 0.0);
            return;
        }
        pushes.extend(self.pushes(&violations));
        for ((face, length), push) in self.faces.iter().zip(&self.lengths).zip(pushes) {
            if *push > 0.0 {
                move_along(h, &face.normal, (-f64::from(share) * *push / length) as f32);
            }
        }
    }

    /// The dual's solution, on normals of length 1. `violations`: how far beyond each face the state is.
    fn pushes(&self, violations: &[f64]) -> Vec<f64> {
        let count = violations.len();
        let (mut pushes, mut active) = (vec![0.0; count], Vec::<usize>::new());
        let left = |pushes: &[f64], i: usize| {
            violations[i] - (0..count).map(|j| self.gram[i * count + j] * pushes[j]).sum::<f64>()
        };
        let tolerance = 1e-9 * violations.iter().fold(1.0, |most: f64, v| most.max(v.abs()));
        for _ in 0..STEPS {
            let inactive = (0..count).filter(|i| !active.contains(i));
            let worst = inactive
                .map(|i| (i, left(&pushes, i)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .filter(|(_, left)| *left > tolerance);
            let Some((worst, _)) = worst else { break };
            active.push(worst);
            // All active faces are to be just met; a push that would have to be negative leaves the set.
            while !active.is_empty() {
                let wanted = self.meet(&active, violations);
                let short = active.iter().zip(&wanted).filter(|(_, wanted)| **wanted <= 0.0);
                let step = short.map(|(&i, wanted)| pushes[i] / (pushes[i] - wanted)).fold(1.0f64, f64::min);
                let step = if step.is_finite() { step.clamp(0.0, 1.0) } else { 0.0 };
                for (&i, wanted) in active.iter().zip(&wanted) {
                    pushes[i] += step * (wanted - pushes[i]);
                }
                if wanted.iter().all(|wanted| *wanted > 0.0) {
                    break;
                }
                active.retain(|&i| pushes[i] > 1e-15);
                (0..count).filter(|i| !active.contains(i)).for_each(|i| pushes[i] = 0.0);
            }
        }
        pushes
    }

    /// Pushes with which just the active faces are met, by Cholesky's factors; the ridge keeps these from breaking down.
    fn meet(&self, active: &[usize], violations: &[f64]) -> Vec<f64> {
        let (size, count) = (active.len(), violations.len());
        let mut factor = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..=i {
                let sum: f64 = (0..j).map(|k| factor[i * size + k] * factor[j * size + k]).sum();
                let left = self.gram[active[i] * count + active[j]] - sum;
                factor[i * size + j] =
                    if i == j { left.max(RIDGE / 4.0).sqrt() } else { left / factor[j * size + j] };
            }
        }
        let mut solved: Vec<f64> = active.iter().map(|&i| violations[i]).collect();
        for i in 0..size {
            let sum: f64 = (0..i).map(|k| factor[i * size + k] * solved[k]).sum();
            solved[i] = (solved[i] - sum) / factor[i * size + i];
        }
        for i in (0..size).rev() {
            let sum: f64 = (i + 1..size).map(|k| factor[k * size + i] * solved[k]).sum();
            solved[i] = (solved[i] - sum) / factor[i * size + i];
        }
        solved
    }

    /// Faces that no state satisfies push against each other without end: only the ridge stops them, and some of the
    /// violation is left.
    fn check_satisfiable(&self) -> Result<()> {
        let count = self.faces.len();
        let violations: Vec<f64> =
            self.faces.iter().zip(&self.lengths).map(|(face, length)| -face.bound / length).collect();
        let pushes = self.pushes(&violations);
        let most = violations.iter().fold(0.0, |most: f64, violation| most.max(violation.abs()));
        let left = |i: usize| {
            let moved: f64 = (0..count).map(|j| self.gram[i * count + j] * pushes[j]).sum();
            violations[i] - moved + RIDGE * pushes[i]
        };
        if (0..count).all(|i| left(i) <= SLACK * most) {
            return Ok(());
        }
        let pushing = self.faces.iter().zip(&pushes).filter(|(_, push)| **push > 0.0);
        let names: Vec<&str> = pushing.map(|(face, _)| face.name.as_str()).collect();
        let found = "no state is on the safe side of all of them";
        Err(Error::input(names.join(" and "), found, "conditions that can hold together"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn face(normal: &[f32], bound: f64) -> HalfSpace {
        HalfSpace { name: format!("{normal:?} below {bound}"), normal: normal.to_vec(), bound }
    }

    fn project(polyhedron: &SafeSet, h: &[f32]) -> (Vec<f32>, Vec<f64>) {
        let (mut moved, mut pushes) = (h.to_vec(), Vec::new());
        polyhedron.project(&mut moved, 1.0, &mut pushes);
        (moved, pushes)
    }

    #[test]
    fn corners_and_faces_by_hand() {
        // x ≤ 1 and y ≤ 2.
        let quarter = SafeSet::new(vec![face(&[2.0, 0.0], 2.0), face(&[0.0, 1.0], 2.0)]).unwrap();
        let close = |a: (Vec<f32>, Vec<f64>), at: [f32; 2], pushed: [f64; 2]| {
            assert!(a.0.iter().zip(at).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}");
            assert!(a.1.iter().zip(pushed).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}");
        };
        close(project(&quarter, &[4.0, 6.0]), [1.0, 2.0], [3.0, 4.0]);
        close(project(&quarter, &[4.0, 0.0]), [1.0, 0.0], [3.0, 0.0]);
        assert_eq!(project(&quarter, &[0.5, 2.0]).0, [0.5, 2.0]);
        // A wedge of 45°: x + y ≤ 0 and x ≤ 0. From (3, −9) only the second is in the way.
        let wedge = SafeSet::new(vec![face(&[1.0, 1.0], 0.0), face(&[1.0, 0.0], 0.0)]).unwrap();
        close(project(&wedge, &[3.0, -9.0]), [0.0, -9.0], [0.0, 3.0]);
        // From (2, 4) the first alone brings x to −1, and the second has nothing left to push.
        close(project(&wedge, &[2.0, 4.0]), [-1.0, 1.0], [18f64.sqrt(), 0.0]);
    }

    #[test]
    fn half_of_the_way_is_half_of_the_change() {
        let half = SafeSet::new(vec![face(&[0.0, 2.0], 2.0)]).unwrap();
        let (mut h, mut pushes) = (vec![7.0, 5.0], Vec::new());
        half.project(&mut h, 0.5, &mut pushes);
        assert_eq!((h, pushes), (vec![7.0, 3.0], vec![4.0 / (1.0 + RIDGE)]));
    }

    #[test]
    fn faces_that_exclude_each_other_are_named() {
        let made =
            SafeSet::new(vec![face(&[1.0, 0.0], -1.0), face(&[-2.0, 0.0], -1.0), face(&[0.0, 1.0], 1.0)]);
        let error = made.unwrap_err().to_string();
        assert!(error.contains("[1.0, 0.0] below -1 and [-2.0, 0.0] below -1: no state"), "{error}");
        assert!(SafeSet::new(vec![face(&[0.0, 0.0], 1.0)]).is_err());
        assert!(SafeSet::new(Vec::new()).is_err());
        // The same face twice is no contradiction, nor are two that just touch.
        assert!(SafeSet::new(vec![face(&[1.0, 1.0], -3.0), face(&[2.0, 2.0], -6.0)]).is_ok());
        assert!(SafeSet::new(vec![face(&[1.0, 0.0], 2.0), face(&[-1.0, 0.0], -2.0)]).is_ok());
    }

    proptest! {
        /// Inside, untouched by a second projection, and nearer than any other safe state (by the variational
        /// inequality: no safe state lies beyond the plane through the projection).
        #[test]
        fn it_is_the_nearest_safe_state(
            normals in prop::collection::vec(prop::collection::vec(-1f32..1.0, 5), 1..5),
            h in prop::collection::vec(-9f32..9.0, 5),
            others in prop::collection::vec(prop::collection::vec(-9f32..9.0, 5), 20),
        ) {
            prop_assume!(normals.iter().all(|normal| dot(normal, normal) > 0.05));
            // 0 is safe for all of them, so that they can hold together.
            let faces = normals.iter().enumerate().map(|(i, normal)| face(normal, 0.3 * i as f64)).collect();
            let polyhedron = SafeSet::new(faces).unwrap();
            let (moved, pushes) = project(&polyhedron, &h);
            for face in polyhedron.faces() {
                prop_assert!(dot(&face.normal, &moved) - face.bound < 2e-5);
            }
            let (again, _) = project(&polyhedron, &moved);
            prop_assert!(again.iter().zip(&moved).all(|(a, b)| (a - b).abs() < 1e-4));
            for other in others {
                let safe = project(&polyhedron, &other).0;
                let towards: f64 = (0..5).map(|i| f64::from(h[i] - moved[i]) * f64::from(safe[i] - moved[i])).sum();
                prop_assert!(towards < 1e-3, "{towards}");
            }
            // A face that pushes is just met.
            for (face, push) in polyhedron.faces().iter().zip(pushes) {
                prop_assert!(push >= 0.0);
                prop_assert!(push < 1e-6 || (dot(&face.normal, &moved) - face.bound).abs() < 2e-5);
            }
        }
    }
}
