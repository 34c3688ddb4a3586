//! Isotonic regression: a non-decreasing curve from log-odds to the observed frequency of a class.

use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

/// A non-decreasing piecewise linear curve, constant beyond its ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IsotonicCurve {
    /// Knots: log-odds, ascending.
    #[serde(rename = "at")]
    log_odds: Vec<f64>,
    /// Probability at each knot, non-decreasing, within (0, 1).
    #[serde(rename = "share")]
    probability: Vec<f64>,
}

impl IsotonicCurve {
    /// The non-decreasing least-squares fit to outcomes `hits` at `log_odds`, by pool adjacent violators (Ayer et al. 1955).
    /// Probabilities are clamped to 1 / (rows + 2) from 0 and 1: so few rows can't show a rarer event.
    pub(super) fn fit(log_odds: ArrayView1<f64>, hits: impl Iterator<Item = bool>) -> IsotonicCurve {
        let mut rows: Vec<(f64, bool)> = log_odds.iter().copied().zip(hits).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Sums of log-odds, of hits and of rows in each pooled block.
        let mut blocks: Vec<(f64, f64, f64)> = Vec::new();
        for tie in rows.chunk_by(|a, b| a.0 == b.0) {
            let count = tie.len() as f64;
            let hits = tie.iter().filter(|row| row.1).count() as f64;
            let mut block = (tie[0].0 * count, hits, count);
            while let Some(before) = blocks.pop_if(|before| before.1 * block.2 >= block.1 * before.2) {
                block = (before.0 + block.0, before.1 + block.1, before.2 + block.2);
            }
            blocks.push(block);
        }
        let edge = 1.0 / (rows.len() as f64 + 2.0);
        IsotonicCurve {
            log_odds: blocks.iter().map(|block| block.0 / block.2).collect(),
            probability: blocks.iter().map(|block| (block.1 / block.2).clamp(edge, 1.0 - edge)).collect(),
        }
    }

    /// The probability at this log-odds, by linear interpolation.
    pub(super) fn probability(&self, log_odds: f64) -> f64 {
        let above = self.log_odds.partition_point(|&knot| knot <= log_odds);
        let (Some(&right), Some(&upper)) = (self.log_odds.get(above), self.probability.get(above)) else {
            return self.probability.last().copied().unwrap_or(0.5);
        };
        let Some(below) = above.checked_sub(1) else { return upper };
        let (left, lower) = (self.log_odds[below], self.probability[below]);
        lower + (upper - lower) * (log_odds - left) / (right - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_isotonic_curve_by_hand() {
        let hits = [false, true, false, true, true];
        let curve = IsotonicCurve::fit(ndarray::array![1.0, 2.0, 3.0, 4.0, 5.0].view(), hits.into_iter());
        // 2 and 3 are pooled to 1/2, 4 and 5 to 1; probabilities keep 1/7 from 0 and 1.
        let top = 1.0 - 1.0 / 7.0;
        let expected =
            IsotonicCurve { log_odds: vec![1.0, 2.5, 4.5], probability: vec![1.0 / 7.0, 0.5, top] };
        assert_eq!(curve, expected);
        let at = |log_odds| curve.probability(log_odds);
        assert_eq!((at(-9.0), at(2.5), at(9.0)), (1.0 / 7.0, 0.5, top));
        assert!((at(3.5) - (0.5 + 6.0 / 7.0) / 2.0).abs() < 1e-12);
    }
}
