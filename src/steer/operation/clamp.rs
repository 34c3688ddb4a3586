//! Clamping of the component along a direction.

use super::{Constructor, Edit, Measure, Operation, add_scaled, dot};

impl Operation {
    /// Sets the component along the vector. Strength 0 is a value like any other, so it isn't the unsteered model.
    pub const CLAMP: Operation = Operation {
        name: "clamp",
        help: "h + (strength − h·v̂) v̂",
        measure: Measure::Projection,
        constructor: Constructor::Direction(|along| {
            Box::new(Clamp { unit: along.unit, value: along.amount })
        }),
    };
}

/// `h + scale · (value − h·v̂) v̂`: at scale 1 the projection is `value`.
#[derive(Debug)]
struct Clamp {
    unit: Vec<f32>,
    value: f32,
}

impl Edit for Clamp {
    fn apply(&self, h: &mut [f32], scale: f32, multipliers: &mut Vec<f64>) {
        multipliers.clear();
        let projection = dot(h, &self.unit) as f32;
        add_scaled(h, &self.unit, scale * (self.value - projection));
    }

    fn is_identity(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{applied, unit};
    use super::*;

    proptest! {
        #[test]
        fn the_projection_becomes_the_value(h in prop::collection::vec(-9f32..9.0, 6), v in prop::collection::vec(-1f32..1.0, 6), value in -9f32..9.0) {
            let unit = unit(&v);
            prop_assume!(unit.is_some());
            let unit = unit.unwrap();
            let clamped = applied(Operation::CLAMP, &unit, value, &h);
            prop_assert!((dot(&clamped, &unit.values.to_vec()) - f64::from(value)).abs() < 1e-4);
        }
    }
}
