//! 95 % confidence intervals: the bootstrap and Wilson's score interval; and metrics that carry one.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::quantiles::{Z, normal_cdf, student_t, wilson_bounds};

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

impl Interval {
    /// The interval within the range of its statistic: of few units, the bounds by Student's t may lie outside.
    pub fn within(self, low: f64, high: f64) -> Interval {
        Interval { low: self.low.clamp(low, high), high: self.high.clamp(low, high), ..self }
    }
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

/// Units below which the bootstrap gives way to the jackknife: its percentiles come from too few different draws.
const FEW_UNITS: usize = 10;

/// 95 % bootstrap interval of a statistic (Efron 1979): units (rows, or whole groups whose rows are dependent) are
/// drawn with replacement, `resamples` times.
///
/// `units` holds the rows of each unit. `statistic` takes the drawn rows, with repeats, and may have no value on some draws
/// (a class is missing), which are left out. `None` if it has no value on all rows, or on more than half of the draws. The
/// same seed gives the same interval on any number of threads.
///
/// The percentiles are expanded to the width of an interval by Student's t (Hesterberg 2015, arXiv 1411.5279, section 5.3), since plain
/// ones are too narrow by the square root of (n − 1) / n and more. Of fewer than ten units it is the interval by Student's t of the
/// delete-one jackknife (Tukey 1958); of a single one there is none.
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
    if units.len() < FEW_UNITS && resamples > 0 {
        return jackknife_each(units, &values, statistics);
    }
    // The normal tail that is as far out as Student's quantile, times the correction of the variance.
    let n = units.len() as f64;
    let tail = normal_cdf(-student_t(units.len().saturating_sub(1)) * (n / (n - 1.0)).sqrt());
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
            low: quantile(&drawn, tail),
            high: quantile(&drawn, 1.0 - tail),
        })
    };
    values.into_iter().enumerate().map(interval).collect()
}

/// Intervals by Student's t from the values without each unit; none of a single unit, or where a value is missing.
fn jackknife_each(
    units: &[Vec<usize>],
    values: &[Option<f64>],
    statistics: impl Fn(&[usize]) -> Vec<Option<f64>> + Sync,
) -> Vec<Option<Interval>> {
    let count = units.len() as f64;
    let without = |left_out: usize| {
        let kept = units.iter().enumerate().filter(|(unit, _)| *unit != left_out);
        statistics(&kept.flat_map(|(_, rows)| rows.iter().copied()).collect::<Vec<_>>())
    };
    let without: Vec<Vec<Option<f64>>> = (0..units.len()).into_par_iter().map(without).collect();
    let interval = |(index, value): (usize, &Option<f64>)| {
        let own: Option<Vec<f64>> = without.iter().map(|values| values[index]).collect();
        let (value, own) = (value.as_ref().copied()?, own.filter(|own| own.len() > 1)?);
        let mean = own.iter().sum::<f64>() / count;
        let squares: f64 = own.iter().map(|other| (other - mean).powi(2)).sum();
        let reach = student_t(units.len() - 1) * ((count - 1.0) / count * squares).sqrt();
        Some(Interval { value, low: value - reach, high: value + reach })
    };
    values.iter().enumerate().map(interval).collect()
}

/// Quantile by linear interpolation between the two nearest sorted values, numpy's default.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Wilson's 95 % score interval of a proportion (Wilson 1927). `None` without trials.
pub fn wilson(successes: usize, trials: usize) -> Option<Interval> {
    if trials == 0 {
        return None;
    }
    let value = successes as f64 / trials as f64;
    let (low, high) = wilson_bounds(value, trials as f64, Z);
    Some(Interval { value, low, high })
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
