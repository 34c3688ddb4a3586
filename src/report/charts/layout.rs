//! Points, and the sizes that all charts share, in pixels.

/// A point of the page: x to the right, y downwards.
pub type Spot = [f64; 2];

/// Width of a chart.
pub const WIDTH: f64 = 800.0;
/// Space on every side.
pub const MARGIN: f64 = 24.0;
/// Font size of tick labels.
pub const TICK_SIZE: f64 = 12.0;
/// Font size of axis labels and of the legend.
pub const LABEL_SIZE: f64 = 13.0;
/// A viewer without the charts' own font may set text wider by this factor.
pub const SLACK: f64 = 1.08;
