//! Activation addition.

use super::{Constructor, Edit, Measure, Operation, add_scaled};

impl Operation {
    /// Adds the vector (CAA, arXiv 2312.06681).
    pub const ADD: Operation = Operation {
        name: "add",
        help: "h + strength · v",
        measure: Measure::Displacement,
        constructor: Constructor::Direction(|along| Box::new(Add { unit: along.unit, amount: along.amount })),
    };
}

/// `h + amount · v̂`, the amount in activation units.
#[derive(Debug)]
struct Add {
    unit: Vec<f32>,
    amount: f32,
}

impl Edit for Add {
    fn apply(&self, h: &mut [f32], scale: f32, multipliers: &mut Vec<f64>) {
        multipliers.clear();
        add_scaled(h, &self.unit, self.amount * scale);
    }

    fn is_identity(&self) -> bool {
        self.amount == 0.0
    }
}
