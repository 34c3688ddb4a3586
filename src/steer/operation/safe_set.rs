//! Euclidean projection onto an intersection of half-spaces and curved faces.
//!
//! With the unit normals as rows of `A` and `r = A h − c`, the projection of `h` on `{x : A x ≤ c}` is `h − Aᵀλ`, where
//! `λ ≥ 0` minimises the dual `½ λᵀ A Aᵀ λ − λᵀ r` (Boyd & Vandenberghe, Convex Optimization, 8.1.1). The dual has one
//! unknown a half-space, and is solved by active sets, as Lawson & Hanson (1974, chapter 23) solve non-negative least
//! squares. A curved face is met by cutting planes (Kelley 1960): the projection onto the half-spaces alone is cut off by the
//! half-space that touches the face's level there, until no face is violated. The set lies in every cut, so that the limit is the
//! nearest state of the set itself.

use super::{CurvedFace, HalfSpace, add_scaled, dot};
use crate::error::{Error, Result};

/// An intersection of half-spaces and curved faces: the states that satisfy every bound.
#[derive(Clone, Debug)]
pub struct SafeSet {
    /// Those of flat faces, then one for each curved face that holds it.
    half_spaces: Vec<HalfSpace>,
    curved: Vec<CurvedFace>,
    /// Lengths of the normals.
    lengths: Vec<f64>,
    /// Cosines between the normals, `[half-spaces, half-spaces]`, plus [`RIDGE`] on the diagonal: two equal half-spaces
    /// then share the displacement.
    gram: Vec<f64>,
}

/// Added to the diagonal of the Gram matrix, whose entries are at most 1.
const RIDGE: f64 = 1e-10;
/// Iterations of the active-set method. A few half-spaces need far fewer; the limit is there because rounding could make
/// the method cycle.
const MAX_ITERATIONS: usize = 200;
/// Cutting planes of one projection, at most; a few suffice.
const MAX_CUTS: usize = 60;
/// A log-sum-exp this far above its level counts as at it: a probability off by less than 3e-5.
const CURVED_TOLERANCE: f64 = 1e-4;
/// A remaining violation below this share of the largest counts as none.
const TOLERANCE: f64 = 1e-6;

impl SafeSet {
    /// The intersection of these half-spaces.
    ///
    /// # Errors
    /// No half-space; half-spaces of several widths; a normal that is 0 or not finite; an empty intersection.
    pub fn new(half_spaces: Vec<HalfSpace>) -> Result<SafeSet> {
        let safe_set = SafeSet::unchecked(half_spaces)?;
        safe_set.check_nonempty()?;
        Ok(safe_set)
    }

    /// The intersection of these half-spaces and curved faces.
    ///
    /// # Errors
    /// As [`SafeSet::new`]; a curved face whose terms have no slope at 0.
    pub fn with_curved(half_spaces: Vec<HalfSpace>, curved: Vec<CurvedFace>) -> Result<SafeSet> {
        if curved.is_empty() {
            return SafeSet::new(half_spaces);
        }
        let inner = half_spaces.iter().cloned().chain(curved.iter().flat_map(CurvedFace::inner)).collect();
        let is_surely_nonempty = SafeSet::unchecked(inner)?.check_nonempty().is_ok();
        let width = curved.iter().flat_map(|face| &face.terms).map(|(normal, _)| normal.len()).max();
        let origin = vec![0.0; width.unwrap_or(0)];
        let outer = half_spaces.into_iter().chain(curved.iter().map(|face| face.tangent(&origin))).collect();
        let safe_set = SafeSet { curved, ..SafeSet::unchecked(outer)? };
        if !is_surely_nonempty {
            safe_set.check_nonempty()?;
            let mut h = origin;
            safe_set.project(&mut h, 1.0, &mut Vec::new());
            // Written so that a number that isn't one is refused too.
            if !safe_set.curved.iter().all(|face| face.excess(&h) <= 100.0 * CURVED_TOLERANCE) {
                let names: Vec<&str> =
                    safe_set.half_spaces.iter().map(|half_space| half_space.name.as_str()).collect();
                let found = "no state is on the safe side of all of them";
                return Err(Error::input(names.join(" and "), found, "conditions that can hold together"));
            }
        }
        Ok(safe_set)
    }

    fn unchecked(half_spaces: Vec<HalfSpace>) -> Result<SafeSet> {
        let Some(first) = half_spaces.first() else {
            return Err(Error::input("project", "no probe to satisfy", "at least one"));
        };
        let width = first.normal.len();
        for half_space in &half_spaces {
            let length = dot(&half_space.normal, &half_space.normal).sqrt();
            if half_space.normal.len() != width
                || !length.is_finite()
                || length == 0.0
                || !half_space.bound.is_finite()
            {
                let found = format!("a normal of width {} and length {length}", half_space.normal.len());
                let expected = format!("width {width}, and a length above 0");
                return Err(Error::input(&half_space.name, found, expected));
            }
        }
        let lengths: Vec<f64> =
            half_spaces.iter().map(|half_space| dot(&half_space.normal, &half_space.normal).sqrt()).collect();
        let count = half_spaces.len();
        let mut gram = vec![0.0; count * count];
        for i in 0..count {
            for j in 0..count {
                let cosine = dot(&half_spaces[i].normal, &half_spaces[j].normal) / (lengths[i] * lengths[j]);
                gram[i * count + j] = cosine + if i == j { RIDGE } else { 0.0 };
            }
        }
        Ok(SafeSet { half_spaces, curved: Vec::new(), lengths, gram })
    }

    /// The same with one more half-space, without its curved faces.
    fn cut(&self, half_space: HalfSpace) -> SafeSet {
        let length = dot(&half_space.normal, &half_space.normal).sqrt();
        let cosines: Vec<f64> = self
            .half_spaces
            .iter()
            .zip(&self.lengths)
            .map(|(own, own_length)| dot(&own.normal, &half_space.normal) / (own_length * length))
            .collect();
        let count = self.half_spaces.len();
        let mut gram = Vec::with_capacity((count + 1) * (count + 1));
        for (row, cosine) in self.gram.chunks(count).zip(&cosines) {
            gram.extend_from_slice(row);
            gram.push(*cosine);
        }
        gram.extend(cosines);
        gram.push(1.0 + RIDGE);
        let half_spaces = self.half_spaces.iter().cloned().chain([half_space]).collect();
        let lengths = self.lengths.iter().copied().chain([length]).collect();
        SafeSet { half_spaces, curved: Vec::new(), lengths, gram }
    }

    /// The half-spaces, in the order in which they were given; then, for each curved face, one that holds it.
    pub fn half_spaces(&self) -> &[HalfSpace] {
        &self.half_spaces
    }

    /// Width of the states.
    pub fn width(&self) -> usize {
        self.half_spaces[0].normal.len()
    }

    /// Moves `h` `[width]` by `share` of the way to the nearest state of the set; a state inside is left as it is.
    /// `multipliers` becomes the solution of the dual: how far each half-space moves `h` along its normal at share 1, in
    /// activation units; 0 where it isn't active. That of a curved face is the sum over its cutting planes.
    pub fn project(&self, h: &mut [f32], share: f32, multipliers: &mut Vec<f64>) {
        if self.curved.is_empty() {
            return self.project_flat(h, share, multipliers);
        }
        let (flat, before) = (self.half_spaces.len() - self.curved.len(), h.to_vec());
        let mut planes = SafeSet { curved: Vec::new(), ..self.clone() };
        // The curved face that each cutting plane belongs to.
        let mut owners: Vec<usize> = Vec::new();
        let mut nearest = before.clone();
        loop {
            nearest.copy_from_slice(&before);
            planes.project_flat(&mut nearest, 1.0, multipliers);
            let violated = (0..self.curved.len())
                .map(|face| (face, self.curved[face].excess(&nearest)))
                .filter(|(_, excess)| *excess > CURVED_TOLERANCE)
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((face, _)) = violated.filter(|_| owners.len() < MAX_CUTS) else { break };
            planes = planes.cut(self.curved[face].tangent(&nearest));
            owners.push(face);
        }
        for (h, (nearest, before)) in h.iter_mut().zip(nearest.iter().zip(&before)) {
            *h = before + share * (nearest - before);
        }
        let cuts = multipliers.split_off(self.half_spaces.len());
        for (face, multiplier) in owners.into_iter().zip(cuts) {
            multipliers[flat + face] += multiplier;
        }
    }

    fn project_flat(&self, h: &mut [f32], share: f32, multipliers: &mut Vec<f64>) {
        multipliers.clear();
        let half_spaces = self.half_spaces.iter().zip(&self.lengths);
        let violations: Vec<f64> = half_spaces
            .map(|(half_space, length)| (dot(&half_space.normal, h) - half_space.bound) / length)
            .collect();
        if violations.iter().all(|violation| *violation <= 0.0) {
            multipliers.resize(self.half_spaces.len(), 0.0);
            return;
        }
        multipliers.extend(self.solve_dual(&violations));
        for ((half_space, length), multiplier) in self.half_spaces.iter().zip(&self.lengths).zip(multipliers)
        {
            if *multiplier > 0.0 {
                add_scaled(h, &half_space.normal, (-f64::from(share) * *multiplier / length) as f32);
            }
        }
    }

    /// The solution of the dual, for normals of length 1. `violations`: signed distance of the state beyond each bound.
    fn solve_dual(&self, violations: &[f64]) -> Vec<f64> {
        let count = violations.len();
        let (mut multipliers, mut active) = (vec![0.0; count], Vec::<usize>::new());
        let violation = |multipliers: &[f64], i: usize| {
            violations[i] - (0..count).map(|j| self.gram[i * count + j] * multipliers[j]).sum::<f64>()
        };
        let tolerance = 1e-9 * violations.iter().fold(1.0, |most: f64, v| most.max(v.abs()));
        for _ in 0..MAX_ITERATIONS {
            let inactive = (0..count).filter(|i| !active.contains(i));
            let most_violated = inactive
                .map(|i| (i, violation(&multipliers, i)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .filter(|(_, violation)| *violation > tolerance);
            let Some((most_violated, _)) = most_violated else { break };
            active.push(most_violated);
            // All active bounds hold with equality; one whose multiplier would be negative leaves the active set.
            while !active.is_empty() {
                let solution = self.solve_active(&active, violations);
                let short = active.iter().zip(&solution).filter(|(_, solution)| **solution <= 0.0);
                let step = short
                    .map(|(&i, solution)| multipliers[i] / (multipliers[i] - solution))
                    .fold(1.0f64, f64::min);
                let step = if step.is_finite() { step.clamp(0.0, 1.0) } else { 0.0 };
                for (&i, solution) in active.iter().zip(&solution) {
                    multipliers[i] += step * (solution - multipliers[i]);
                }
                if solution.iter().all(|solution| *solution > 0.0) {
                    break;
                }
                active.retain(|&i| multipliers[i] > 1e-15);
                (0..count).filter(|i| !active.contains(i)).for_each(|i| multipliers[i] = 0.0);
            }
        }
        multipliers
    }

    /// The multipliers with which the active bounds hold with equality, by a Cholesky factorisation; the ridge keeps the
    /// matrix positive definite.
    fn solve_active(&self, active: &[usize], violations: &[f64]) -> Vec<f64> {
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

    /// Refuses an empty intersection: there the dual is unbounded, only the ridge keeps the multipliers finite, and some
    /// violation remains.
    fn check_nonempty(&self) -> Result<()> {
        let count = self.half_spaces.len();
        let violations: Vec<f64> = self
            .half_spaces
            .iter()
            .zip(&self.lengths)
            .map(|(half_space, length)| -half_space.bound / length)
            .collect();
        let multipliers = self.solve_dual(&violations);
        let most = violations.iter().fold(0.0, |most: f64, violation| most.max(violation.abs()));
        let violation = |i: usize| {
            let moved: f64 = (0..count).map(|j| self.gram[i * count + j] * multipliers[j]).sum();
            violations[i] - moved + RIDGE * multipliers[i]
        };
        if (0..count).all(|i| violation(i) <= TOLERANCE * most) {
            return Ok(());
        }
        let active = self.half_spaces.iter().zip(&multipliers).filter(|(_, multiplier)| **multiplier > 0.0);
        let names: Vec<&str> = active.map(|(half_space, _)| half_space.name.as_str()).collect();
        let found = "no state is on the safe side of all of them";
        Err(Error::input(names.join(" and "), found, "conditions that can hold together"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn half_space(normal: &[f32], bound: f64) -> HalfSpace {
        HalfSpace { name: format!("{normal:?} below {bound}"), normal: normal.to_vec(), bound }
    }

    fn project(safe_set: &SafeSet, h: &[f32]) -> (Vec<f32>, Vec<f64>) {
        let (mut moved, mut multipliers) = (h.to_vec(), Vec::new());
        safe_set.project(&mut moved, 1.0, &mut multipliers);
        (moved, multipliers)
    }

    #[test]
    fn corners_and_faces_by_hand() {
        // x ≤ 1 and y ≤ 2.
        let quarter = SafeSet::new(vec![half_space(&[2.0, 0.0], 2.0), half_space(&[0.0, 1.0], 2.0)]).unwrap();
        let close = |a: (Vec<f32>, Vec<f64>), at: [f32; 2], multipliers: [f64; 2]| {
            assert!(a.0.iter().zip(at).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}");
            assert!(a.1.iter().zip(multipliers).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}");
        };
        close(project(&quarter, &[4.0, 6.0]), [1.0, 2.0], [3.0, 4.0]);
        close(project(&quarter, &[4.0, 0.0]), [1.0, 0.0], [3.0, 0.0]);
        assert_eq!(project(&quarter, &[0.5, 2.0]).0, [0.5, 2.0]);
        // A wedge of 45°: x + y ≤ 0 and x ≤ 0. From (3, −9) only the second is active.
        let wedge = SafeSet::new(vec![half_space(&[1.0, 1.0], 0.0), half_space(&[1.0, 0.0], 0.0)]).unwrap();
        close(project(&wedge, &[3.0, -9.0]), [0.0, -9.0], [0.0, 3.0]);
        // From (2, 4) the first alone brings x to −1, and the second is no longer violated.
        close(project(&wedge, &[2.0, 4.0]), [-1.0, 1.0], [18f64.sqrt(), 0.0]);
    }

    /// Three classes with logits (x, 0.2 y, 0) and more, of which the first is to have a probability of at least 0.8.
    fn face(level: f64) -> CurvedFace {
        let terms =
            vec![(vec![-1.0, 0.2, 0.3], 0.1), (vec![-1.0, -0.4, 0.0], -0.2), (vec![-0.7, 0.0, 0.5], 0.0)];
        CurvedFace { name: "curved".into(), terms, level }
    }

    #[test]
    fn a_curved_face_is_met_at_its_nearest_state() {
        let set = SafeSet::with_curved(Vec::new(), vec![face(-(4f64.ln()))]).unwrap();
        for h in [[0.0, 0.0, 0.0], [-3.0, 2.0, 1.0], [1.0, -9.0, 4.0]] {
            let (moved, multipliers) = project(&set, &h);
            let curved = &set.curved[0];
            // At the level, and moved along the normal there: together these are the conditions of the nearest state.
            assert!(curved.excess(&moved).abs() < 1e-3, "{}", curved.excess(&moved));
            let normal = curved.tangent(&moved).normal;
            let way: Vec<f32> = h.iter().zip(&moved).map(|(h, moved)| h - moved).collect();
            let cosine = dot(&way, &normal) / (dot(&way, &way) * dot(&normal, &normal)).sqrt();
            assert!(cosine > 1.0 - 1e-4, "{cosine}");
            assert!(
                (multipliers[0] - dot(&way, &way).sqrt()).abs() < 0.05 * multipliers[0],
                "{multipliers:?}"
            );
            // The polyhedron inside is farther away.
            let inner = SafeSet::new(curved.inner().collect()).unwrap();
            let farther: f64 = project(&inner, &h)
                .0
                .iter()
                .zip(&h)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!(farther > dot(&way, &way).sqrt() * 1.001, "{farther}");
        }
        let inside = [20.0, 0.0, 0.0];
        assert_eq!(project(&set, &inside), (inside.to_vec(), vec![0.0]));
    }

    #[test]
    fn curved_faces_and_flat_ones_hold_together_or_are_refused() {
        let flat = half_space(&[0.0, 1.0, 0.0], -2.0);
        let set = SafeSet::with_curved(vec![flat.clone()], vec![face(-1.0)]).unwrap();
        let (moved, multipliers) = project(&set, &[-2.0, 1.0, 0.0]);
        assert!(set.curved[0].excess(&moved) < 1e-3 && moved[1] < -2.0 + 1e-4, "{moved:?}");
        assert!(multipliers.len() == 2 && multipliers.iter().all(|multiplier| *multiplier > 0.0));
        // Two classes can't both have more than half.
        let one =
            CurvedFace { name: "one".into(), terms: vec![(vec![1.0], 0.0), (vec![0.5], 0.0)], level: 0.0 };
        let other = CurvedFace {
            name: "other".into(),
            terms: vec![(vec![-1.0], 0.0), (vec![-0.5], 0.0)],
            level: 0.0,
        };
        let error = SafeSet::with_curved(Vec::new(), vec![one, other]).unwrap_err().to_string();
        assert!(error.contains("one and other: no state"), "{error}");
    }

    #[test]
    fn half_of_the_way_is_half_of_the_change() {
        let half = SafeSet::new(vec![half_space(&[0.0, 2.0], 2.0)]).unwrap();
        let (mut h, mut multipliers) = (vec![7.0, 5.0], Vec::new());
        half.project(&mut h, 0.5, &mut multipliers);
        assert_eq!((h, multipliers), (vec![7.0, 3.0], vec![4.0 / (1.0 + RIDGE)]));
    }

    #[test]
    fn faces_that_exclude_each_other_are_named() {
        let made = SafeSet::new(vec![
            half_space(&[1.0, 0.0], -1.0),
            half_space(&[-2.0, 0.0], -1.0),
            half_space(&[0.0, 1.0], 1.0),
        ]);
        let error = made.unwrap_err().to_string();
        assert!(error.contains("[1.0, 0.0] below -1 and [-2.0, 0.0] below -1: no state"), "{error}");
        assert!(SafeSet::new(vec![half_space(&[0.0, 0.0], 1.0)]).is_err());
        assert!(SafeSet::new(Vec::new()).is_err());
        // The same half-space twice is no contradiction, nor are two that only touch.
        assert!(SafeSet::new(vec![half_space(&[1.0, 1.0], -3.0), half_space(&[2.0, 2.0], -6.0)]).is_ok());
        assert!(SafeSet::new(vec![half_space(&[1.0, 0.0], 2.0), half_space(&[-1.0, 0.0], -2.0)]).is_ok());
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
            let half_spaces = normals.iter().enumerate().map(|(i, normal)| half_space(normal, 0.3 * i as f64)).collect();
            let safe_set = SafeSet::new(half_spaces).unwrap();
            let (moved, multipliers) = project(&safe_set, &h);
            for half_space in safe_set.half_spaces() {
                prop_assert!(dot(&half_space.normal, &moved) - half_space.bound < 2e-5);
            }
            let (again, _) = project(&safe_set, &moved);
            prop_assert!(again.iter().zip(&moved).all(|(a, b)| (a - b).abs() < 1e-4));
            for other in others {
                let safe = project(&safe_set, &other).0;
                let towards: f64 = (0..5).map(|i| f64::from(h[i] - moved[i]) * f64::from(safe[i] - moved[i])).sum();
                prop_assert!(towards < 1e-3, "{towards}");
            }
            // An active bound holds with equality.
            for (half_space, multiplier) in safe_set.half_spaces().iter().zip(multipliers) {
                prop_assert!(multiplier >= 0.0);
                prop_assert!(multiplier < 1e-6 || (dot(&half_space.normal, &moved) - half_space.bound).abs() < 2e-5);
            }
        }
    }
}
