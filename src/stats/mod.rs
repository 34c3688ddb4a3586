//! Pure numbers: how well scores rank, how honest probabilities are, how sure a figure is, and where vectors point.
//! It knows nothing of probes, models or files.

mod binomial;
mod calibration_error;
mod interval;
mod ranking;
mod geometry;

pub use binomial::{at_most, most_errors, upper_bound};
pub use calibration_error::{
    Bin, accuracy, brier, calibration_error, calibration_gap, log_loss, reliability,
};
pub use geometry::{cosine, norm, project};
pub use interval::{Interval, Metric, bootstrap, bootstrap_each, wilson};
pub use ranking::{Ranking, auroc, auroc_macro, average_precision};
