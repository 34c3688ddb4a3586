//! Linear discriminant analysis with a covariance shrunk towards a multiple of the identity.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::probe::defaults;
use crate::probe::design_matrix::{Standardised, column_products, solve_definite};
use crate::probe::examples::Examples;
use crate::probe::fit::{Fit, SplitFit};
use crate::probe::link::Link;
use crate::probe::probe::Probe;
use crate::probe::split::Split;
use crate::probe::targets::Targets;

/// Linear discriminant analysis on standardised features x. With class means μ, class frequencies π and the pooled
/// within-class covariance S, the logit of class c is `μ_cᵀ Σ⁻¹ x − ½ μ_cᵀ Σ⁻¹ μ_c + ln π_c`, with the shrunk covariance
/// `Σ = s · S + (1 − s) · tr(S)/width · I`: scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1 − s)`.
/// The strength s, below 1, is the weight of the empirical covariance.
#[derive(Clone, Debug, PartialEq)]
pub struct Lda {
    /// The values of s to choose among, ascending.
    pub strengths: Vec<f64>,
}

impl Default for Lda {
    fn default() -> Lda {
        Lda { strengths: defaults::LDA_STRENGTHS.into() }
    }
}

impl Fit for Lda {
    fn name(&self) -> &'static str {
        "lda"
    }

    fn strengths(&self) -> Vec<f64> {
        self.strengths.clone()
    }

    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<SplitFit>>> {
        let place = examples.place();
        let wrong = |found: String, expected: &str| Error::input(&place, found, expected);
        if let Some(strength) = strengths.iter().find(|s| !(**s >= 0.0 && **s < 1.0)) {
            return Err(wrong(
                format!("strength {strength}"),
                "a weight of the covariance from 0 to below 1",
            ));
        }
        if !matches!(examples.targets().link, Link::Binary | Link::Multinomial) {
            return Err(wrong("ordinal or multilabel targets for lda".into(), "method logistic for them"));
        }
        for split in splits {
            examples.check(&split.fit)?;
        }
        // The last split is the whole fit part; in a fold a constant column gets no weight.
        if let Some(whole) = splits.last() {
            examples.check_spread(&whole.fit)?;
        }
        let (source, features, targets) = examples.into_parts();
        let design = Standardised::new(features, splits);
        let mut all = Vec::with_capacity(splits.len());
        for split in splits {
            // One split at a time, so that one covariance is in memory.
            let statistics = ClassStatistics::new(&design, &targets, split);
            let fits = strengths.par_iter().map(|&strength| {
                let (weight, bias) = statistics.discriminant(strength).ok_or_else(|| {
                    wrong(
                        format!("a covariance without an inverse at strength {strength}"),
                        "a smaller strength",
                    )
                })?;
                let rows = design.values().select(Axis(0), &split.test).mapv(f64::from);
                let logits = rows.dot(&weight.t()) + &bias;
                let folded = design.fold_back(weight.view(), bias.view());
                let probe = Probe::new(folded, (&source, &targets), (self.name(), strength));
                Ok(SplitFit { probe, logits })
            });
            all.push(fits.collect::<Result<Vec<_>>>()?);
        }
        Ok(all)
    }
}

/// Class means, frequencies and the pooled within-class covariance of one split's fit rows.
struct ClassStatistics {
    /// `[classes, width]`, in the columns of the design.
    means: Array2<f64>,
    /// `[classes]`, sums to 1.
    frequencies: Vec<f64>,
    /// `[width, width]`, in the columns standardised over this split's fit rows.
    covariance: Array2<f64>,
    /// From a column of the design to the split's standardised column.
    scale: Array1<f64>,
}

impl ClassStatistics {
    fn new(design: &Standardised, targets: &Targets, split: &Split) -> ClassStatistics {
        let subset = design.subset(split);
        let rows = subset.rows as f64;
        let values: ArrayView2<f32> = design.values();
        let classes = targets.class_names.len();
        let mut means = Array2::<f64>::zeros((classes, values.ncols()));
        let mut counts = vec![0.0; classes];
        for &row in &split.fit {
            let class = targets.classes[row];
            counts[class] += 1.0;
            means.row_mut(class).zip_mut_with(&values.row(row), |sum, value| *sum += f64::from(*value));
        }
        means.rows_mut().into_iter().zip(&counts).for_each(|(mut mean, count)| mean /= *count);
        let mut covariance = column_products(values, &subset.mask).mapv(f64::from);
        let weighted =
            Array2::from_shape_fn(means.dim(), |(class, column)| counts[class] * means[[class, column]]);
        covariance -= &means.t().dot(&weighted);
        let scale = subset.scale.mapv(f64::from);
        for (row, mut values) in covariance.rows_mut().into_iter().enumerate() {
            let own = scale[row] / rows;
            values.zip_mut_with(&scale, |value, scale| *value *= own * scale);
        }
        ClassStatistics {
            means,
            frequencies: counts.iter().map(|count| count / rows).collect(),
            covariance,
            scale,
        }
    }

    /// Weights `[heads, width]` and biases `[heads]` in the columns of the design; `None` where the shrunk covariance has no
    /// inverse.
    fn discriminant(&self, strength: f64) -> Option<(Array2<f64>, Array1<f64>)> {
        let width = self.covariance.nrows() as f64;
        let mut shrunk = &self.covariance * strength;
        let ridge = (1.0 - strength) * self.covariance.diag().sum() / width;
        shrunk.diag_mut().mapv_inplace(|value| value + ridge);
        // Relative to the first mean: only differences between classes matter, and a common shift cancels.
        let centred = (&self.means - &self.means.row(0)) * &self.scale;
        let weight = solve_definite(shrunk.view(), centred.t())?.reversed_axes();
        let half: Array1<f64> = (&weight * &centred).sum_axis(Axis(1)) / 2.0;
        let weight = &weight * &self.scale;
        // x is relative to the first mean too.
        let bias = Array1::from_iter(self.frequencies.iter().map(|share| share.ln()))
            - half
            - weight.dot(&self.means.row(0));
        if self.frequencies.len() > 2 {
            return Some((weight, bias));
        }
        let difference = |from: ndarray::ArrayView1<f64>, to: ndarray::ArrayView1<f64>| &to - &from;
        let weight = difference(weight.row(0), weight.row(1)).insert_axis(Axis(0));
        Some((weight, Array1::from_elem(1, bias[1] - bias[0])))
    }
}
