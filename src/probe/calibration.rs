//! Calibration: one or two numbers that make a probe's probabilities as sure as it is right.
//! It knows nothing of splits: the logits it is given must be of rows that the probe was not fitted on.

use ndarray::{Array2, ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::probe::lbfgs::{Problem, minimise};
use crate::probe::linear::Link;

/// What is done to logits before the link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "method")]
pub enum Calibration {
    None,
    /// logit / temperature (Guo et al. 2017, arXiv 1706.04599); the order of classes and rows stays.
    Temperature {
        temperature: f64,
    },
    /// slope · logit + offset, for one head (Platt 1999).
    Platt {
        slope: f64,
        offset: f64,
    },
}

impl Calibration {
    /// Calibrated logits.
    pub fn apply(self, logits: Array2<f64>) -> Array2<f64> {
        match self {
            Calibration::None => logits,
            Calibration::Temperature { temperature } => logits / temperature,
            Calibration::Platt { slope, offset } => logits * slope + offset,
        }
    }

    /// The temperature that makes the log loss least on logits `[rows, heads]` of known classes.
    ///
    /// The truth counts as slightly unsure, as in Platt's method: (n + 1)/(n + 2) for a class of n rows, so that
    /// perfectly separated rows have a finite temperature too. Kept within 1e-8 to 1e8.
    pub fn temperature(link: Link, logits: ArrayView2<f64>, classes: &[usize]) -> Calibration {
        let logits = match link {
            // As two heads (0, z), to have one case.
            Link::Binary => {
                let column = logits.column(0);
                Array2::from_shape_fn(
                    (logits.nrows(), 2),
                    |(row, head)| if head == 0 { 0.0 } else { column[row] },
                )
            }
            Link::Multinomial => logits.to_owned(),
        };
        let mut counts = vec![0.0; logits.ncols()];
        classes.iter().for_each(|&class| counts[class] += 1.0);
        let others = logits.ncols() as f64 - 1.0;
        // The mean logit under the truth does not change with the temperature.
        let truth = |row: ArrayView1<f64>, class: usize| {
            let doubt: f64 = 1.0 / (counts[class] + 2.0);
            (1.0 - doubt) * row[class] + doubt / others * (row.sum() - row[class])
        };
        let rows = || logits.rows().into_iter().zip(classes);
        let wanted: f64 = rows().map(|(row, &class)| truth(row, class)).sum();
        // The loss is convex in the inverse temperature; its slope is Σ mean logit under the probe − wanted.
        let slope = |inverse: f64| {
            let mean = |row: ArrayView1<f64>| {
                let largest = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let (mut sum, mut weighted) = (0.0, 0.0);
                for &logit in row {
                    let share = ((logit - largest) * inverse).exp();
                    sum += share;
                    weighted += share * logit;
                }
                weighted / sum
            };
            rows().map(|(row, _)| mean(row)).sum::<f64>() - wanted
        };
        let (mut low, mut high) = (1e-8f64.ln(), 1e8f64.ln());
        for _ in 0..45 {
            let middle = (low + high) / 2.0;
            if slope(middle.exp()) < 0.0 { low = middle } else { high = middle }
        }
        Calibration::Temperature { temperature: (-(low + high) / 2.0).exp() }
    }

    /// Slope and offset that make the log loss least on one head's logits, the truth being (n₊ + 1)/(n₊ + 2) for the
    /// n₊ positives and 1/(n₋ + 2) for the n₋ negatives (Platt 1999). `None` where the logits do not vary.
    pub fn platt(logits: ArrayView1<f64>, positive: &[bool]) -> Option<Calibration> {
        let deviation = logits.std(0.0);
        if !deviation.is_finite() || deviation == 0.0 {
            return None;
        }
        let positives = positive.iter().filter(|&&is| is).count() as f64;
        let negatives = positive.len() as f64 - positives;
        let (sure, unsure) = ((positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0));
        let rows: Vec<(f64, f64)> = logits
            .iter()
            .zip(positive)
            .map(|(z, &is)| (z / deviation, if is { sure } else { unsure }))
            .collect();
        let mut problem = Problem {
            value: |at: &[f64], gradient: &mut [f64]| {
                gradient.fill(0.0);
                let mut loss = 0.0;
                for &(z, target) in &rows {
                    let logit = at[0] * z + at[1];
                    let small = (-logit.abs()).exp();
                    loss += small.ln_1p() + logit.max(0.0) - target * logit;
                    let residual = if logit >= 0.0 { 1.0 } else { small } / (1.0 + small) - target;
                    gradient[0] += residual * z;
                    gradient[1] += residual;
                }
                loss
            },
            precondition: |vector: &mut [f64]| vector.iter_mut().for_each(|v| *v *= 4.0 / rows.len() as f64),
            done: |_, gradient: &[f64]| gradient.iter().all(|g| g.abs() <= 1e-9 * rows.len() as f64),
        };
        // Where rounding ends the search a little early, the point is as good as f64 gives.
        let (point, _) = minimise(&mut problem, vec![0.0, 0.0]);
        Some(Calibration::Platt { slope: point[0] / deviation, offset: point[1] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    /// Logits and classes of which the share of class 1 is just what logits of half the size would say.
    fn sure_twice_over() -> (Array1<f64>, Vec<usize>) {
        let mut rows = Vec::new();
        for logit in [-3.0, -1.0, 0.5, 2.0f64] {
            let ones = (2000.0 / (1.0 + (-logit / 2.0).exp())).round() as usize;
            rows.extend((0..2000).map(|row| (logit, usize::from(row < ones))));
        }
        (rows.iter().map(|row| row.0).collect(), rows.iter().map(|row| row.1).collect())
    }

    #[test]
    fn finds_the_temperature_that_the_data_were_made_with() {
        let (logits, classes) = sure_twice_over();
        let column = logits.clone().insert_axis(ndarray::Axis(1));
        let Calibration::Temperature { temperature } =
            Calibration::temperature(Link::Binary, column.view(), &classes)
        else {
            panic!("another calibration");
        };
        assert!((temperature - 2.0).abs() < 0.01, "{temperature}");
        // The same as two heads of a softmax.
        let both = Array2::from_shape_fn((logits.len(), 2), |(row, head)| logits[row] * (head as f64 - 0.5));
        let same = Calibration::temperature(Link::Multinomial, both.view(), &classes);
        assert!(
            matches!(same, Calibration::Temperature { temperature: t } if (t - temperature).abs() < 1e-6)
        );
    }

    #[test]
    fn finds_the_slope_and_offset_that_the_data_were_made_with() {
        let (logits, classes) = sure_twice_over();
        let positive: Vec<bool> = classes.iter().map(|&class| class == 1).collect();
        // Shifted logits: (z + 3) / 2 − 1.5 is z / 2.
        let shifted = &logits + 3.0;
        let Some(Calibration::Platt { slope, offset }) = Calibration::platt(shifted.view(), &positive) else {
            panic!("another calibration");
        };
        assert!((slope - 0.5).abs() < 0.003 && (offset + 1.5).abs() < 0.01, "{slope} {offset}");
        assert_eq!(Calibration::platt(Array1::zeros(4).view(), &[true, false, true, false]), None);
    }

    #[test]
    fn separated_rows_have_a_finite_temperature() {
        let logits = ndarray::array![[-5.0], [-4.0], [4.0], [5.0]];
        let calibrated = Calibration::temperature(Link::Binary, logits.view(), &[0, 0, 1, 1]).apply(logits);
        // Two rows a class: the truth counts as 3/4 sure, so no row is called much surer than that.
        let p = 1.0 / (1.0 + (-calibrated[[3, 0]]).exp());
        assert!((0.7..0.85).contains(&p), "{p}");
    }
}
