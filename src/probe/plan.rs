//! Validation plan: folds, intervals and seed of a probe's validation.

use serde::{Deserialize, Serialize};

use crate::probe::calibration_choice::CalibrationChoice;
use crate::probe::defaults;

/// How a probe is validated; see [`crate::probe::validate()`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationPlan {
    /// Folds, by group, inside the fit part.
    pub folds: usize,
    /// Simulations behind the intervals of the calibration error; 0 for metrics without intervals.
    pub resamples: usize,
    /// Whether groups, and not rows, are the units of intervals: wider ones, which hold for groups to come.
    pub by_group: bool,
    /// Bins of the expected calibration error.
    pub bins: usize,
    /// Seed of the folds and the intervals.
    pub seed: u64,
    /// The calibration.
    #[serde(default)]
    pub calibration: CalibrationChoice,
}

impl Default for ValidationPlan {
    fn default() -> ValidationPlan {
        ValidationPlan {
            folds: defaults::FOLDS,
            resamples: defaults::RESAMPLES,
            by_group: true,
            bins: defaults::BINS,
            seed: defaults::SEED,
            calibration: CalibrationChoice::default(),
        }
    }
}
