//! Validation plan: folds, bootstrap and seed of a probe's validation.

use serde::{Deserialize, Serialize};

use crate::probe::defaults;

/// How a probe is validated; see [`crate::probe::validate()`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationPlan {
    /// Folds, by group, inside the fit part.
    pub folds: usize,
    /// Bootstrap resamples for the intervals; 0 for metrics without intervals.
    pub resamples: usize,
    /// Whether the bootstrap draws whole groups instead of rows: wider intervals, which hold for groups to come.
    pub by_group: bool,
    /// Bins of the expected calibration error.
    pub bins: usize,
    /// Seed of the folds and the bootstrap.
    pub seed: u64,
}

impl Default for ValidationPlan {
    fn default() -> ValidationPlan {
        ValidationPlan {
            folds: defaults::FOLDS,
            resamples: defaults::RESAMPLES,
            by_group: false,
            bins: defaults::BINS,
            seed: defaults::SEED,
        }
    }
}
