//! Ridge regression on targets of ±1.

use crate::error::Result;
use crate::probe::defaults;
use crate::probe::examples::Examples;
use crate::probe::fit::{Fit, SplitFit};
use crate::probe::penalised::{self, Objective};
use crate::probe::split::Split;

/// Minimises `C/2 · Σ (logit ∓ 1)² + ½ ‖weight‖²` on standardised features, without a penalty on the bias: the objective of
/// scikit-learn's `RidgeClassifier` with alpha = 1 / C. Its logits have a meaningful scale only after calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridge {
    /// The inverse penalties C to choose among, ascending.
    pub strengths: Vec<f64>,
}

impl Default for Ridge {
    fn default() -> Ridge {
        Ridge { strengths: defaults::RIDGE_STRENGTHS.into() }
    }
}

impl Fit for Ridge {
    fn name(&self) -> &'static str {
        "ridge"
    }

    fn strengths(&self) -> Vec<f64> {
        self.strengths.clone()
    }

    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<SplitFit>>> {
        penalised::fit(self.name(), Objective::LeastSquares, examples, splits, strengths)
    }
}
