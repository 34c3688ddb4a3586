//! Linear discriminant analysis with a covariance shrunk towards a multiple of the identity, on standardised features.
//! It knows nothing of how the shrinkage is chosen.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::probe::design_matrix::{Standardised, column_products, solve_definite};
use crate::probe::examples::{Examples, Targets};
use crate::probe::probe::{Link, Probe};
use crate::probe::split::Split;
use crate::probe::{Fit, Reading};

/// With class means μ, shares π and the covariance Σ within classes, class c's logit is
/// `μ_c Σ⁻¹ x − ½ μ_c Σ⁻¹ μ_c + ln π_c`, where Σ is taken as `s · Σ + (1 − s) · tr(Σ)/width · 1`: scikit-learn's
/// `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1 − s)` on standardised features. The strength s is what is
/// believed of the covariance, below 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Lda {
    /// The values of s worth trying, ascending.
    pub strengths: Vec<f64>,
}

impl Default for Lda {
    fn default() -> Lda {
        Lda { strengths: vec![0.1, 0.5, 0.9, 0.99] }
    }
}

impl Fit for Lda {
    fn name(&self) -> &'static str {
        "lda"
    }

    fn strengths(&self) -> Vec<f64> {
        self.strengths.clone()
    }

    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<Reading>>> {
        let place = examples.place();
        let wrong = |found: String, expected: &str| Error::input(&place, found, expected);
        if let Some(strength) = strengths.iter().find(|s| !(**s >= 0.0 && **s < 1.0)) {
            return Err(wrong(format!("strength {strength}"), "a share of the covariance from 0 to below 1"));
        }
        if !matches!(examples.targets().link, Link::Binary | Link::Multinomial) {
            return Err(wrong("levels or sets of labels for lda".into(), "method logistic for them"));
        }
        for split in splits {
            examples.check(&split.fit)?;
        }
        // The last is the whole; in a fold what does not vary gets no weight.
        if let Some(whole) = splits.last() {
            examples.check_spread(&whole.fit)?;
        }
        let (source, features, targets) = examples.into_parts();
        let design = Standardised::new(features, splits);
        let mut readings = Vec::with_capacity(splits.len());
        for split in splits {
            // One split at a time: a covariance a split is in memory.
            let within = Within::new(&design, &targets, split);
            let fits = strengths.par_iter().map(|&strength| {
                let (weight, bias) = within.discriminate(strength).ok_or_else(|| {
                    wrong(
                        format!("a covariance without an inverse at strength {strength}"),
                        "a smaller strength",
                    )
                })?;
                let rows = design.values().select(Axis(0), &split.test).mapv(f64::from);
                let logits = rows.dot(&weight.t()) + &bias;
                let folded = design.fold_back(weight.view(), bias.view());
                let probe = Probe::new(folded, (&source, &targets), (self.name(), strength));
                Ok(Reading { probe, logits })
            });
            readings.push(fits.collect::<Result<Vec<_>>>()?);
        }
        Ok(readings)
    }
}

/// What one split's fit rows say of classes.
struct Within {
    /// `[classes, width]`.
    means: Array2<f64>,
    shares: Vec<f64>,
    /// `[width, width]`, with the fold's own standardisation taken back: `covariance · deviation²` would be the design's.
    covariance: Array2<f64>,
    /// Columns count as `column · scale` in this split.
    scale: Array1<f64>,
}

impl Within {
    fn new(design: &Standardised, targets: &Targets, split: &Split) -> Within {
        let part = design.part(split);
        let rows = part.rows as f64;
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
        let mut covariance = column_products(values, &part.mask).mapv(f64::from);
        let weighted =
            Array2::from_shape_fn(means.dim(), |(class, column)| counts[class] * means[[class, column]]);
        covariance -= &means.t().dot(&weighted);
        let scale = part.scale.mapv(f64::from);
        for (row, mut values) in covariance.rows_mut().into_iter().enumerate() {
            let own = scale[row] / rows;
            values.zip_mut_with(&scale, |value, scale| *value *= own * scale);
        }
        Within { means, shares: counts.iter().map(|count| count / rows).collect(), covariance, scale }
    }

    /// Weights `[heads, width]` and biases in the design's columns; `None` where the shrunk covariance has no inverse.
    fn discriminate(&self, strength: f64) -> Option<(Array2<f64>, Array1<f64>)> {
        let width = self.covariance.nrows() as f64;
        let mut shrunk = &self.covariance * strength;
        let ridge = (1.0 - strength) * self.covariance.diag().sum() / width;
        shrunk.diag_mut().mapv_inplace(|value| value + ridge);
        // Relative to the first mean: only differences between classes count, and shifts cancel.
        let around = (&self.means - &self.means.row(0)) * &self.scale;
        let weight = solve_definite(shrunk.view(), around.t())?.reversed_axes();
        let half: Array1<f64> = (&weight * &around).sum_axis(Axis(1)) / 2.0;
        let weight = &weight * &self.scale;
        // x counts from the first mean too.
        let bias = Array1::from_iter(self.shares.iter().map(|share| share.ln()))
            - half
            - weight.dot(&self.means.row(0));
        if self.shares.len() > 2 {
            return Some((weight, bias));
        }
        let difference = |from: ndarray::ArrayView1<f64>, to: ndarray::ArrayView1<f64>| &to - &from;
        let weight = difference(weight.row(0), weight.row(1)).insert_axis(Axis(0));
        Some((weight, Array1::from_elem(1, bias[1] - bias[0])))
    }
}
