//! A half-space of activation space: a flat face of a safe set.

/// The states `h` with `normal · h ≤ bound`.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfSpace {
    /// The name in traces and errors.
    pub name: String,
    /// `[width]`, not 0; it points out of the half-space.
    pub normal: Vec<f32>,
    /// In the unit of `normal · h`.
    pub bound: f64,
}
