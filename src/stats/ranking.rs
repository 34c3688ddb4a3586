//! How well scores rank the positives above the negatives.
//! It knows nothing of thresholds: these figures need none.

use ndarray::ArrayView2;

/// Area under the ROC curve: the probability that a positive scores above a negative, a tie counting one half
/// (Hanley & McNeil 1982). `None` where one of the two classes is missing or a score is NaN.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let order = descending(scores, positive)?;
    let positives = positive.iter().filter(|&&is| is).count();
    let negatives = scores.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    // Walk down the ranking; each positive of a tie beats the negatives below the tie and half of those in it.
    let (mut below, mut won) = (negatives, 0.0);
    for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let hits = tie.iter().filter(|&&row| positive[row]).count();
        let misses = tie.len() - hits;
        below -= misses;
        won += hits as f64 * (below as f64 + misses as f64 / 2.0);
    }
    Some(won / (positives as f64 * negatives as f64))
}

/// Mean over the classes of the AUROC of each class against the rest (one-vs-rest, macro). `scores` is
/// `[rows, classes]`, `classes` the true column of each row. Classes that no row has, or every row, are left out;
/// `None` if none is left.
pub fn auroc_macro(scores: ArrayView2<f64>, classes: &[usize]) -> Option<f64> {
    let areas: Vec<f64> = (0..scores.ncols())
        .filter_map(|class| {
            let positive: Vec<bool> = classes.iter().map(|&is| is == class).collect();
            auroc(&scores.column(class).to_vec(), &positive)
        })
        .collect();
    (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
}

/// Average precision: the sum over the ranking's steps of precision × gain in recall, ties being one step
/// (as scikit-learn has it: no interpolation). `None` where no row is positive or a score is NaN.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let order = descending(scores, positive)?;
    let positives = positive.iter().filter(|&&is| is).count();
    if positives == 0 {
        return None;
    }
    let (mut seen, mut found, mut sum) = (0, 0, 0.0);
    for tie in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let hits = tie.iter().filter(|&&row| positive[row]).count();
        seen += tie.len();
        found += hits;
        sum += hits as f64 * found as f64 / seen as f64;
    }
    Some(sum / positives as f64)
}

fn descending(scores: &[f64], positive: &[bool]) -> Option<Vec<usize>> {
    if scores.len() != positive.len() || scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // `partial_cmp` through the reversed pair: 0.0 and -0.0 are one tie, which `total_cmp` would split.
    order.sort_unstable_by(|&a, &b| {
        scores[b]
            .partial_cmp(&scores[a])
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    Some(order)
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
        assert_eq!(
            auroc(&[0.0, -0.0, 0.0, 0.0], &[true, false, true, false]),
            Some(0.5)
        );
        assert_eq!(
            average_precision(&[0.5; 4], &[true, false, false, false]),
            Some(0.25)
        );
        // One tie across the classes: 2 > 1, 1 = 1, both positives above 0.
        assert_eq!(
            auroc(&[2.0, 1.0, 1.0, 0.0], &[true, true, false, false]),
            Some(0.875)
        );
    }

    #[test]
    fn what_has_no_area() {
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

    proptest! {
        #[test]
        fn any_rising_map_leaves_the_area_alone(
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
