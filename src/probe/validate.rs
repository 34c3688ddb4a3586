//! Validation: a probe whose penalty and calibration were chosen by folds inside the fit part, scored on groups that
//! neither the fit nor the choice ever saw.
//! It knows nothing of which method is validated.

use ndarray::{Array2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::probe::Fit;
use crate::probe::calibration::Calibration;
use crate::probe::examples::{Examples, Targets};
use crate::probe::figures::figures;
use crate::probe::linear::{Link, Probe};
use crate::probe::split::{Split, folds};
use crate::stats;

/// How a probe is validated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Folds, by group, inside the fit part.
    pub folds: usize,
    /// Bootstrap resamples for the intervals; 0 for figures without.
    pub resamples: usize,
    /// Whether the bootstrap draws whole groups (wider, and honest about new topics) or single rows.
    pub by_group: bool,
    /// Bins of the expected calibration error.
    pub bins: usize,
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { folds: 5, resamples: 500, by_group: false, bins: 15, seed: 0 }
    }
}

/// What one penalty gave on the folds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Inverse penalty.
    pub strength: f64,
    /// Log loss out of fold, calibrated by a temperature: what the choice is made by.
    pub log_loss: f64,
    /// AUROC out of fold, for comparison.
    pub auroc: Option<f64>,
}

/// A probe with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Fitted on the whole fit part with the penalty chosen, calibrated out of fold, scores on the test part inside.
    pub probe: Probe,
    pub trials: Vec<Trial>,
    /// The rows that it was fitted on and tested on.
    pub split: Split,
    /// Calibrated probabilities `[fit rows, classes]`, each row's from a fold that neither fitted nor calibrated on it:
    /// what thresholds and strengths may be chosen by.
    pub validation: Array2<f64>,
    /// Calibrated probabilities `[test rows, classes]`.
    pub test: Array2<f64>,
}

/// Fits on `split.fit`, choosing the penalty by folds of its groups, calibrates on the logits out of fold, and scores
/// on `split.test`.
///
/// # Errors
/// If the fit part has fewer than two groups, or a fold's part can't be fitted on (a class without rows).
pub fn validate(method: &dyn Fit, examples: &Examples, split: &Split, plan: &Plan) -> Result<Validated> {
    let targets = examples.targets();
    let read = |fit: &[usize], read: &[usize], strengths: &[f64]| -> Result<Vec<Array2<f64>>> {
        let probes = method.path(&examples.select(fit), strengths)?;
        let features = examples.features().select(Axis(0), read);
        probes.iter().map(|probe| probe.logits(features.view())).collect()
    };
    let choice = choose(targets, &split.fit, plan, &method.strengths(), read)?;
    let mut probe = method.path(&examples.select(&split.fit), &[choice.strength])?.swap_remove(0);
    probe.calibration = choice.calibration;
    probe.held_out = split.held_out(targets);
    probe.seed = plan.seed;
    let test = probe.probabilities(examples.features().select(Axis(0), &split.test).view())?;
    probe.scores = figures(test.view(), &targets.select(&split.test), plan, "test");
    let out_of_fold = figures(choice.probabilities.view(), &targets.select(&split.fit), plan, "validation");
    probe.scores.extend(out_of_fold);
    Ok(Validated {
        probe,
        trials: choice.trials,
        split: split.clone(),
        validation: choice.probabilities,
        test,
    })
}

/// [`validate`] at each site, in parallel; results in the order of `sites`.
///
/// # Errors
/// The first site's that fails.
pub fn sweep(method: &dyn Fit, sites: &[Examples], split: &Split, plan: &Plan) -> Result<Vec<Validated>> {
    let validated = sites.par_iter().map(|examples| validate(method, examples, split, plan));
    validated.collect()
}

/// What the folds say.
pub(super) struct Choice {
    pub strength: f64,
    pub calibration: Calibration,
    pub trials: Vec<Trial>,
    /// Out of fold, calibrated by the other folds, a row for each fit row in its order.
    pub probabilities: Array2<f64>,
}

/// Chooses among `strengths` on the groups of `fit` alone. `read(rows to fit on, rows to read, strengths)` gives the
/// logits `[rows read, heads]` for each strength.
///
/// The least log loss after calibration by a temperature wins, because the calibrated probe is what will be used; of equals
/// the first, which has the larger penalty. How the winner is calibrated is chosen across the same folds.
pub(super) fn choose(
    targets: &Targets,
    fit: &[usize],
    plan: &Plan,
    strengths: &[f64],
    read: impl Fn(&[usize], &[usize], &[f64]) -> Result<Vec<Array2<f64>>> + Sync,
) -> Result<Choice> {
    let link = Link::of(targets.class_names.len());
    let heads = if link == Link::Binary { 1 } else { targets.class_names.len() };
    let splits = folds(targets, fit, plan.folds, plan.seed)?;
    let parts = splits.par_iter().map(|split| read(&split.fit, &split.test, strengths));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let classes: Vec<usize> = fit.iter().map(|&row| targets.classes[row]).collect();
    let mut best: Option<(f64, Array2<f64>)> = None;
    let mut trials = Vec::with_capacity(strengths.len());
    for (index, &strength) in strengths.iter().enumerate() {
        let mut logits = Array2::zeros((fit.len(), heads));
        for (split, part) in splits.iter().zip(&parts) {
            for (row, values) in split.test.iter().zip(part[index].rows()) {
                // The folds' rows are rows of `fit`, which is ascending.
                let place = fit.partition_point(|other| other < row);
                logits.row_mut(place).assign(&values);
            }
        }
        let calibration = Calibration::temperature(link, logits.view(), &classes);
        let probabilities = link.probabilities(calibration.apply(logits.clone()));
        let log_loss = stats::log_loss(probabilities.view(), &classes).unwrap_or(f64::INFINITY);
        trials.push(Trial { strength, log_loss, auroc: stats::auroc_macro(probabilities.view(), &classes) });
        if trials.iter().rev().skip(1).all(|trial| log_loss < trial.log_loss) {
            best = Some((strength, logits));
        }
    }
    let (strength, logits) = best.ok_or_else(|| {
        crate::error::Error::input("probe", "no strength to choose from", "at least one inverse penalty")
    })?;
    let places = |split: &Split| split.test.iter().map(|row| fit.partition_point(|other| other < row)).collect();
    let parts: Vec<Vec<usize>> = splits.iter().map(places).collect();
    let (calibration, probabilities) = Calibration::chosen(link, logits.view(), &classes, &parts);
    Ok(Choice { strength, calibration, trials, probabilities })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::control::shuffled;
    use crate::probe::examples::tests::examples;
    use crate::probe::{Logistic, Means};
    use crate::stats::Figure;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use rand_distr::StandardNormal;

    /// Three classes whose means lie `apart` deviations from the middle, in ten groups with an offset each.
    pub(crate) fn world(rows: usize, width: usize, apart: f32, seed: u64) -> Examples {
        let mut random = StdRng::seed_from_u64(seed);
        let classes: Vec<usize> = (0..rows).map(|row| row % 3).collect();
        let groups: Vec<usize> = (0..rows).map(|row| row / 3 % 10).collect();
        let features = Array2::from_shape_fn((rows, width), |(row, column)| {
            let own = if column == classes[row] { apart } else { 0.0 };
            let offset = if column == 3 + groups[row] % (width - 3) { 1.0 } else { 0.0 };
            own + offset + random.sample::<f32, _>(StandardNormal)
        });
        examples(features, &classes, Some(&groups))
    }

    fn score(validated: &Validated, name: &str, split: &str) -> Figure {
        let mut scores = validated.probe.scores.iter();
        scores.find(|s| s.name == name && s.split == split).unwrap().clone()
    }

    #[test]
    fn scores_what_was_held_out_near_what_theory_allows() {
        let examples = world(1500, 12, 2.0, 1);
        let split = Split::hold_out(examples.targets(), &["0001", "0004", "0007"]).unwrap();
        let validated = validate(&Logistic::default(), &examples, &split, &Plan::default()).unwrap();
        // The best rule for equal spheres at pairwise distance 2√2 picks the largest of three: right with probability
        // ∫ φ(x) Φ(x + 2)² dx = 0.8658 (scipy.integrate.quad).
        let accuracy = score(&validated, "accuracy", "test");
        assert!((accuracy.value - 0.8658).abs() < 0.045, "{accuracy:?}");
        assert!(accuracy.low.unwrap() < accuracy.value && accuracy.value < accuracy.high.unwrap());
        assert!(score(&validated, "ece", "test").value < 0.06);
        assert_eq!(validated.probe.held_out, ["0001", "0004", "0007"]);
        assert_eq!((validated.test.nrows(), validated.validation.nrows()), (450, 1050));
        // Shuffled labels tell nothing about what was held out.
        let control = shuffled(&Logistic::default(), &examples, &split, &Plan::default(), 8).unwrap();
        assert!((control.value - 0.5).abs() < 0.1, "{control:?}");
        let means = validate(&Means, &examples, &split, &Plan::default()).unwrap();
        assert!(
            (score(&means, "auroc", "test").value - score(&validated, "auroc", "test").value).abs() < 0.03
        );
        assert!(score(&means, "ece", "test").value < 0.08);
    }

    #[test]
    fn the_test_part_changes_nothing_but_the_scores() {
        let examples = world(300, 8, 1.5, 2);
        let split = Split::hold_out(examples.targets(), &["0000"]).unwrap();
        let plan = Plan { resamples: 20, ..Plan::default() };
        let before = validate(&Logistic::default(), &examples, &split, &plan).unwrap();
        let mut features = examples.features().clone();
        let mut targets = examples.targets().clone();
        for &row in &split.test {
            features.row_mut(row).fill(-9.0);
            targets.classes[row] = 0;
        }
        let other = Examples::new(examples.source.clone(), features, targets).unwrap();
        let after = validate(&Logistic::default(), &other, &split, &plan).unwrap();
        assert_eq!(
            (&before.probe.weight, &before.probe.calibration),
            (&after.probe.weight, &after.probe.calibration)
        );
        assert_eq!((before.trials, before.validation), (after.trials, after.validation));
    }

    #[test]
    fn noise_asks_for_the_strongest_penalty() {
        let examples = world(240, 30, 0.0, 3);
        let split = Split::hold_out(examples.targets(), &["0002"]).unwrap();
        let plan = Plan { resamples: 0, ..Plan::default() };
        let validated = validate(&Logistic::default(), &examples, &split, &plan).unwrap();
        assert_eq!(validated.probe.strength, 1e-3);
        assert!((score(&validated, "auroc", "validation").value - 0.5).abs() < 0.1);
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        let examples = world(300, 6, 1.0, 4);
        let split = Split::hold_out_share(examples.targets(), 3, 1).unwrap();
        let run = || {
            sweep(&Logistic::default(), &[examples.clone(), examples.clone()], &split, &Plan::default())
                .unwrap()
        };
        let (one, two) = (run(), run());
        assert_eq!(one, two);
        assert_eq!(one[0], one[1]);
    }
}
