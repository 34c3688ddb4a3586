//! 95 % intervals of shares and means over rows that come in groups: the rows of a held-out group are no independent draws.

use std::collections::BTreeMap;

use super::dataset::label;
use crate::config::defaults::RESAMPLES;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::stats::{Interval, bootstrap, wilson};

/// The rows of each group, by the dialogues' label.
///
/// # Errors
/// A dialogue without the label.
pub(super) fn groups<'a>(
    dialogues: impl IntoIterator<Item = &'a Dialogue>,
    group: &str,
) -> Result<Vec<Vec<usize>>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (row, dialogue) in dialogues.into_iter().enumerate() {
        groups.entry(label(dialogue, group)?).or_default().push(row);
    }
    Ok(groups.into_values().collect())
}

/// The mean of the rows' values, its interval over whole groups; over rows where there is one group only.
pub(super) fn mean(values: &[f64], groups: &[Vec<usize>], seed: u64) -> Option<Interval> {
    let rows: Vec<Vec<usize>> = (0..values.len()).map(|row| vec![row]).collect();
    let units = if groups.len() > 1 { groups } else { &rows };
    bootstrap(units, RESAMPLES, seed, |rows| {
        let sum: f64 = rows.iter().map(|&row| values[row]).sum();
        (!rows.is_empty()).then(|| sum / rows.len() as f64)
    })
}

/// The share of rows that hit: Wilson's interval over rows, extended to the one over groups where that reaches farther.
pub(super) fn share(hits: &[bool], groups: &[Vec<usize>], seed: u64) -> Option<Interval> {
    let own = wilson(hits.iter().filter(|hit| **hit).count(), hits.len())?;
    let values: Vec<f64> = hits.iter().map(|hit| f64::from(u8::from(*hit))).collect();
    let grouped = if groups.len() > 1 { mean(&values, groups, seed) } else { None };
    Some(grouped.map_or(own, |grouped| Interval {
        value: own.value,
        low: own.low.min(grouped.low).max(0.0),
        high: own.high.max(grouped.high).min(1.0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_differ_widen_the_interval_and_equal_ones_leave_it() {
        let groups: Vec<Vec<usize>> = (0..12).map(|group| (group * 20..group * 20 + 20).collect()).collect();
        // Half of each group, or all of half of the groups.
        let even: Vec<bool> = (0..240).map(|row| row % 2 == 0).collect();
        let whole: Vec<bool> = (0..240).map(|row| row / 20 % 2 == 0).collect();
        let plain = wilson(120, 240).unwrap();
        assert_eq!(share(&even, &groups, 1), Some(plain));
        let wide = share(&whole, &groups, 1).unwrap();
        assert!(wide.value == 0.5 && wide.high - wide.low > 3.0 * (plain.high - plain.low), "{wide:?}");
        // All or none: no group differs, and the rows still leave room.
        let all = share(&[true; 240], &groups, 1).unwrap();
        assert!(all.value == 1.0 && all.low < 1.0);
        assert_eq!(share(&[], &[], 1), None);
    }
}
