//! Directional ablation.

use super::{Constructor, Edit, Measure, Operation, add_scaled, dot};

impl Operation {
    /// Removes the component along the vector, or sets it to that of a [`Reference`](super::Reference).
    pub const ABLATE: Operation = Operation {
        name: "ablate",
        help: "h − strength · (h·v̂ − r) v̂",
        measure: Measure::Share,
        constructor: Constructor::Direction(|along| {
            Box::new(Ablate { unit: along.unit, share: along.amount, reference: along.reference })
        }),
    };
}

/// `h − share · (h·v̂ − reference) v̂`: at share 1 the component along `v̂` is `reference`.
#[derive(Debug)]
struct Ablate {
    unit: Vec<f32>,
    share: f32,
    reference: f32,
}

impl Edit for Ablate {
    fn apply(&self, h: &mut [f32], scale: f32, multipliers: &mut Vec<f64>) {
        multipliers.clear();
        let projection = dot(h, &self.unit) as f32;
        add_scaled(h, &self.unit, -(self.share * scale) * (projection - self.reference));
    }

    fn is_identity(&self) -> bool {
        self.share == 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{applied, unit};
    use super::*;

    proptest! {
        #[test]
        fn ablating_leaves_nothing_and_twice_is_once(h in prop::collection::vec(-9f32..9.0, 6), v in prop::collection::vec(-1f32..1.0, 6)) {
            let direction = unit(&v);
            prop_assume!(direction.is_some());
            let direction = direction.unwrap();
            let unit = direction.values.to_vec();
            let once = applied(Operation::ABLATE, &direction, 1.0, &h);
            prop_assert!(dot(&once, &unit).abs() < 1e-4);
            let twice = applied(Operation::ABLATE, &direction, 1.0, &once);
            prop_assert!(once.iter().zip(&twice).all(|(a, b)| (a - b).abs() < 1e-4));
            let half = applied(Operation::ABLATE, &direction, 0.5, &h);
            prop_assert!((dot(&half, &unit) - dot(&h, &unit) / 2.0).abs() < 1e-4);
        }
    }
}
