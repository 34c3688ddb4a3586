//! Logistic regression, binary and multinomial, with an L2 penalty: the objective of scikit-learn's
//! `LogisticRegression` on standardised features, brought to its optimum by L-BFGS in f64.
//! It knows nothing of how its penalty is chosen.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::error::{Error, Result};
use crate::probe::Fit;
use crate::probe::design::{Design, Inverse, Standardised};
use crate::probe::examples::Examples;
use crate::probe::lbfgs::{Problem, minimise};
use crate::probe::linear::{Link, Probe};

/// Minimises `C · Σ log loss + ½ ‖weight‖²` over standardised features; the bias has no penalty. Two classes get one
/// head, more get one each (softmax, every head's weight penalised).
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

    fn path(&self, examples: &Examples, strengths: &[f64]) -> Result<Vec<Probe>> {
        examples.check()?;
        let design = Standardised::new(examples.features().view());
        let targets = examples.targets();
        let names = &targets.class_names;
        let fits = solve(&design, &targets.classes, names.len(), strengths, TOLERANCE);
        let fits = fits.map_err(|(found, expected)| Error::input(examples.place(), found, expected))?;
        let probes = fits.iter().zip(strengths).map(|(fit, &strength)| {
            let folded = design.fold_back(fit.weight.view(), fit.bias.view());
            Probe::new(folded, (&examples.source, names), (self.name(), strength))
        });
        Ok(probes.collect())
    }
}

/// A fit in the design's own columns.
pub(super) struct Solution {
    /// `[heads, width]`.
    pub weight: Array2<f64>,
    /// `[heads]`; for several heads their mean is 0, for only differences count.
    pub bias: Array1<f64>,
    /// The objective's value, reached to a relative 1e-8.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the optimum is checked by"))]
    pub objective: f64,
}

/// How near the optimum a probe is brought: the objective within this share of itself.
const TOLERANCE: f64 = 1e-8;

/// The optimum for each of `strengths`, each started where the one before it ended: its objective is above the least by
/// `tolerance` times it at most. An error holds what was found and what would be right; the caller knows the place.
pub(super) fn solve(
    design: &impl Design,
    classes: &[usize],
    class_count: usize,
    strengths: &[f64],
    tolerance: f64,
) -> std::result::Result<Vec<Solution>, (String, &'static str)> {
    let heads = if class_count == 2 { 1 } else { class_count };
    let width = design.width();
    let mut start = vec![0.0; heads * (width + 1)];
    let mut solutions = Vec::with_capacity(strengths.len());
    for &strength in strengths {
        if !(strength.is_finite() && strength > 0.0) {
            return Err((format!("inverse penalty C = {strength}"), "a number above 0"));
        }
        let loss = Loss { design, classes, heads, strength };
        // The Hessian of the loss is XᵀX times p (1 − p), which is taken as constant over the rows: its mean where this
        // fit starts. The bias is nearly independent of the weights, for the columns have mean 0.
        let curvature = strength * loss.curvature(&start).max(1e-4);
        let inverse = Inverse::new(design.moments(), curvature);
        let bias_curvature = curvature * design.rows() as f64;
        let mut objective = 0.0;
        let mut problem = Problem {
            value: |at: &[f64], gradient: &mut [f64]| loss.value(at, gradient),
            precondition: |vector: &mut [f64]| {
                let (weight, bias) = vector.split_at_mut(heads * width);
                weight.chunks_exact_mut(width).for_each(|head| inverse.apply(head));
                bias.iter_mut().for_each(|b| *b /= bias_curvature);
            },
            // The penalty alone has curvature 1, so the objective is above its minimum by at most ½ ‖gradient‖² as far
            // as the weights go; for the bias its own curvature stands instead.
            done: |value: f64, gradient: &[f64]| {
                objective = value;
                let square = |part: &[f64]| part.iter().map(|g| g * g).sum::<f64>();
                let (weight, bias) = gradient.split_at(heads * width);
                (square(weight) + square(bias) / bias_curvature) / 2.0 <= tolerance * value
            },
        };
        let (point, done) = minimise(&mut problem, start);
        if !done {
            return Err((
                format!("no optimum found at C = {strength}"),
                "a smaller C, or features of a smaller range",
            ));
        }
        let (weight, bias) = point.split_at(heads * width);
        let mut bias = Array1::from(bias.to_vec());
        if heads > 1 {
            bias -= bias.mean().unwrap_or(0.0);
        }
        let weight = Array2::from_shape_fn((heads, width), |(head, column)| weight[head * width + column]);
        solutions.push(Solution { weight, bias, objective });
        start = point;
    }
    Ok(solutions)
}

/// The objective at one C.
struct Loss<'a, D> {
    design: &'a D,
    classes: &'a [usize],
    heads: usize,
    strength: f64,
}

impl<D: Design> Loss<'_, D> {
    fn logits(&self, at: &[f64]) -> Array2<f64> {
        let (weight, bias) = at.split_at(self.heads * self.design.width());
        // The slice was split to just this size.
        let Ok(weight) = ArrayView2::from_shape((self.heads, self.design.width()), weight) else {
            return Array2::zeros((self.design.rows(), self.heads));
        };
        self.design.forward(weight) + ndarray::ArrayView1::from(bias)
    }

    /// Mean of p (1 − p) over rows and heads.
    fn curvature(&self, at: &[f64]) -> f64 {
        let link = if self.heads == 1 { Link::Binary } else { Link::Multinomial };
        let probabilities = link.probabilities(self.logits(at));
        probabilities.mapv(|p| p * (1.0 - p)).mean().unwrap_or(0.0)
    }

    fn value(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let mut logits = self.logits(at);
        let mut loss = 0.0;
        let mut row = vec![0.0; self.heads];
        for (mut logits, &class) in logits.rows_mut().into_iter().zip(self.classes) {
            // Each row of logits becomes its residual, probability − truth; in a plain slice, because a view's
            // operations cost more than sums as short as these.
            row.iter_mut().zip(&logits).for_each(|(to, from)| *to = *from);
            if self.heads == 1 {
                let (z, y) = (row[0], class as f64);
                // log(1 + exp(z)) − y z, with the exponential of a negative number only.
                let small = (-z.abs()).exp();
                loss += small.ln_1p() + z.max(0.0) - y * z;
                row[0] = if z >= 0.0 { 1.0 } else { small } / (1.0 + small) - y;
            } else {
                let largest = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let own = row[class] - largest;
                row.iter_mut().for_each(|z| *z = (*z - largest).exp());
                let sum: f64 = row.iter().sum();
                loss += sum.ln() - own;
                row.iter_mut().for_each(|p| *p /= sum);
                row[class] -= 1.0;
            }
            logits.iter_mut().zip(&row).for_each(|(to, from)| *to = *from);
        }
        let width = self.design.width();
        let weight = &at[..self.heads * width];
        let sums = self.design.backward(logits.view());
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(self.heads * width);
        for (head, sums) in sums.rows().into_iter().enumerate() {
            let range = head * width..(head + 1) * width;
            let pairs = weight_gradient[range.clone()].iter_mut().zip(&weight[range]);
            pairs.zip(sums).for_each(|((g, w), sum)| *g = self.strength * sum + w);
        }
        let residuals = logits.sum_axis(Axis(0));
        bias_gradient.iter_mut().zip(&residuals).for_each(|(g, sum)| *g = self.strength * sum);
        self.strength * loss + weight.iter().map(|w| w * w).sum::<f64>() / 2.0
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
