//! Linearised estimates: a value with the influence of every row on it, from which intervals follow that hold for clustered rows and
//! at the edge of a scale, and differences of two estimates on the same rows.

use super::interval::Interval;
use super::quantiles::{student_t, wilson_bounds};

/// Correlation inside a group that is assumed where a complete ranking leaves nothing to estimate it from.
const ASSUMED_CORRELATION: f64 = 0.05;

/// The units that are independent: groups of rows, or single rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Units {
    /// `[rows]`, the number of each row's unit.
    of: Vec<usize>,
    count: usize,
    /// Whether all rows are of one group.
    one_group: bool,
}

impl Units {
    /// Every row a unit of its own.
    pub fn rows(rows: usize) -> Units {
        Units { of: (0..rows).collect(), count: rows, one_group: false }
    }

    /// Units by the group of each row. One group alone says nothing about other groups: its rows are the units then.
    pub fn groups(groups: &[usize]) -> Units {
        let mut names = groups.to_vec();
        names.sort_unstable();
        names.dedup();
        if names.len() < 2 {
            return Units { one_group: true, ..Units::rows(groups.len()) };
        }
        let of = groups.iter().map(|group| names.partition_point(|name| name < group)).collect();
        Units { of, count: names.len(), one_group: false }
    }

    /// Number of units.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether all rows are of one group, so that the rows themselves are the units.
    pub fn is_one_group(&self) -> bool {
        self.one_group
    }

    /// The rows of each unit.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.count];
        self.of.iter().enumerate().for_each(|(row, &unit)| members[unit].push(row));
        members
    }

    /// The 97.5 % point of Student's t with one degree of freedom fewer than units.
    pub fn quantile(&self) -> f64 {
        student_t(self.count.saturating_sub(1))
    }

    /// Sums over the rows of each unit.
    pub fn sums(&self, rows: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.count];
        self.of.iter().zip(rows).for_each(|(&unit, value)| sums[unit] += value);
        sums
    }

    /// Covariance of two estimates with these influences `[rows]`, units being independent (the sandwich estimate; for AUROC that of
    /// DeLong et al. 1988, and of Obuchowski 1997 where units are groups).
    pub fn covariance(&self, a: &[f64], b: &[f64]) -> f64 {
        let n = self.count as f64;
        let products = self.sums(a).into_iter().zip(self.sums(b)).map(|(a, b)| a * b);
        products.sum::<f64>() * n / (n - 1.0).max(1.0)
    }
}

/// An estimate between 0 and 1 with the influence of every row: the estimate moves by about `influence[row] · w` where the row's
/// weight grows by `w`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linearised {
    /// The estimate.
    pub value: f64,
    /// `[rows]`; they sum to 0.
    pub influence: Vec<f64>,
    /// `[rows]`, standard deviations: their squares sum to the least variance that so many rows allow, as a share of
    /// value · (1 − value), which is one over a number of trials.
    pub floor: Vec<f64>,
}

impl Linearised {
    /// The mean of values `[rows]`, each between 0 and 1. `None` without rows.
    pub fn mean(values: &[f64]) -> Option<Linearised> {
        let n = values.len() as f64;
        let value = values.iter().sum::<f64>() / n;
        let influence = values.iter().map(|own| (own - value) / n).collect();
        (!values.is_empty()).then(|| Linearised { value, influence, floor: vec![1.0 / n; values.len()] })
    }

    /// The mean of estimates of the same rows, such as one a class. `None` of none.
    pub fn average(estimates: &[Linearised]) -> Option<Linearised> {
        let count = estimates.len() as f64;
        let rows = estimates.first()?.influence.len();
        let (mut influence, mut floor) = (vec![0.0; rows], vec![0.0; rows]);
        for estimate in estimates {
            influence.iter_mut().zip(&estimate.influence).for_each(|(sum, own)| *sum += own / count);
            floor.iter_mut().zip(&estimate.floor).for_each(|(sum, own)| *sum += own * own / count);
        }
        floor.iter_mut().for_each(|square| *square = square.sqrt());
        let value = estimates.iter().map(|estimate| estimate.value).sum::<f64>() / count;
        Some(Linearised { value, influence, floor })
    }

    /// The mean of estimates on disjoint parts of `rows` rows, such as folds: each comes with its rows. `None` of none.
    pub fn average_of_parts(parts: &[(Linearised, &[usize])], rows: usize) -> Option<Linearised> {
        let spread = |(estimate, own): &(Linearised, &[usize])| {
            let over_all = |values: &[f64]| {
                let mut all = vec![0.0; rows];
                own.iter().zip(values).for_each(|(&row, value)| all[row] = *value);
                all
            };
            Linearised {
                value: estimate.value,
                influence: over_all(&estimate.influence),
                floor: over_all(&estimate.floor),
            }
        };
        let mut mean = Linearised::average(&parts.iter().map(spread).collect::<Vec<_>>())?;
        // Parts are independent of each other.
        let count = (parts.len() as f64).sqrt();
        mean.floor.iter_mut().for_each(|own| *own /= count);
        Some(mean)
    }

    /// The 95 % interval: Wilson's score interval (Wilson 1927) with the effective number of trials that the variance allows and
    /// Student's t, as Korn & Graubard 1998 do for proportions of clustered samples. It has a width at 0 and 1 as well.
    ///
    /// The number of trials is at most one over the variance of `floor`: near 0 and 1 there is little to estimate a variance from, and a
    /// correlation of 0.05 inside a group is assumed there (a design effect as Kish 1965 has it, of rows weighted by `floor`: for
    /// AUROC the rows of the rarer class in a group count most).
    pub fn interval(&self, units: &Units) -> Interval {
        let spread = self.value * (1.0 - self.value);
        let correlation = ASSUMED_CORRELATION * (2.0 * self.value - 1.0).powi(2);
        let squares = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        let (alone, together) = (squares(&self.floor), squares(&units.sums(&self.floor)));
        let most = 1.0 / (alone + (together - alone) * correlation);
        let variance = units.covariance(&self.influence, &self.influence);
        let trials = if variance > 0.0 && spread > 0.0 { most.min(spread / variance) } else { most };
        let (low, high) = wilson_bounds(self.value, trials, units.quantile());
        Interval { value: self.value, low, high }
    }

    /// This estimate less another of the same rows, with a 95 % interval of the paired difference.
    ///
    /// The variance is that of the difference of the influences. What the two intervals have beyond their own variances (at the edge
    /// of the scale, where rows show no variance) is added to it as for independent estimates (Newcombe 1998), as far as the two are
    /// uncorrelated: two probes that rank every row alike differ by 0 for certain, two that make no error do not.
    pub fn minus(&self, other: &Linearised, units: &Units) -> Interval {
        self.minus_correlated(other, units, 0.0)
    }

    /// As [`Linearised::minus`], where the estimates are known to be correlated by `known` (from 0 to 1) at least, as those of one
    /// probe on two readings of the same rows are: it counts where the rows' influences show no variance.
    pub fn minus_correlated(&self, other: &Linearised, units: &Units, known: f64) -> Interval {
        let (a, b) = (self.interval(units), other.interval(units));
        let covariance = |a: &Linearised, b: &Linearised| units.covariance(&a.influence, &b.influence);
        let (own, others, shared) =
            (covariance(self, self), covariance(other, other), covariance(self, other));
        let scale = (own * others).sqrt();
        let correlation = match scale > 0.0 {
            // Rounding must not leave a probe a difference to itself.
            true if self.influence == other.influence => 1.0,
            true => (shared / scale).clamp(-1.0, 1.0).abs(),
            false => 0.0,
        };
        let correlation = correlation.max(known.clamp(0.0, 1.0));
        let square = units.quantile().powi(2);
        let reach = |a: f64, b: f64| {
            let beyond = (a * a + b * b - square * (own + others)).max(0.0);
            (square * (own + others - 2.0 * shared).max(0.0) + beyond * (1.0 - correlation)).sqrt()
        };
        let value = self.value - other.value;
        let low = value - reach(a.value - a.low, b.high - b.value);
        let high = value + reach(a.high - a.value, b.value - b.low);
        Interval { value, low: low.max(-1.0), high: high.min(1.0) }
    }
}
