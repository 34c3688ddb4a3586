//! Remove what a state has along a direction.

use super::{dot, move_along};

/// `h − share · (h·v̂) v̂`: at share 1 nothing is left along it (Arditi et al., arXiv 2406.11717).
pub(super) fn ablate(h: &mut [f32], unit: &[f32], share: f32) {
    let along = dot(h, unit) as f32;
    move_along(h, unit, -share * along);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests_unit::unit;
    use super::*;

    proptest! {
        #[test]
        fn ablating_leaves_nothing_and_twice_is_once(h in prop::collection::vec(-9f32..9.0, 6), v in prop::collection::vec(-1f32..1.0, 6)) {
            let unit = unit(&v);
            prop_assume!(unit.is_some());
            let unit = unit.unwrap();
            let mut once = h.clone();
            ablate(&mut once, &unit, 1.0);
            prop_assert!(dot(&once, &unit).abs() < 1e-4);
            let mut twice = once.clone();
            ablate(&mut twice, &unit, 1.0);
            prop_assert!(once.iter().zip(&twice).all(|(a, b)| (a - b).abs() < 1e-4));
            let mut half = h.clone();
            ablate(&mut half, &unit, 0.5);
            prop_assert!((dot(&half, &unit) - dot(&h, &unit) / 2.0).abs() < 1e-4);
        }
    }
}
