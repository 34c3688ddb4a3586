//! Logistic regression with an L2 penalty: binary, multinomial, multi-label or ordinal, by the link of the targets.

use crate::error::Result;
use crate::probe::defaults;
use crate::probe::examples::Examples;
use crate::probe::fit::{Fit, SplitFit};
use crate::probe::penalised::{self, Objective};
use crate::probe::split::Split;

/// Minimises `C · Σ log loss + ½ ‖weight‖²` on features standardised over the fit rows, without a penalty on the bias: the
/// objective of scikit-learn's `LogisticRegression` behind a `StandardScaler`.
///
/// Two classes have one head; more have one each (softmax, every head penalised); labels of multi-label targets have one
/// each; ordinal levels share one direction, with a bias for each level above the lowest (McCullagh 1980).
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// The inverse penalties C to choose among, ascending.
    pub strengths: Vec<f64>,
}

impl Default for Logistic {
    fn default() -> Logistic {
        Logistic { strengths: defaults::LOGISTIC_STRENGTHS.into() }
    }
}

impl Fit for Logistic {
    fn name(&self) -> &'static str {
        "logistic"
    }

    fn strengths(&self) -> Vec<f64> {
        self.strengths.clone()
    }

    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<SplitFit>>> {
        penalised::fit(self.name(), Objective::Likelihood, examples, splits, strengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::examples::tests::{classes, examples, formula};
    use ndarray::Array2;
    use proptest::prelude::*;

    #[test]
    fn large_logits_and_weak_penalties_stay_finite() {
        let (mut x, cut) = formula(40, 3, 0.0, false);
        x *= 1e6;
        let probe = Logistic::default().fit_all(examples(x.clone(), &classes(&cut, 3), None), 1e6).unwrap();
        let probabilities = probe.probabilities(x.view()).unwrap();
        assert!(probabilities.iter().all(|p| p.is_finite()));
        assert_eq!(probe.predict(x.view()).unwrap().to_vec(), classes(&cut, 3));
    }

    #[test]
    fn rejects_what_can_not_be_learned() {
        let error = |features, classes: &[usize], strength| {
            let refused = Logistic::default().fit_all(examples(features, classes, None), strength);
            refused.unwrap_err().to_string()
        };
        let features = || Array2::from_shape_fn((4, 2), |(r, c)| (r * 2 + c) as f32);
        assert!(error(features(), &[1, 1, 1, 1], 1.0).contains("one class only"));
        assert!(error(features(), &[0, 1, 1, 1], 1.0).contains("1 rows of class \"0000\" to fit on"));
        assert!(error(features(), &[0, 1, 1, 0], -1.0).contains("C = -1"));
        let still = error(Array2::from_elem((4, 2), 7.3), &[0, 1, 1, 0], 1.0);
        assert!(still.contains("the same activations in all of 4 rows"), "{still}");
    }

    #[test]
    fn a_column_that_does_not_vary_gets_no_weight() {
        let (mut x, cut) = formula(60, 4, 0.6, false);
        x.column_mut(2).fill(1e6 + 0.3);
        let probe = Logistic::default().fit_all(examples(x, &classes(&cut, 2), None), 1.0).unwrap();
        assert_eq!(probe.weight[[0, 2]], 0.0);
        assert!(probe.weight[[0, 0]] > 0.1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_shift_or_scale_of_the_features_changes_no_probability(shift in -50f32..50.0, scale in 0.1f32..20.0) {
            let (x, cut) = formula(50, 3, 0.6, false);
            let moved = x.mapv(|value| value * scale + shift);
            let fit = |x: &Array2<f32>| {
                let probe = Logistic::default().fit_all(examples(x.clone(), &classes(&cut, 2), None), 0.3);
                probe.unwrap().probabilities(x.view()).unwrap()
            };
            let worst = (fit(&x) - fit(&moved)).fold(0.0f64, |worst, d| worst.max(d.abs()));
            prop_assert!(worst < 1e-3, "{worst}");
        }
    }
}
