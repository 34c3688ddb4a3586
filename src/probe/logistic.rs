//! Logistic regression with an L2 penalty, binary, multinomial, multi-label or ordinal by the targets' link: the objective
//! of scikit-learn's `LogisticRegression` on standardised features.
//! It knows nothing of how its penalty is chosen.

use crate::error::Result;
use crate::probe::examples::Examples;
use crate::probe::regression::{Family, regress};
use crate::probe::split::Split;
use crate::probe::{Fit, Reading};

/// Minimises `C · Σ log loss + ½ ‖weight‖²` over features standardised by the rows that are fitted on; the bias has no
/// penalty. Two classes get one head, more get one each (softmax, every head's weight penalised), labels that do not
/// exclude one another one each, levels one direction with a bias between each two of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// The values of C worth trying, ascending.
    pub strengths: Vec<f64>,
}

impl Default for Logistic {
    fn default() -> Logistic {
        Logistic { strengths: vec![1e-3, 1e-2, 1e-1, 1.0] }
    }
}

impl Fit for Logistic {
    fn name(&self) -> &'static str {
        "logistic"
    }

    fn strengths(&self) -> Vec<f64> {
        self.strengths.clone()
    }

    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<Reading>>> {
        regress(self.name(), Family::Likelihood, examples, splits, strengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::examples::tests::examples;
    use linfa::traits::Fit as _;
    use proptest::prelude::*;

    /// Features on very different scales, and the number that the classes are cut from.
    fn formula(rows: usize, width: usize, noise: f64, collinear: bool) -> (Array2<f32>, Vec<f64>) {
        let mut x = Array2::from_shape_fn((rows, width), |(r, c)| {
            let (r, c) = (r as f64, c as f64);
            (1.0 + r * (0.37 + 0.11 * c) + 0.5 * c * c).sin() * (1.0 + c) + 10.0 * c
        });
        if collinear {
            let twin = &x.column(0) * 2.0 - 1.0;
            x.column_mut(width - 1).assign(&twin);
        }
        let x = x.mapv(|value| value as f32);
        let cut = (0..rows).map(|r| f64::from(x[[r, 0]]) + noise * (2.9 * r as f64).sin());
        let cut = cut.collect();
        (x, cut)
    }

    fn classes(cut: &[f64], count: usize) -> Vec<usize> {
        let class = |&s: &f64| match count {
            2 => usize::from(s > 0.0),
            _ => usize::from(s > -0.5) + usize::from(s > 0.5),
        };
        cut.iter().map(class).collect()
    }

    /// Rows, width, noise, C, whether two features are collinear, the objective, the first feature's weights.
    type Shape = (usize, usize, f64, f64, bool, f64, &'static [f64]);

    /// Objectives of scikit-learn 1.9.1, `LogisticRegression(C, tol=1e-12, solver="newton-cholesky")` on
    /// `StandardScaler().fit_transform(x)` with the data of `formula`, and the coefficients of the first feature
    /// divided by its deviation: fewer rows than features, more, two features collinear, classes separable.
    #[test]
    fn reaches_the_optimum_of_scikit_learn() {
        let shapes: [Shape; 8] = [
            (20, 40, 0.6, 0.5, false, 2.6529980603765093, &[1.680907]),
            (20, 40, 0.6, 0.5, false, 3.1240022611173592, &[-0.8584662, -0.1136952, 0.9721615]),
            (200, 6, 0.6, 1.0, false, 56.01440672363162, &[3.9189382]),
            (200, 6, 0.6, 1.0, false, 130.02386454149627, &[-2.998851, 0.057438, 2.941413]),
            (60, 5, 0.6, 2.0, true, 33.56506218451172, &[2.0039252]),
            (60, 5, 0.6, 2.0, true, 72.7263777261494, &[-1.5766883, -0.1348158, 1.7115041]),
            (40, 3, 0.0, 100.0, false, 111.26195235276212, &[16.095679]),
            (40, 3, 0.0, 100.0, false, 267.56235466688196, &[-17.1529464, -0.2247013, 17.3776477]),
        ];
        for (rows, width, noise, strength, collinear, objective, first) in shapes {
            let (x, cut) = formula(rows, width, noise, collinear);
            let count = if first.len() == 1 { 2 } else { 3 };
            let classes = classes(&cut, count);
            let design = Standardised::new(x.view());
            // From a path, so that warm starts are tried too.
            let fits = solve(&design, &classes, count, &[strength / 10.0, strength], TOLERANCE).unwrap();
            let gap = (fits[1].objective - objective) / objective;
            assert!(gap.abs() < 1e-6, "{rows} × {width}, {count} classes: {gap:e}");
            let path = Logistic::default().path(&examples(x, &classes, None), &[strength]).unwrap();
            for (weight, expected) in path[0].weight.column(0).iter().zip(first) {
                // The objective is flat at its minimum: a gap of 1e-8 is a weight's error of about 1e-4.
                assert!((f64::from(*weight) - expected).abs() < 2e-3 * expected.abs().max(1.0), "{weight}");
            }
        }
    }

    #[test]
    fn agrees_with_linfa_on_small_data() {
        let (x, cut) = formula(60, 4, 0.6, false);
        // linfa does not standardise: features that are standardised already make the two problems one.
        let x = Standardised::new(x.view()).forward(Array2::eye(4).view()).mapv(|value| value as f32);
        let examples = examples(x.clone(), &classes(&cut, 3), None);
        // alpha / 2 ‖w‖² + Σ log loss, which is C = 1 / alpha.
        let dataset = examples.dataset();
        let dataset = linfa::Dataset::new(dataset.records.mapv(f64::from), dataset.targets.to_owned());
        let theirs = linfa_logistic::MultiLogisticRegression::default().alpha(2.0).gradient_tolerance(1e-8);
        let theirs = theirs.max_iterations(1000).fit(&dataset).unwrap();
        let theirs = theirs.predict_probabilities(&x.mapv(f64::from));
        let ours = Logistic::default().path(&examples, &[0.5]).unwrap()[0].probabilities(x.view()).unwrap();
        let worst = (&ours - &theirs).fold(0.0f64, |worst, d| worst.max(d.abs()));
        assert!(worst < 1e-3, "{worst}");
    }

    #[test]
    fn large_logits_and_weak_penalties_stay_finite() {
        let (mut x, cut) = formula(40, 3, 0.0, false);
        x *= 1e6;
        let examples = examples(x.clone(), &classes(&cut, 3), None);
        let probe = Logistic::default().path(&examples, &[1e6]).unwrap().remove(0);
        let probabilities = probe.probabilities(x.view()).unwrap();
        assert!(probabilities.iter().all(|p| p.is_finite()));
        assert_eq!(probe.predict(x.view()).unwrap().to_vec(), classes(&cut, 3));
    }

    #[test]
    fn rejects_what_can_not_be_learned() {
        let error = |features, classes: &[usize], strength| {
            let refused = Logistic::default().path(&examples(features, classes, None), &[strength]);
            refused.unwrap_err().to_string()
        };
        let features = || Array2::from_shape_fn((4, 2), |(r, c)| (r * 2 + c) as f32);
        assert!(error(features(), &[1, 1, 1, 1], 1.0).contains("one class only"));
        assert!(error(features(), &[0, 1, 1, 1], 1.0).contains("1 rows of class \"0000\" to fit on"));
        assert!(error(features(), &[0, 1, 1, 0], -1.0).contains("C = -1"));
    }

    #[test]
    fn constant_features_leave_the_base_rate() {
        let examples = examples(Array2::from_elem((8, 2), 7.3), &[0, 0, 0, 0, 0, 0, 1, 1], None);
        let probe = Logistic::default().path(&examples, &[1.0]).unwrap().remove(0);
        let p = probe.probabilities(examples.features().view()).unwrap()[[0, 1]];
        assert!((p - 0.25).abs() < 1e-3, "{p}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_shift_or_scale_of_the_features_changes_no_probability(shift in -50f32..50.0, scale in 0.1f32..20.0) {
            let (x, cut) = formula(50, 3, 0.6, false);
            let moved = x.mapv(|value| value * scale + shift);
            let fit = |x: &Array2<f32>| {
                let probe = Logistic::default().path(&examples(x.clone(), &classes(&cut, 2), None), &[0.3]);
                probe.unwrap()[0].probabilities(x.view()).unwrap()
            };
            let worst = (fit(&x) - fit(&moved)).fold(0.0f64, |worst, d| worst.max(d.abs()));
            prop_assert!(worst < 1e-3, "{worst}");
        }
    }
}
