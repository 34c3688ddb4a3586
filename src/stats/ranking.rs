//! Ranking metrics, which need no threshold: area under the ROC curve and average precision.

use ndarray::ArrayView2;

use super::linearised::Linearised;

/// Area under the ROC curve: the probability that a positive scores above a negative, a tie counting one half
/// (Hanley & McNeil 1982). `None` where one of the two classes is missing or a score is NaN.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    Ranking::new(scores, positive)?.auroc(&vec![1; scores.len()])
}

/// The ROC curve: `[false positive rate, true positive rate]` from (0, 0) to (1, 1), a step for each distinct score from the highest
/// on. `None` where one of the two classes is missing or a score is NaN.
pub fn roc(scores: &[f64], positive: &[bool]) -> Option<Vec<[f64; 2]>> {
    let ranking = Ranking::new(scores, positive)?;
    let all = positive.iter().filter(|&&is| is).count();
    let totals = [positive.len() - all, all];
    if totals.contains(&0) {
        return None;
    }
    let mut counts = [0usize; 2];
    let mut points = vec![[0.0, 0.0]];
    for tie in &ranking.ties {
        tie.iter().for_each(|&(_, is)| counts[usize::from(is)] += 1);
        points.push([0, 1].map(|side| counts[side] as f64 / totals[side] as f64));
    }
    Some(points)
}

/// Average precision: Σ precision × increase in recall over the ranking, ties being one step, without interpolation (as in
/// scikit-learn). `None` where no row is positive or a score is NaN.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    Ranking::new(scores, positive)?.average_precision(&vec![1; scores.len()])
}

/// Macro average of the one-vs-rest AUROC over classes, of scores `[rows, classes]` and true columns `[rows]`. Classes of no
/// row, or of every row, are left out; `None` if none is left.
pub fn auroc_macro(scores: ArrayView2<f64>, classes: &[usize]) -> Option<f64> {
    let areas: Vec<f64> = (0..scores.ncols())
        .filter_map(|class| {
            let positive: Vec<bool> = classes.iter().map(|&is| is == class).collect();
            auroc(&scores.column(class).to_vec(), &positive)
        })
        .collect();
    (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
}

/// Rows sorted by score once, for metrics under many sets of counts, as in the bootstrap.
pub struct Ranking {
    /// Groups of tied rows by descending score, each row with whether it is positive.
    ties: Vec<Vec<(usize, bool)>>,
}

impl Ranking {
    /// Ranks rows by score. `None` where `positive` has another length, or a score is NaN.
    pub fn new(scores: &[f64], positive: &[bool]) -> Option<Ranking> {
        if scores.len() != positive.len() || scores.iter().any(|score| score.is_nan()) {
            return None;
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // `partial_cmp` ties 0.0 and -0.0.
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(std::cmp::Ordering::Equal));
        let ties = order.chunk_by(|&a, &b| scores[a] == scores[b]);
        let ties = ties.map(|tie| tie.iter().map(|&row| (row, positive[row])).collect());
        Some(Ranking { ties: ties.collect() })
    }

    /// [`auroc`] with each row repeated `counts` times.
    pub fn auroc(&self, counts: &[u32]) -> Option<f64> {
        // Down the ranking: a negative ranks below the positives above its tie, and below half of those in it.
        let (mut above, mut negatives, mut won) = (0.0, 0.0, 0.0);
        for tie in &self.ties {
            let (hits, misses) = sums(tie, counts);
            won += misses * (above + hits / 2.0);
            above += hits;
            negatives += misses;
        }
        (above > 0.0 && negatives > 0.0).then(|| won / (above * negatives))
    }

    /// [`average_precision`] with each row repeated `counts` times.
    pub fn average_precision(&self, counts: &[u32]) -> Option<f64> {
        let (mut seen, mut found, mut sum) = (0.0, 0.0, 0.0);
        for tie in &self.ties {
            let (hits, misses) = sums(tie, counts);
            seen += hits + misses;
            found += hits;
            if hits > 0.0 {
                sum += hits * found / seen;
            }
        }
        (found > 0.0).then(|| sum / found)
    }
}

impl Ranking {
    /// [`auroc`] with the influence of every row, from which its variance follows (DeLong et al. 1988). Its floor is the variance
    /// of Hanley & McNeil 1982 (exponential scores), the rarer class taken for the one that varies more.
    pub fn linearised_auroc(&self) -> Option<Linearised> {
        let rows = self.ties.iter().map(Vec::len).sum();
        let counts = vec![1; rows];
        let value = self.auroc(&counts)?;
        let (positives, negatives) = sums(&self.ties.concat(), &counts);
        let mut influence = vec![0.0; rows];
        let (mut hits_above, mut misses_above) = (0.0, 0.0);
        for tie in &self.ties {
            let (hits, misses) = sums(tie, &counts);
            let won = (negatives - misses_above - misses / 2.0) / negatives;
            let lost_to = (hits_above + hits / 2.0) / positives;
            for &(row, is) in tie {
                influence[row] = if is { (won - value) / positives } else { (lost_to - value) / negatives };
            }
            hits_above += hits;
            misses_above += misses;
        }
        let (rarer, commoner) = (positives.min(negatives), positives.max(negatives));
        let far = value.max(1.0 - value);
        // The two parts of the variance are shared out to the rows that they come from.
        let of_rarer = (1.0 + (commoner - 1.0) * far / (1.0 + far)) / (rarer * commoner);
        let of_commoner = (rarer - 1.0) * (1.0 - far) / (2.0 - far) / (rarer * commoner);
        let (rare, common) = ((of_rarer / rarer).sqrt(), (of_commoner / commoner).sqrt());
        let mut floor = vec![common; rows];
        for &(row, is) in self.ties.iter().flatten() {
            if is == (positives <= negatives) {
                floor[row] = rare;
            }
        }
        Some(Linearised { value, influence, floor })
    }

    /// [`average_precision`] with the influence of every row, its derivative by the row's weight. Its floor is the
    /// variance of a share among the positives (Boyd et al. 2013).
    pub fn linearised_average_precision(&self) -> Option<Linearised> {
        let rows = self.ties.iter().map(Vec::len).sum();
        let counts = vec![1; rows];
        let value = self.average_precision(&counts)?;
        // Positives, and positives and rows down to the end of each tie.
        let mut ends = Vec::with_capacity(self.ties.len());
        let (mut found, mut seen) = (0.0, 0.0);
        for tie in &self.ties {
            let (hits, misses) = sums(tie, &counts);
            found += hits;
            seen += hits + misses;
            ends.push((hits, found, seen));
        }
        let mut influence = vec![0.0; rows];
        // Sums from the tie down to the last: what a positive there adds, and what any row takes.
        let (mut adds, mut takes) = (0.0, 0.0);
        let mut floor = vec![0.0; rows];
        for (tie, (hits, through, seen)) in self.ties.iter().zip(&ends).rev() {
            adds += hits / seen;
            takes += hits * through / (seen * seen);
            for &(row, is) in tie {
                let own = if is { through / seen - value + adds } else { 0.0 };
                influence[row] = (own - takes) / found;
                floor[row] = if is { 1.0 / found } else { 0.0 };
            }
        }
        Some(Linearised { value, influence, floor })
    }
}

/// Positives and negatives of a tie.
fn sums(tie: &[(usize, bool)], counts: &[u32]) -> (f64, f64) {
    tie.iter().fold((0.0, 0.0), |(hits, misses), &(row, is)| {
        let count = f64::from(counts[row]);
        if is { (hits + count, misses) } else { (hits, misses + count) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn areas_worked_out_by_hand() {
        // Pairs (positive, negative): .8 > .1, .8 > .4, .35 > .1, .35 < .4: three of four.
        let (scores, positive) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
        assert_eq!(auroc(&scores, &positive), Some(0.75));
        // By hand: 1/2 · 1/1 + 1/2 · 2/3.
        let precision = average_precision(&scores, &positive).unwrap();
        assert!((precision - 5.0 / 6.0).abs() < 1e-15);
        // All tied: chance, and precision is the base rate.
        assert_eq!(auroc(&[0.0, -0.0, 0.0, 0.0], &[true, false, true, false]), Some(0.5));
        assert_eq!(average_precision(&[0.5; 4], &[true, false, false, false]), Some(0.25));
        // One tie across the classes: 2 > 1, 1 = 1, both positives above 0.
        assert_eq!(auroc(&[2.0, 1.0, 1.0, 0.0], &[true, true, false, false]), Some(0.875));
    }

    #[test]
    fn no_area_without_both_classes_or_with_nan() {
        assert_eq!(auroc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auroc(&[0.1, f64::NAN], &[true, false]), None);
        assert_eq!(average_precision(&[0.1], &[false]), None);
    }

    #[test]
    fn several_classes_as_scikit_learn_has_them() {
        // roc_auc_score(y, p, multi_class="ovr", average="macro") of scikit-learn 1.9.1
        let scores = array![
            [0.6, 0.3, 0.1],
            [0.2, 0.5, 0.3],
            [0.3, 0.4, 0.3],
            [0.1, 0.2, 0.7],
            [0.5, 0.1, 0.4],
            [0.4, 0.35, 0.25]
        ];
        let area = auroc_macro(scores.view(), &[0, 1, 2, 2, 0, 1]).unwrap();
        assert!((area - 0.895_833_333_333_333_4).abs() < 1e-12, "{area}");
    }

    #[test]
    fn influences_are_the_derivatives_by_the_weight_of_a_row() {
        let scores = [0.9, 0.8, 0.8, 0.6, 0.5, 0.5, 0.3, 0.1];
        let positive = [true, true, false, true, false, true, false, false];
        let ranking = Ranking::new(&scores, &positive).unwrap();
        // Many copies of every row, and one more of one of them.
        let step = |area: &dyn Fn(&[u32]) -> Option<f64>, row: usize| {
            let mut counts = vec![100_000; 8];
            let before = area(&counts).unwrap();
            counts[row] += 1;
            (area(&counts).unwrap() - before) * 1e5
        };
        let (area, precision) =
            (ranking.linearised_auroc().unwrap(), ranking.linearised_average_precision().unwrap());
        for row in 0..8 {
            assert!((step(&|counts| ranking.auroc(counts), row) - area.influence[row]).abs() < 1e-4);
            let by_hand = step(&|counts| ranking.average_precision(counts), row);
            assert!((by_hand - precision.influence[row]).abs() < 1e-4, "{row}: {by_hand}");
        }
        // Weights on all rows alike change nothing.
        let sum: f64 = area.influence.iter().sum();
        assert!(sum.abs() < 1e-12 && precision.influence.iter().sum::<f64>().abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn a_row_with_count_two_equals_the_row_twice(
            rows in prop::collection::vec((0i32..6, any::<bool>(), 0u32..4), 1..40),
        ) {
            let scores: Vec<f64> = rows.iter().map(|row| f64::from(row.0)).collect();
            let positive: Vec<bool> = rows.iter().map(|row| row.1).collect();
            let counts: Vec<u32> = rows.iter().map(|row| row.2).collect();
            let repeated = || rows.iter().flat_map(|row| std::iter::repeat_n(row, row.2 as usize));
            let scores_again: Vec<f64> = repeated().map(|row| f64::from(row.0)).collect();
            let positive_again: Vec<bool> = repeated().map(|row| row.1).collect();
            let ranking = Ranking::new(&scores, &positive).unwrap();
            let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-12,
                (a, b) => a == b,
            };
            prop_assert!(near(ranking.auroc(&counts), auroc(&scores_again, &positive_again)));
            let precision = average_precision(&scores_again, &positive_again);
            prop_assert!(near(ranking.average_precision(&counts), precision));
        }

        #[test]
        fn the_area_is_invariant_under_increasing_maps(
            rows in prop::collection::vec((-20i32..20, any::<bool>()), 2..60),
        ) {
            let scores: Vec<f64> = rows.iter().map(|(score, _)| f64::from(*score) / 4.0).collect();
            let positive: Vec<bool> = rows.iter().map(|row| row.1).collect();
            let mapped: Vec<f64> = scores.iter().map(|score| score.exp() - 7.0).collect();
            prop_assert_eq!(auroc(&scores, &positive), auroc(&mapped, &positive));
            let turned: Vec<f64> = scores.iter().map(|score| -score).collect();
            if let (Some(area), Some(other)) = (auroc(&scores, &positive), auroc(&turned, &positive)) {
                prop_assert!((area + other - 1.0).abs() < 1e-12);
            }
        }
    }
}
