//! Validation: a probe whose penalty and calibration were chosen by folds inside the fit part, scored on groups that
//! neither the fit nor the choice ever saw.
//! It knows nothing of which method is validated.

use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::calibration::Calibration;
use crate::probe::examples::{Examples, Targets};
use crate::probe::metrics::figures;
use crate::probe::probe::{Link, Probe};
use crate::probe::split::{Split, folds};
use crate::probe::{Fit, Reading};
use crate::stats::Metric;

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
/// on `split.test`. All folds and strengths are one fit, in which the test rows are only read.
///
/// # Errors
/// If the fit part has fewer than two groups or fewer rows than folds, or a fold's part can't be fitted on (a class
/// without rows).
pub fn validate(method: &dyn Fit, examples: Examples, split: &Split, plan: &Plan) -> Result<Validated> {
    let targets = examples.targets().clone();
    let place = examples.place();
    let folds = folds(&targets, &split.fit, plan.folds, plan.seed)?;
    let splits: Vec<Split> = folds.iter().chain([split]).cloned().collect();
    let strengths = method.strengths();
    let mut readings = method.fit(examples, &splits, &strengths)?;
    let mut whole = readings.pop().unwrap_or_default();
    let logits = readings.into_iter().map(|fold| fold.into_iter().map(|reading| reading.logits).collect());
    let choice = choose(&targets, &split.fit, plan, &strengths, &folds, logits.collect())?;
    if choice.index >= whole.len() {
        return Err(Error::input(place, "a method without a fit", "a probe for each strength"));
    }
    let Reading { mut probe, logits } = whole.swap_remove(choice.index);
    probe.calibration = choice.calibration;
    probe.held_out = split.held_out(&targets);
    probe.seed = plan.seed;
    let test = probe.from_logits(logits);
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

/// [`validate`] on each of `splits` in turn, so that every row is tested once by a probe that never saw it: what the
/// probes say of all test rows together, `figures` on split `folds`, and the mean over the splits of their AUROC as
/// `auroc/mean`.
///
/// # Errors
/// As [`validate`].
pub fn cross_validate(
    method: &dyn Fit,
    examples: &Examples,
    splits: &[Split],
    plan: &Plan,
) -> Result<Vec<Metric>> {
    let targets = examples.targets();
    let plain = Plan { resamples: 0, ..plan.clone() };
    let mut rows = Vec::new();
    let mut parts = Vec::new();
    let mut areas = Vec::new();
    for split in splits {
        let validated = validate(method, examples.clone(), split, &plain)?;
        let scores = &validated.probe.scores;
        areas.extend(
            scores.iter().find(|score| score.name == "auroc" && score.split == "test").map(|s| s.value),
        );
        rows.extend_from_slice(&split.test);
        parts.push(validated.test);
    }
    let parts: Vec<_> = parts.iter().map(|part| part.view()).collect();
    // All have a column a class.
    let pooled = ndarray::concatenate(Axis(0), &parts).unwrap_or_default();
    let mut all = figures(pooled.view(), &targets.select(&rows), plan, "folds");
    if !areas.is_empty() && areas.len() == splits.len() {
        let value = areas.iter().sum::<f64>() / areas.len() as f64;
        all.push(Metric {
            name: "auroc/mean".into(),
            value,
            low: None,
            high: None,
            n: rows.len(),
            split: "folds".into(),
        });
    }
    Ok(all)
}

/// What the folds say.
pub(super) struct Choice {
    /// Which of the strengths.
    pub index: usize,
    pub strength: f64,
    pub calibration: Calibration,
    pub trials: Vec<Trial>,
    /// Out of fold, calibrated by the other folds, a row for each fit row in its order.
    pub probabilities: Array2<f64>,
}

/// Chooses among `strengths` by `logits`, `[rows held out, heads]` of each fold and strength; `folds` are of the rows `fit`.
///
/// The least log loss after calibration by a temperature wins, because the calibrated probe is what will be used; of equals
/// the first, which has the larger penalty. How the winner is calibrated is chosen across the same folds.
pub(super) fn choose(
    targets: &Targets,
    fit: &[usize],
    plan: &Plan,
    strengths: &[f64],
    folds: &[Split],
    logits: Vec<Vec<Array2<f64>>>,
) -> Result<Choice> {
    let known = targets.select(fit);
    let plan = Plan { resamples: 0, ..plan.clone() };
    // The rows of each fold, as places in `fit`, which is ascending.
    let places =
        |split: &Split| split.test.iter().map(|row| fit.partition_point(|other| other < row)).collect();
    let places: Vec<Vec<usize>> = folds.iter().map(places).collect();
    let mut best: Option<(usize, Array2<f64>)> = None;
    let mut trials: Vec<Trial> = Vec::with_capacity(strengths.len());
    for (index, &strength) in strengths.iter().enumerate() {
        let mut whole = Array2::zeros((fit.len(), targets.link.heads(targets.class_names.len())));
        for (places, part) in places.iter().zip(&logits) {
            places.iter().zip(part[index].rows()).for_each(|(&place, row)| whole.row_mut(place).assign(&row));
        }
        let calibration = temperature(&known, &whole);
        let probabilities = targets.link.probabilities(calibration.apply(whole.clone()));
        let scores = figures(probabilities.view(), &known, &plan, "validation");
        let score = |name: &str| scores.iter().find(|score| score.name == name).map(|score| score.value);
        let log_loss = score("log_loss").unwrap_or(f64::INFINITY);
        if trials.iter().all(|trial| log_loss < trial.log_loss) {
            best = Some((index, whole));
        }
        trials.push(Trial { strength, log_loss, auroc: score("auroc") });
    }
    let (index, logits) =
        best.ok_or_else(|| Error::input("probe", "no strength to choose from", "at least one"))?;
    let (calibration, probabilities) = match targets.link {
        Link::Binary | Link::Multinomial => {
            Calibration::chosen(targets.link, logits.view(), &known.classes, &places)
        }
        // One number for all heads: what it costs to fit it on the rows that it is then scored on does not show.
        Link::MultiLabel | Link::Ordinal => {
            let calibration = temperature(&known, &logits);
            let probabilities = targets.link.probabilities(calibration.apply(logits));
            (calibration, probabilities)
        }
    };
    Ok(Choice { index, strength: strengths[index], calibration, trials, probabilities })
}

/// The temperature for logits `[rows, heads]`; where heads do not exclude one another, one for all of them.
fn temperature(targets: &Targets, logits: &Array2<f64>) -> Calibration {
    match targets.link {
        Link::Binary | Link::Multinomial => {
            Calibration::temperature(targets.link, logits.view(), &targets.classes)
        }
        Link::MultiLabel | Link::Ordinal => {
            let yes = |row: usize, head: usize| match targets.link {
                Link::Ordinal => targets.classes[row] > head,
                _ => targets.is(row, head),
            };
            let (rows, heads) = logits.dim();
            let all = Array2::from_shape_fn((rows * heads, 1), |(n, _)| logits[[n / heads, n % heads]]);
            let truth: Vec<usize> =
                (0..rows * heads).map(|n| usize::from(yes(n / heads, n % heads))).collect();
            Calibration::temperature(Link::Binary, all.view(), &truth)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::controls::shuffled;
    use crate::probe::examples::tests::examples;
    use crate::probe::{Logistic, Means};
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

    fn score(validated: &Validated, name: &str, split: &str) -> Metric {
        let mut scores = validated.probe.scores.iter();
        scores.find(|s| s.name == name && s.split == split).unwrap().clone()
    }

    #[test]
    fn scores_what_was_held_out_near_what_theory_allows() {
        let examples = world(1500, 12, 2.0, 1);
        let split = Split::hold_out(examples.targets(), &["0001", "0004", "0007"]).unwrap();
        let validated = validate(&Logistic::default(), examples.clone(), &split, &Plan::default()).unwrap();
        // The best rule for equal spheres at pairwise distance 2√2 picks the largest of three: right with probability
        // ∫ φ(x) Φ(x + 2)² dx = 0.8658 (scipy.integrate.quad).
        let accuracy = score(&validated, "accuracy", "test");
        assert!((accuracy.value - 0.8658).abs() < 0.045, "{accuracy:?}");
        assert!(accuracy.low.unwrap() < accuracy.value && accuracy.value < accuracy.high.unwrap());
        assert!(score(&validated, "ece", "test").value < 0.06);
        assert_eq!(validated.probe.held_out, ["0001", "0004", "0007"]);
        assert_eq!((validated.test.nrows(), validated.validation.nrows()), (450, 1050));
        // Shuffled labels tell nothing about what was held out.
        let control =
            shuffled(&Logistic::default(), &mut || Ok(examples.clone()), &split, &Plan::default(), 8)
                .unwrap();
        assert!((control.value - 0.5).abs() < 0.1, "{control:?}");
        let means = validate(&Means, examples.clone(), &split, &Plan::default()).unwrap();
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
        let before = validate(&Logistic::default(), examples.clone(), &split, &plan).unwrap();
        let mut features = examples.features().clone();
        let mut targets = examples.targets().clone();
        for &row in &split.test {
            features.row_mut(row).fill(-9.0);
            targets.classes[row] = 0;
        }
        let other = Examples::new(examples.source.clone(), features, targets).unwrap();
        let after = validate(&Logistic::default(), other, &split, &plan).unwrap();
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
        let validated = validate(&Logistic::default(), examples.clone(), &split, &plan).unwrap();
        assert_eq!(validated.probe.strength, 1e-3);
        assert!((score(&validated, "auroc", "validation").value - 0.5).abs() < 0.1);
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        let examples = world(300, 6, 1.0, 4);
        let split = Split::hold_out_share(examples.targets(), 3, 1).unwrap();
        let run = || validate(&Logistic::default(), examples.clone(), &split, &Plan::default()).unwrap();
        assert_eq!(run(), run());
    }
}
