//! Pure numbers: how well scores rank, how honest probabilities are, how sure a figure is, and where vectors point.
//! It knows nothing of probes, models or files.

mod binomial;
mod honesty;
mod interval;
mod ranking;
mod vector;

pub use binomial::{at_most, most_errors, upper_bound};
pub use honesty::{Bin, accuracy, brier, calibration_error, calibration_gap, log_loss, reliability};
pub use interval::{Figure, Interval, bootstrap, bootstrap_each, wilson};
pub use ranking::{Ranking, auroc, auroc_macro, average_precision};
pub use vector::{cosine, norm, project};
