//! A debiased expected calibration error with a 95 % interval that can reach 0.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use rayon::prelude::*;

use super::interval::{Interval, quantile};
use super::linearised::Units;
use super::quantiles::Z;

/// A row's part in a calibration bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationGap {
    /// The bin.
    pub bin: usize,
    /// Correctness (1 or 0) minus confidence.
    pub gap: f64,
    /// Variance of the gap if the probability is right: p · (1 − p).
    pub variance: f64,
}

/// The expected calibration error without the part that noise adds to it, with its 95 % interval.
///
/// The binned error of `rows` (one or more gaps a row, whose absolute sums by bin are added and divided by the number of rows) is
/// biased upwards, because a mean of few rows is never exactly 0. The value is twice the binned error less its mean over simulations
/// that add the noise of the bins once more, and at least 0 (Kumar et al. 2019, arXiv 1909.10155, section 5). The bounds are those
/// true errors under which an error as large, or as small, as the binned one has a probability of 2.5 %: true gaps may be spread over
/// the bins as the observed ones are, or evenly, and the wider of the two is taken.
///
/// The noise of a bin is that of the units (a multiplier bootstrap, so that gaps of one group move together), and at least
/// that of outcomes drawn from the probabilities, without which a forecast that is right throughout would seem certain.
/// `None` without rows or draws.
pub fn debiased_calibration_error(
    rows: &[Vec<CalibrationGap>],
    bins: usize,
    units: &Units,
    draws: usize,
    seed: u64,
) -> Option<Interval> {
    if rows.is_empty() || bins == 0 || draws == 0 {
        return None;
    }
    let n = rows.len() as f64;
    let (mut gaps, mut counts, mut variances) = (vec![0.0; bins], vec![0.0; bins], vec![0.0; bins]);
    for own in rows.iter().flatten() {
        gaps[own.bin] += own.gap / n;
        counts[own.bin] += 1.0;
        variances[own.bin] += own.variance / (n * n);
    }
    let binned: f64 = gaps.iter().map(|gap| gap.abs()).sum();
    let noise = Noise::new(rows, (&gaps, &counts, &variances), units);
    let drawn: Vec<Vec<f64>> =
        (0..draws).into_par_iter().map(|draw| noise.draw(seed ^ (draw as u64).rotate_left(20))).collect();
    // Sorted binned errors that would be seen if the true gaps had these shares of a true error.
    let errors = |shares: &[f64], error: f64| -> Vec<f64> {
        let one = |noise: &Vec<f64>| {
            shares.iter().zip(noise).map(|(share, noise)| (error * share + noise).abs()).sum()
        };
        let mut errors: Vec<f64> = drawn.iter().map(one).collect();
        errors.sort_by(f64::total_cmp);
        errors
    };
    // The true error at which this quantile of the binned ones is the one seen; 0 where it is larger already without any gap.
    let solve = |shares: &[f64], share: f64| -> f64 {
        if quantile(&errors(shares, 0.0), share) >= binned {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..30 {
            let middle = (low + high) / 2.0;
            if quantile(&errors(shares, middle), share) < binned { low = middle } else { high = middle }
        }
        high
    };
    let observed: Vec<f64> = gaps.iter().map(|gap| if binned > 0.0 { gap / binned } else { 0.0 }).collect();
    let all: f64 = counts.iter().sum();
    let even: Vec<f64> = gaps.iter().zip(&counts).map(|(gap, count)| count / all * gap.signum()).collect();
    let shapes = [&observed, &even];
    // With little noise seen by chance, nothing between 0 and the binned error is ruled out.
    let low = shapes.iter().map(|shares| solve(shares, 0.975)).fold(binned, f64::min);
    let high = shapes.iter().map(|shares| solve(shares, 0.025)).fold(binned, f64::max);
    let noisy = errors(&observed, binned).iter().sum::<f64>() / draws as f64;
    Some(Interval { value: (2.0 * binned - noisy).max(0.0).clamp(low, high), low, high })
}

/// The sampling noise of the bins' gaps.
struct Noise {
    /// One a unit: its own deviations by bin, `(bin, deviation)`.
    deviations: Vec<Vec<(usize, f64)>>,
    /// By bin, the standard deviation that the units' deviations lack.
    lacking: Vec<f64>,
    scale: f64,
}

impl Noise {
    fn new(
        rows: &[Vec<CalibrationGap>],
        (gaps, counts, variances): (&[f64], &[f64], &[f64]),
        units: &Units,
    ) -> Noise {
        let n = rows.len() as f64;
        let deviations = units.members().into_iter().map(|members| {
            let mut own = std::collections::BTreeMap::new();
            for part in members.iter().flat_map(|&row| &rows[row]) {
                *own.entry(part.bin).or_insert(0.0) += part.gap / n - gaps[part.bin] / counts[part.bin];
            }
            own.into_iter().collect()
        });
        let deviations: Vec<Vec<(usize, f64)>> = deviations.collect();
        let count = deviations.len() as f64;
        let scale = (count / (count - 1.0).max(1.0)).sqrt() * units.quantile() / Z;
        let mut seen = vec![0.0; gaps.len()];
        deviations.iter().flatten().for_each(|&(bin, own)| seen[bin] += own * own * scale * scale);
        let lacking = variances.iter().zip(&seen).map(|(due, seen)| (due - seen).max(0.0).sqrt()).collect();
        Noise { deviations, lacking, scale }
    }

    fn draw(&self, seed: u64) -> Vec<f64> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut normal = || random.sample::<f64, _>(StandardNormal);
        let mut noise: Vec<f64> = self.lacking.iter().map(|lacking| lacking * normal()).collect();
        for unit in &self.deviations {
            let weight = self.scale * normal();
            unit.iter().for_each(|&(bin, own)| noise[bin] += weight * own);
        }
        noise
    }
}
