//! Statistics: ranking metrics, probability scores, confidence intervals, binomial tails and vector geometry.

mod agreement;
mod binomial;
mod calibration_error;
mod calibration_interval;
mod geometry;
mod interval;
mod linearised;
mod principal_components;
mod quantiles;
mod ranking;

pub use agreement::{agreement, kappa};
pub use binomial::{at_most, most_errors, upper_bound};
pub use calibration_error::{
    Bin, accuracy, brier, calibration_error, calibration_gap, log_loss, reliability,
};
pub use calibration_interval::{CalibrationGap, debiased_calibration_error};
pub use geometry::{cosine, norm, project};
pub use interval::{Interval, Metric, bootstrap, bootstrap_each, wilson};
pub use linearised::{Linearised, Units};
pub use principal_components::{principal_component, principal_components};
pub use quantiles::{normal_cdf, student_t};
pub use ranking::{Ranking, auroc, auroc_macro, average_precision, roc};
