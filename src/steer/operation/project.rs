//! Projection onto a set of safe states.

use super::{Constructor, Edit, HalfSpace, Measure, Operation, SafeSet};

impl Operation {
    /// Moves a state to the nearest one that satisfies every bound on its probes, flat or curved.
    pub const PROJECT: Operation = Operation {
        name: "project",
        help: "h + strength · (nearest state that satisfies every probe's bound − h)",
        measure: Measure::Share,
        constructor: Constructor::SafeSet(|safe_set, share| Box::new(Project { safe_set, share })),
    };
}

/// `h + scale · share · (P(h) − h)`, P the projection onto the set.
#[derive(Debug)]
struct Project {
    safe_set: SafeSet,
    share: f32,
}

impl Edit for Project {
    fn apply(&self, h: &mut [f32], scale: f32, multipliers: &mut Vec<f64>) {
        self.safe_set.project(h, self.share * scale, multipliers);
    }

    fn is_identity(&self) -> bool {
        self.share == 0.0
    }

    fn half_spaces(&self) -> &[HalfSpace] {
        self.safe_set.half_spaces()
    }
}
