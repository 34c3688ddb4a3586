//! Agreement of two raters: the share of equal labels, and Cohen's kappa.

/// Share of rows on which two raters give the same class. `None` without rows.
pub fn agreement(first: &[usize], second: &[usize]) -> Option<f64> {
    let equal = first.iter().zip(second).filter(|(a, b)| a == b).count();
    (!first.is_empty()).then(|| equal as f64 / first.len() as f64)
}

/// Cohen's kappa of two raters' classes (Cohen 1960): the agreement beyond that of independent raters with the same class
/// frequencies, as a share of what is possible. `None` without rows, and where both give one class alone.
pub fn kappa(first: &[usize], second: &[usize]) -> Option<f64> {
    let observed = agreement(first, second)?;
    let n = first.len() as f64;
    let classes = first.iter().chain(second).max()? + 1;
    let share = |rater: &[usize], class| rater.iter().filter(|&&other| other == class).count() as f64 / n;
    let expected: f64 = (0..classes).map(|class| share(first, class) * share(second, class)).sum();
    (expected < 1.0).then(|| (observed - expected) / (1.0 - expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fleiss, Statistical Methods for Rates and Proportions, table 18.1: 100 rows, kappa 0.676.
    #[test]
    fn kappa_as_published() {
        let counts = [
            (0, 0, 75),
            (0, 1, 1),
            (0, 2, 4),
            (1, 0, 5),
            (1, 1, 4),
            (1, 2, 1),
            (2, 0, 0),
            (2, 1, 0),
            (2, 2, 10),
        ];
        let rows = counts.iter().flat_map(|&(a, b, n)| std::iter::repeat_n((a, b), n));
        let (first, second): (Vec<usize>, Vec<usize>) = rows.unzip();
        assert_eq!(agreement(&first, &second), Some(0.89));
        assert!((kappa(&first, &second).unwrap() - 0.676).abs() < 5e-4);
        assert_eq!(kappa(&[0, 0], &[0, 0]), None);
        assert_eq!(kappa(&[], &[]), None);
    }
}
