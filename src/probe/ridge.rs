//! Ridge regression on ±1: the objective of scikit-learn's `RidgeClassifier` with alpha = 1 / C, on standardised features.
//! It knows nothing of how its penalty is chosen.

use crate::error::Result;
use crate::probe::examples::Examples;
use crate::probe::penalised::{Family, regress};
use crate::probe::split::Split;
use crate::probe::{Fit, Reading};

/// Minimises `C/2 · Σ (logit ∓ 1)² + ½ ‖weight‖²`; the bias has no penalty. Only calibration gives its logits a meaningful
/// scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridge {
    /// The values of C worth trying, ascending.
    pub strengths: Vec<f64>,
}

impl Default for Ridge {
    fn default() -> Ridge {
        Ridge { strengths: vec![1e-4, 1e-3, 1e-2, 1e-1] }
    }
}

impl Fit for Ridge {
    fn name(&self) -> &'static str {
        "ridge"
    }

    fn strengths(&self) -> Vec<f64> {
        self.strengths.clone()
    }

    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<Reading>>> {
        regress(self.name(), Family::Squares, examples, splits, strengths)
    }
}
