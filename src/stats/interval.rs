//! 95 % confidence intervals: the bootstrap and Wilson's score interval; and metrics that carry one.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A value with the bounds of its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// A named value with its interval and the data that it was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Stable and path-like: `auroc`, `auroc/malicious`, …
    pub name: String,
    /// The value.
    pub value: f64,
    /// Lower bound of the 95 % interval, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper bound of the 95 % interval, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Number of rows that it was measured on.
    pub n: usize,
    /// The split of those rows: `test`, `validation`, …
    pub split: String,
}

impl Metric {
    /// A metric with an interval.
    pub fn new(name: impl Into<String>, interval: Interval, n: usize, split: &str) -> Metric {
        Metric {
            name: name.into(),
            value: interval.value,
            low: Some(interval.low),
            high: Some(interval.high),
            n,
            split: split.to_owned(),
        }
    }
}

/// 95 % percentile bootstrap interval of a statistic (Efron 1979): units (rows, or whole groups whose rows are dependent) are
/// drawn with replacement, `resamples` times.
///
/// `units` holds the rows of each unit. `statistic` takes the drawn rows, with repeats, and may have no value on some draws
/// (a class is missing), which are left out. `None` if it has no value on all rows, or on more than half of the draws. The
/// same seed gives the same interval on any number of threads.
pub fn bootstrap(
    units: &[Vec<usize>],
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Option<Interval> {
    let intervals = bootstrap_each(units, resamples, seed, |rows| vec![statistic(rows)]);
    intervals.into_iter().next().flatten()
}

/// [`bootstrap`] of several statistics on the same draws. `statistics` returns the same number of values for each draw.
pub fn bootstrap_each(
    units: &[Vec<usize>],
    resamples: usize,
    seed: u64,
    statistics: impl Fn(&[usize]) -> Vec<Option<f64>> + Sync,
) -> Vec<Option<Interval>> {
    let values = statistics(&units.concat());
    let draw = |resample: usize| {
        // One generator per draw, so that the result doesn't depend on the assignment of draws to threads.
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ resample as u64);
        let drawn = (0..units.len()).flat_map(|_| &units[random.random_range(0..units.len())]);
        statistics(&drawn.copied().collect::<Vec<_>>())
    };
    let draws: Vec<Vec<Option<f64>>> = (0..resamples).into_par_iter().map(draw).collect();
    let interval = |(index, value): (usize, Option<f64>)| {
        let mut drawn: Vec<f64> = draws.iter().filter_map(|draw| draw[index]).collect();
        drawn.sort_by(f64::total_cmp);
        let is_known = !drawn.is_empty() && drawn.len() * 2 >= resamples;
        value.filter(|_| is_known).map(|value| Interval {
            value,
            low: quantile(&drawn, 0.025),
            high: quantile(&drawn, 0.975),
        })
    };
    values.into_iter().enumerate().map(interval).collect()
}

/// Quantile by linear interpolation between the two nearest sorted values, numpy's default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Wilson's 95 % score interval of a proportion (Wilson 1927). `None` without trials.
pub fn wilson(successes: usize, trials: usize) -> Option<Interval> {
    if trials == 0 {
        return None;
    }
    // The 97.5 % point of the standard normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    let n = trials as f64;
    let value = successes as f64 / n;
    let scale = 1.0 + Z * Z / n;
    let centre = (value + Z * Z / (2.0 * n)) / scale;
    let reach = Z / scale * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(Interval { value, low: (centre - reach).max(0.0), high: (centre + reach).min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_as_published() {
        // Newcombe 1998, table I: 81/263 → .2553 to .3662, 0/20 → 0 to .1611.
        let interval = wilson(81, 263).unwrap();
        assert!((interval.low - 0.2553).abs() < 5e-5 && (interval.high - 0.3662).abs() < 5e-5);
        let none = wilson(0, 20).unwrap();
        assert!(none.low == 0.0 && (none.high - 0.1611).abs() < 5e-5);
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_theory_says() {
        // 400 values 0 or 1, half each: the mean's standard error is .5/√400 = .025.
        let values: Vec<f64> = (0..400).map(|row| f64::from(row % 2)).collect();
        let mean =
            |rows: &[usize]| Some(rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64);
        let rows: Vec<Vec<usize>> = (0..400).map(|row| vec![row]).collect();
        let interval = bootstrap(&rows, 2000, 3, mean).unwrap();
        assert_eq!(interval.value, 0.5);
        let width = (interval.high - interval.low) / (2.0 * 1.96 * 0.025);
        assert!((0.9..1.1).contains(&width), "{width}");
        assert_eq!(bootstrap(&rows, 2000, 3, mean), Some(interval));
        // The same values in 20 groups of equal rows: √20 times as wide.
        let groups: Vec<Vec<usize>> =
            (0..20).map(|g| (0..20).map(|n| 40 * (g / 2) + 2 * n + g % 2).collect()).collect();
        let wide = bootstrap(&groups, 2000, 3, mean).unwrap();
        let ratio = (wide.high - wide.low) / (interval.high - interval.low);
        assert!((3.8..5.2).contains(&ratio), "{ratio}");
    }
}
