//! Grouped splits and folds: whole groups (topics, say) are held out, never single rows of them.

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

use crate::error::{Error, Result};
use crate::probe::targets::Targets;

/// Rows to fit on and rows to test on; no group is on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Rows to fit on, ascending.
    pub fit: Vec<usize>,
    /// Rows to test on, ascending.
    pub test: Vec<usize>,
}

impl Split {
    /// Holds out the groups with these names.
    ///
    /// # Errors
    /// An unknown group; no row left on one side.
    pub fn hold_out(targets: &Targets, names: &[&str]) -> Result<Split> {
        let unknown = names.iter().find(|name| !targets.group_names.iter().any(|known| known == *name));
        if let Some(name) = unknown {
            let expected = format!("one of {}", targets.group_names.join(", "));
            return Err(Error::input("split", format!("no group {name:?}"), expected));
        }
        let is_held_out = |group: usize| names.contains(&targets.group_names[group].as_str());
        let rows: Vec<usize> = (0..targets.rows()).collect();
        Split::by(targets, &rows, is_held_out)
    }

    /// All rows to fit on and none to test, so that scores are out-of-fold only.
    pub fn whole(targets: &Targets) -> Split {
        Split { fit: (0..targets.rows()).collect(), test: Vec::new() }
    }

    /// The split of a probe's main scores: `test`, or `validation` (out of fold) where nothing is held out.
    pub fn scored_on(&self) -> &'static str {
        if self.test.is_empty() { "validation" } else { "test" }
    }

    /// Holds out about one in `parts` of the rows: whole groups, stratified by class as [`folds`] does.
    ///
    /// # Errors
    /// Fewer than two groups.
    pub fn hold_out_share(targets: &Targets, parts: usize, seed: u64) -> Result<Split> {
        let rows: Vec<usize> = (0..targets.rows()).collect();
        Ok(folds(targets, &rows, parts, seed)?.swap_remove(0))
    }

    /// Names of the groups on the test side, sorted.
    pub fn held_out(&self, targets: &Targets) -> Vec<String> {
        let mut groups: Vec<usize> = self.test.iter().map(|&row| targets.groups[row]).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.into_iter().map(|group| targets.group_names[group].clone()).collect()
    }

    fn by(targets: &Targets, rows: &[usize], is_held_out: impl Fn(usize) -> bool) -> Result<Split> {
        let (test, fit): (Vec<usize>, Vec<usize>) =
            rows.iter().partition(|&&row| is_held_out(targets.groups[row]));
        if test.is_empty() || fit.is_empty() {
            let found = format!("{} rows to fit on and {} held out", fit.len(), test.len());
            return Err(Error::input("split", found, "rows on both sides"));
        }
        Ok(Split { fit, test })
    }
}

/// Stratified grouped folds: splits `rows` into folds of whole groups, each held out once; fewer folds where there are
/// fewer groups. Greedy, as scikit-learn's `StratifiedGroupKFold`: each group, from the largest (ties shuffled by the seed),
/// goes to the fold where it keeps the class counts most even.
///
/// # Errors
/// Fewer than two folds; rows of fewer than two groups, or fewer rows than folds.
pub fn folds(targets: &Targets, rows: &[usize], folds: usize, seed: u64) -> Result<Vec<Split>> {
    // Rows of each class in each group.
    let mut counts = vec![vec![0usize; targets.class_names.len()]; targets.group_names.len()];
    rows.iter().for_each(|&row| counts[targets.groups[row]][targets.classes[row]] += 1);
    let sizes: Vec<usize> = counts.iter().map(|of| of.iter().sum()).collect();
    let mut groups: Vec<usize> = (0..counts.len()).filter(|&group| sizes[group] > 0).collect();
    if groups.len() < 2 || folds < 2 {
        let found = format!("{} folds of {} groups", folds, groups.len());
        return Err(Error::input("split", found, "two folds and two groups, or more"));
    }
    if rows.len() < folds {
        let expected = format!("{folds} rows or more, or fewer folds");
        return Err(Error::input("split", format!("{folds} folds of {} rows", rows.len()), expected));
    }
    groups.shuffle(&mut StdRng::seed_from_u64(seed));
    groups.sort_by_key(|&group| std::cmp::Reverse(sizes[group]));
    let folds = folds.min(groups.len());
    // The group's size counts as one more class: an empty fold is then always the cheapest, so that none stays empty,
    // and fold sizes stay even where the classes leave a choice.
    counts.iter_mut().for_each(|of| of.push(of.iter().sum()));
    let totals = |class: usize| counts.iter().map(|of| of[class]).sum::<usize>().max(1) as f64;
    let totals: Vec<f64> = (0..=targets.class_names.len()).map(totals).collect();
    let mut held = vec![vec![0usize; totals.len()]; folds];
    let mut fold_of = vec![0; counts.len()];
    for group in groups {
        // Adding c rows to a fold that has h of them raises the sum of squares by c² + 2hc: the term that depends on
        // the fold, as a share of the class.
        let cost = |fold: usize| -> f64 {
            let pairs = held[fold].iter().zip(&counts[group]).zip(&totals);
            pairs.map(|((&h, &c), total)| h as f64 * c as f64 / (total * total)).sum()
        };
        let best = (0..folds).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(0);
        held[best].iter_mut().zip(&counts[group]).for_each(|(h, c)| *h += c);
        fold_of[group] = best;
    }
    (0..folds).map(|fold| Split::by(targets, rows, |group| fold_of[group] == fold)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn targets(rows: &[(usize, usize)]) -> Targets {
        let labels: Vec<String> = rows.iter().map(|row| row.0.to_string()).collect();
        let groups: Vec<String> = rows.iter().map(|row| row.1.to_string()).collect();
        Targets::new(&labels, &groups, &[]).unwrap()
    }

    #[test]
    fn everyday_groups_of_one_class_are_spread() {
        // Twelve groups: every third holds class 0 only, the others both.
        let rows: Vec<(usize, usize)> =
            (0..240).map(|row| (row / 12 % 2 * usize::from(row % 3 != 0), row % 12)).collect();
        for split in folds(&targets(&rows), &(0..240).collect::<Vec<_>>(), 4, 1).unwrap() {
            let share = |rows: &[usize], all: &Targets| {
                rows.iter().map(|&row| all.classes[row]).sum::<usize>() as f64 / rows.len() as f64
            };
            let all = targets(&rows);
            assert!((share(&split.test, &all) - share(&split.fit, &all)).abs() < 0.05);
            assert_eq!(split.test.len(), 60);
        }
    }

    #[test]
    fn holds_out_by_name_and_rejects_what_is_not_there() {
        let targets = targets(&[(0, 7), (1, 8), (1, 7), (0, 9)]);
        let split = Split::hold_out(&targets, &["7"]).unwrap();
        assert_eq!((split.fit.clone(), split.test.clone()), (vec![1, 3], vec![0, 2]));
        assert_eq!(split.held_out(&targets), ["7"]);
        let error = |names: &[&str]| Split::hold_out(&targets, names).unwrap_err().to_string();
        assert_eq!(error(&["5"]), "split: no group \"5\"; expected one of 7, 8, 9");
        assert!(error(&["7", "8", "9"]).contains("0 rows to fit on"));
        assert!(folds(&targets, &[0, 2], 5, 0).is_err());
    }

    proptest! {
        #[test]
        fn each_row_is_held_out_once_and_no_group_is_cut(
            rows in prop::collection::vec((0usize..3, 0usize..9), 2..80), count in 2usize..7, seed: u64,
        ) {
            let targets = targets(&rows);
            let all: Vec<usize> = (0..rows.len()).collect();
            prop_assume!(targets.group_names.len() > 1 && rows.len() >= count);
            let splits = folds(&targets, &all, count, seed).unwrap();
            let mut held: Vec<usize> = splits.iter().flat_map(|split| split.test.clone()).collect();
            held.sort_unstable();
            prop_assert_eq!(held, all);
            for split in splits {
                let held = split.held_out(&targets);
                prop_assert!(split.fit.iter().all(|&row| !held.contains(&rows[row].1.to_string())));
            }
        }
    }
}
