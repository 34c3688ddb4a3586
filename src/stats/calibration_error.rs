//! Scores of predicted probabilities: accuracy, log loss, Brier score, expected calibration error, reliability diagram.
//!
//! Probabilities `[rows, classes]`, each row summing to 1, and true classes `[rows]` go in.

use ndarray::{ArrayView1, ArrayView2};

/// Share of rows whose most probable class is the true one (the first of several). `None` without rows.
pub fn accuracy(probabilities: ArrayView2<f64>, classes: &[usize]) -> Option<f64> {
    mean(probabilities, classes, |row, class| f64::from(largest(row).0 == class))
}

/// Mean negative log of the true class's probability, in nats; probabilities below 1e-15 count as 1e-15.
/// `None` without rows.
pub fn log_loss(probabilities: ArrayView2<f64>, classes: &[usize]) -> Option<f64> {
    mean(probabilities, classes, |row, class| -row[class].max(1e-15).ln())
}

/// Brier score (Brier 1950): mean over rows of Σ (p − y)² over the classes, y one-hot, 0 to 2; for two classes half of that,
/// 0 to 1, as in scikit-learn. `None` without rows.
pub fn brier(probabilities: ArrayView2<f64>, classes: &[usize]) -> Option<f64> {
    let scale = if probabilities.ncols() == 2 { 0.5 } else { 1.0 };
    mean(probabilities, classes, |row, class| {
        let squares = row.iter().enumerate();
        let distance: f64 = squares.map(|(column, p)| (p - f64::from(column == class)).powi(2)).sum();
        scale * distance
    })
}

/// Expected calibration error after Guo et al. 2017 (arXiv 1706.04599): rows fall into `bins` bins of equal width by
/// the probability of their most probable class (bin k holds (k/bins, (k+1)/bins]); the error is the mean, weighted by
/// rows, of |accuracy − mean probability| a bin. `None` without rows or bins.
pub fn calibration_error(probabilities: ArrayView2<f64>, classes: &[usize], bins: usize) -> Option<f64> {
    if bins == 0 || classes.is_empty() {
        return None;
    }
    let mut gaps = vec![0.0; bins];
    for (row, &class) in probabilities.rows().into_iter().zip(classes) {
        let (bin, gap) = calibration_gap(row, class, bins);
        gaps[bin] += gap;
    }
    Some(gaps.iter().map(|gap| gap.abs()).sum::<f64>() / classes.len() as f64)
}

/// One row's term of [`calibration_error`]: its bin, and correctness (1 or 0) minus confidence. The error is the sum over
/// bins of the absolute value of their summed terms, divided by the number of rows; the counts of the bins cancel.
pub fn calibration_gap(probabilities: ArrayView1<f64>, class: usize, bins: usize) -> (usize, f64) {
    let (column, confidence) = largest(probabilities);
    let bin = (confidence * bins as f64).ceil() as usize;
    (bin.clamp(1, bins.max(1)) - 1, f64::from(column == class) - confidence)
}

/// A bin of a reliability diagram.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bin {
    /// Mean probability of the most probable class.
    pub confidence: f64,
    /// Number of rows.
    pub n: usize,
    /// Rows whose most probable class is the true one.
    pub right: usize,
}

/// A reliability diagram with at most `bins` bins of equal count, by ascending probability of the most probable class. Rows
/// with equal probability share a bin, so that there may be fewer.
pub fn reliability(probabilities: ArrayView2<f64>, classes: &[usize], bins: usize) -> Vec<Bin> {
    let rows = probabilities.rows().into_iter().zip(classes);
    let mut rows: Vec<(f64, bool)> = rows
        .map(|(row, &class)| {
            let (column, confidence) = largest(row);
            (confidence, column == class)
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut found = Vec::new();
    let (mut sum, mut n, mut right) = (0.0, 0, 0);
    let ties: Vec<&[(f64, bool)]> = rows.chunk_by(|a, b| a.0 == b.0).collect();
    let mut seen = 0;
    for tie in ties {
        sum += tie[0].0 * tie.len() as f64;
        n += tie.len();
        right += tie.iter().filter(|row| row.1).count();
        seen += tie.len();
        if seen * bins >= (found.len() + 1) * rows.len() {
            found.push(Bin { confidence: sum / n as f64, n, right });
            (sum, n, right) = (0.0, 0, 0);
        }
    }
    found
}

/// Column and value of the largest entry; the first among equals.
fn largest(row: ArrayView1<f64>) -> (usize, f64) {
    let first = (0, f64::NEG_INFINITY);
    let entries = row.iter().copied().enumerate();
    entries.fold(first, |best, entry| if entry.1 > best.1 { entry } else { best })
}

fn mean(
    probabilities: ArrayView2<f64>,
    classes: &[usize],
    value: impl Fn(ArrayView1<f64>, usize) -> f64,
) -> Option<f64> {
    let rows = probabilities.rows().into_iter().zip(classes);
    let sum: f64 = rows.map(|(row, &class)| value(row, class)).sum();
    (!classes.is_empty()).then(|| sum / classes.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn scores_worked_out_by_hand() {
        let two = array![[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]];
        let truth = [0, 1, 1, 1];
        assert_eq!(accuracy(two.view(), &truth), Some(0.75));
        // (.01 + .16 + .49 + .04) / 4
        assert!((brier(two.view(), &truth).unwrap() - 0.175).abs() < 1e-12);
        let loss = -(0.9f64.ln() + 0.6f64.ln() + 0.3f64.ln() + 0.8f64.ln()) / 4.0;
        assert!((log_loss(two.view(), &truth).unwrap() - loss).abs() < 1e-12);
        // Five bins: .6 alone (gap .4), .7 and .8 together (.6, .8]: one right of 1.5 (gap .5), .9 alone (gap .1).
        let error = calibration_error(two.view(), &truth, 5).unwrap();
        assert!((error - (0.4 + 0.5 + 0.1) / 4.0).abs() < 1e-12, "{error}");
        // Three classes: (.3² + .2² + .1²) of [.7, .2, .1] when the first is true.
        assert!((brier(array![[0.7, 0.2, 0.1]].view(), &[0]).unwrap() - 0.14).abs() < 1e-12);
        assert_eq!(log_loss(two.view(), &[]), None);
    }

    #[test]
    fn a_certain_and_correct_forecast_has_no_error() {
        let sure = array![[1.0, 0.0], [0.0, 1.0]];
        assert_eq!(calibration_error(sure.view(), &[0, 1], 15), Some(0.0));
        assert_eq!(calibration_error(sure.view(), &[1, 0], 15), Some(1.0));
    }

    #[test]
    fn bins_of_a_reliability_diagram_by_hand() {
        let probabilities = array![[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.3, 0.7]];
        let found = reliability(probabilities.view(), &[0, 0, 1, 1, 0], 2);
        // Ascending: .6 (wrong), .7 and .7 (one right) are three of five rows; .8 and .9 are right.
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].n, found[0].right, found[1].n, found[1].right), (3, 1, 2, 2));
        assert!(
            (found[0].confidence - 2.0 / 3.0).abs() < 1e-12 && (found[1].confidence - 0.85).abs() < 1e-12
        );
        // Rows with equal probability share a bin.
        assert_eq!(reliability(array![[1.0, 0.0], [1.0, 0.0]].view(), &[0, 1], 2).len(), 1);
    }
}
