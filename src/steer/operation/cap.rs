//! Capping of the component along a direction.

use super::{Constructor, Edit, Measure, Operation, add_scaled, dot};

impl Operation {
    /// Lowers the component along the vector to a bound, and leaves states below it alone. A lower bound is an upper
    /// bound on the opposite direction.
    pub const CAP: Operation = Operation {
        name: "cap",
        help: "h − max(0, h·v̂ − strength) v̂",
        measure: Measure::Projection,
        constructor: Constructor::Direction(|along| Box::new(Cap { unit: along.unit, bound: along.amount })),
    };
}

/// `h − scale · max(0, h·v̂ − bound) v̂`.
#[derive(Debug)]
struct Cap {
    unit: Vec<f32>,
    bound: f32,
}

impl Edit for Cap {
    fn apply(&self, h: &mut [f32], scale: f32, multipliers: &mut Vec<f64>) {
        multipliers.clear();
        let excess = dot(h, &self.unit) as f32 - self.bound;
        if excess > 0.0 {
            add_scaled(h, &self.unit, -scale * excess);
        }
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
        fn only_the_excess_is_removed(h in prop::collection::vec(-9f32..9.0, 6), v in prop::collection::vec(-1f32..1.0, 6), bound in -5f32..5.0) {
            let direction = unit(&v);
            prop_assume!(direction.is_some());
            let direction = direction.unwrap();
            let unit = direction.values.to_vec();
            let capped = applied(Operation::CAP, &direction, bound, &h);
            match dot(&h, &unit) as f32 > bound {
                true => prop_assert!((dot(&capped, &unit) - f64::from(bound)).abs() < 1e-4),
                false => prop_assert_eq!(capped, h),
            }
        }
    }
}
