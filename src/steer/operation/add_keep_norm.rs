//! Activation addition that keeps the state's norm.

use super::{Constructor, Edit, Measure, Operation, add_scaled, dot};

impl Operation {
    /// Adds the vector, and scales the sum back to the norm of the state.
    pub const ADD_KEEP_NORM: Operation = Operation {
        name: "add-keep-norm",
        help: "h + strength · v, scaled back to ‖h‖",
        measure: Measure::Displacement,
        constructor: Constructor::Direction(|along| {
            Box::new(AddKeepNorm { unit: along.unit, amount: along.amount })
        }),
    };
}

/// `(h + amount · v̂) · ‖h‖ / ‖h + amount · v̂‖`, the amount in activation units.
#[derive(Debug)]
struct AddKeepNorm {
    unit: Vec<f32>,
    amount: f32,
}

impl Edit for AddKeepNorm {
    /// A sum of 0 has no direction: then `h` stays.
    fn apply(&self, h: &mut [f32], scale: f32, multipliers: &mut Vec<f64>) {
        multipliers.clear();
        let (unit, amount) = (&self.unit, self.amount * scale);
        let before = dot(h, h);
        // ‖h + a v̂‖² from its parts, before anything is changed.
        let after =
            before + 2.0 * f64::from(amount) * dot(h, unit) + f64::from(amount).powi(2) * dot(unit, unit);
        if before == 0.0 || after <= before * 1e-12 {
            return;
        }
        add_scaled(h, unit, amount);
        let scale = (before / dot(h, h)).sqrt() as f32;
        h.iter_mut().for_each(|h| *h *= scale);
    }

    fn is_identity(&self) -> bool {
        self.amount == 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{applied, unit};
    use super::*;
    use crate::steer::vector::Direction;

    proptest! {
        #[test]
        fn the_norm_is_kept_and_the_direction_turns(h in prop::collection::vec(-9f32..9.0, 6), amount in -20f32..20.0) {
            let unit = unit(&[0.6, 0.0, -0.8, 0.0, 0.0, 0.0]).unwrap();
            let before = dot(&h, &h).sqrt();
            prop_assume!(before > 0.1);
            let kept = applied(Operation::ADD_KEEP_NORM, &unit, amount, &h);
            let added = applied(Operation::ADD, &unit, amount, &h);
            prop_assert!((dot(&kept, &kept).sqrt() - before).abs() < 1e-4 * before);
            // The same way as the sum.
            let cosine = dot(&kept, &added) / (before * dot(&added, &added).sqrt());
            prop_assert!(dot(&added, &added) < 1e-6 || cosine > 1.0 - 1e-4, "{cosine}");
        }
    }

    #[test]
    fn a_sum_of_0_has_no_direction() {
        let direction = Direction::new(ndarray::array![0.6, 0.8], None);
        assert_eq!(applied(Operation::ADD_KEEP_NORM, &direction, -5.0, &[3.0, 4.0]), [3.0, 4.0]);
    }
}
