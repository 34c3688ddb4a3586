//! Charts of analyses: a saved table in, a chart out.

pub mod boundary_charts;
pub mod charts;
pub(crate) mod steering_grid;
