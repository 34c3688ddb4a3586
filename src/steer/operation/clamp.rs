//! Set how much of a direction a state has.

use super::{dot, move_along};

/// `h + scale · (value − h·v̂) v̂`: at scale 1 the projection is `value`.
pub(super) fn clamp(h: &mut [f32], unit: &[f32], value: f32, scale: f32) {
    let along = dot(h, unit) as f32;
    move_along(h, unit, scale * (value - along));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests_unit::unit;
    use super::*;

    proptest! {
        #[test]
        fn the_projection_is_what_was_asked_for(h in prop::collection::vec(-9f32..9.0, 6), v in prop::collection::vec(-1f32..1.0, 6), value in -9f32..9.0) {
            let unit = unit(&v);
            prop_assume!(unit.is_some());
            let (unit, mut clamped) = (unit.unwrap(), h);
            clamp(&mut clamped, &unit, value, 1.0);
            prop_assert!((dot(&clamped, &unit) - f64::from(value)).abs() < 1e-4);
        }
    }
}
