//! Difference of class means, with the nearest mean as the decision.

use ndarray::{Array1, Array2, Axis, concatenate};

use crate::error::{Error, Result};
use crate::probe::examples::Examples;
use crate::probe::fit::{Fit, SplitFit};
use crate::probe::link::Link;
use crate::probe::probe::Probe;
use crate::probe::split::Split;

/// The difference-in-means probe (Marks & Tegmark 2023, arXiv 2310.06824, without a covariance): with class means μ the
/// logit of class a minus that of b is `(μ_a − μ_b) · h − ½ (‖μ_a‖² − ‖μ_b‖²)`, 0 halfway between the means. It has no
/// penalty, and its logits have a meaningful scale only after calibration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Means;

impl Fit for Means {
    fn name(&self) -> &'static str {
        "means"
    }

    fn strengths(&self) -> Vec<f64> {
        vec![1.0]
    }

    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<SplitFit>>> {
        let targets = examples.targets();
        if !matches!(targets.link, Link::Binary | Link::Multinomial) {
            let found = "ordinal or multilabel targets for means";
            return Err(Error::input(examples.place(), found, "method logistic for them"));
        }
        if let Some(whole) = splits.last() {
            examples.check_spread(&whole.fit)?;
        }
        let fit_split = |split: &Split| -> Result<Vec<SplitFit>> {
            examples.check(&split.fit)?;
            let folded = difference(&examples, &split.fit);
            let features = examples.features().select(Axis(0), &split.test);
            let at_strength = |&strength: &f64| {
                let probe = Probe::new(folded.clone(), (&examples.source, targets), (self.name(), strength));
                Ok(SplitFit { logits: probe.logits(features.view())?, probe })
            };
            strengths.iter().map(at_strength).collect()
        };
        splits.iter().map(fit_split).collect()
    }
}

/// Weight `[heads, width]` and bias `[heads]` from the class means of these rows.
fn difference(examples: &Examples, rows: &[usize]) -> (Array2<f32>, Array1<f32>) {
    let targets = examples.targets();
    let mut means = Array2::<f64>::zeros((targets.class_names.len(), examples.features().ncols()));
    let mut counts = vec![0.0; means.nrows()];
    for &row in rows {
        let class = targets.classes[row];
        counts[class] += 1.0;
        means
            .row_mut(class)
            .zip_mut_with(&examples.features().row(row), |sum, value| *sum += f64::from(*value));
    }
    means.rows_mut().into_iter().zip(counts).for_each(|(mut mean, count)| mean /= count);
    // Relative to the mean of the means, so that a large common offset of the activations does not cancel the
    // differences between squares.
    let centre = means.sum_axis(Axis(0)) / means.nrows() as f64;
    let centred = &means - &centre;
    let half = centred.map_axis(Axis(1), |mean| -mean.dot(&mean) / 2.0);
    let (mut weight, mut bias) = (centred, half);
    if weight.nrows() == 2 {
        weight = concatenate![Axis(0), (&weight.row(1) - &weight.row(0)).insert_axis(Axis(0))];
        bias = Array1::from_elem(1, bias[1] - bias[0]);
    }
    let weight = weight.mapv(|w| w as f32);
    let bias = &bias - &weight.mapv(f64::from).dot(&centre);
    (weight, bias.mapv(|b| b as f32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::examples::tests::examples;
    use ndarray::array;

    #[test]
    fn two_classes_by_hand() {
        // Means (101, 0) and (105, 2): difference (4, 2), halfway at (103, 1).
        let features = array![[100.0, 0.0], [102.0, 0.0], [104.0, 2.0], [106.0, 2.0]];
        let probe = Means.fit_all(examples(features, &[0, 0, 1, 1], None), 1.0).unwrap();
        assert_eq!(probe.weight, array![[4.0, 2.0]]);
        let logits = probe.logits(array![[103.0f32, 1.0], [105.0, 2.0]].view()).unwrap();
        assert_eq!(logits, array![[0.0], [10.0]]);
    }

    #[test]
    fn of_three_means_the_nearest_wins() {
        let features = array![[0.0, 0.0], [0.0, 0.2], [4.0, 0.0], [4.0, 0.2], [0.0, 6.0], [0.0, 6.2]];
        let probe = Means.fit_all(examples(features, &[0, 0, 1, 1, 2, 2], None), 1.0).unwrap();
        let asked = array![[1.9f32, 0.0], [2.1, 0.0], [0.0, 3.0], [0.0, 3.2], [4.0, 6.0]];
        // The last is nearer to (4, .1), 5.9 away, than to (0, 6.1), 4.0 away? No: 4.0 is nearer.
        assert_eq!(probe.predict(asked.view()).unwrap(), array![0, 1, 0, 2, 2]);
    }
}
