//! Take away what a state has of a direction beyond a bound, and leave every other state alone.

use super::{dot, move_along};

/// `h − scale · max(0, h·v̂ − bound) v̂`. A bound from below is one on the opposite direction.
pub(super) fn cap(h: &mut [f32], unit: &[f32], bound: f32, scale: f32) {
    let excess = dot(h, unit) as f32 - bound;
    if excess > 0.0 {
        move_along(h, unit, -scale * excess);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests_unit::unit;
    use super::*;

    proptest! {
        #[test]
        fn only_what_exceeds_is_taken_away(h in prop::collection::vec(-9f32..9.0, 6), v in prop::collection::vec(-1f32..1.0, 6), bound in -5f32..5.0) {
            let unit = unit(&v);
            prop_assume!(unit.is_some());
            let (unit, mut capped) = (unit.unwrap(), h.clone());
            cap(&mut capped, &unit, bound, 1.0);
            match dot(&h, &unit) as f32 > bound {
                true => prop_assert!((dot(&capped, &unit) - f64::from(bound)).abs() < 1e-4),
                false => prop_assert_eq!(capped, h),
            }
        }
    }
}
