//! Validation of a probe: penalty and calibration chosen by grouped cross-validation inside the fit part, scores on
//! held-out groups.

use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::calibration::Calibration;
use crate::probe::calibration_choice::CalibrationChoice;
use crate::probe::examples::Examples;
use crate::probe::fit::{Fit, SplitFit};
use crate::probe::link::Link;
use crate::probe::metrics::{classification_metrics, fold_metrics, linearised_auroc};
use crate::probe::plan::ValidationPlan;
use crate::probe::probe::Probe;
use crate::probe::split::{Split, folds};
use crate::probe::targets::Targets;
use crate::stats::{Linearised, Metric};

/// Out-of-fold scores of one strength.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrengthScore {
    /// The strength: the inverse penalty, where the method has one.
    pub strength: f64,
    /// Out-of-fold log loss after temperature scaling; the strength with the least is chosen.
    pub log_loss: f64,
    /// Mean AUROC of the folds, for comparison; none with one class.
    pub auroc: Option<f64>,
}

/// A validated probe with its held-out predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Fitted on the whole fit part with the chosen strength, calibrated on out-of-fold logits, with its scores.
    pub probe: Probe,
    /// By strength, in ascending order.
    pub trials: Vec<StrengthScore>,
    /// The rows that it was fitted on and tested on.
    pub split: Split,
    /// Out-of-fold calibrated probabilities `[fit rows, classes]`: neither fitted nor calibrated on the row. Thresholds
    /// and strengths may be chosen by them.
    pub validation: Array2<f64>,
    /// The rows of [`Validated::validation`] that each fold held out.
    pub folds: Vec<Vec<usize>>,
    /// Calibrated probabilities `[test rows, classes]`.
    pub test: Array2<f64>,
}

impl Validated {
    /// AUROC on the part that scores are on ([`Split::scored_on`]) with the influence of every row, for paired differences.
    pub fn area(&self, targets: &Targets) -> Option<Linearised> {
        match self.split.test.is_empty() {
            true => linearised_auroc(self.validation.view(), &targets.select(&self.split.fit), &self.folds),
            false => linearised_auroc(self.test.view(), &targets.select(&self.split.test), &[]),
        }
    }
}

/// Fits on `split.fit` with the strength chosen by folds of its groups, calibrates on out-of-fold logits, and scores on
/// `split.test`. All folds and strengths are one call of [`Fit::fit`].
///
/// # Errors
/// A fit part with fewer than two groups or fewer rows than folds; a fold that can't be fitted on (a class without rows).
pub fn validate(
    method: &dyn Fit,
    examples: Examples,
    split: &Split,
    plan: &ValidationPlan,
) -> Result<Validated> {
    let targets = examples.targets().clone();
    let place = examples.place();
    let folds = folds(&targets, &split.fit, plan.folds, plan.seed)?;
    let splits: Vec<Split> = folds.iter().chain([split]).cloned().collect();
    let strengths = method.strengths();
    let mut fits = method.fit(examples, &splits, &strengths)?;
    let mut whole = fits.pop().unwrap_or_default();
    let logits = fits.into_iter().map(|fold| fold.into_iter().map(|fit| fit.logits).collect());
    let choice = choose(&targets, &split.fit, plan, &strengths, &folds, logits.collect())?;
    if choice.index >= whole.len() {
        return Err(Error::input(place, "a method without a fit", "a probe for each strength"));
    }
    let SplitFit { mut probe, logits } = whole.swap_remove(choice.index);
    probe.calibration = choice.calibration;
    probe.held_out = split.held_out(&targets);
    probe.seed = plan.seed;
    let test = probe.from_logits(logits);
    probe.scores = classification_metrics(test.view(), &targets.select(&split.test), plan, "test");
    let known = targets.select(&split.fit);
    let out_of_fold = fold_metrics(choice.probabilities.view(), &known, &choice.folds, plan, "validation");
    probe.scores.extend(out_of_fold);
    Ok(Validated {
        probe,
        trials: choice.trials,
        split: split.clone(),
        validation: choice.probabilities,
        folds: choice.folds,
        test,
    })
}

/// Nested cross-validation of one method on one matrix: what each outer split's probe predicts.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossValidation {
    /// The test rows of all splits, in the order of the splits.
    pub rows: Vec<usize>,
    /// The places in [`CrossValidation::rows`] of each split.
    pub folds: Vec<Vec<usize>>,
    /// Calibrated probabilities `[test rows, classes]`.
    pub probabilities: Array2<f64>,
    /// For each split the mean AUROC of the folds inside its fit part, by which sites may be compared; none with one class.
    pub inner: Vec<Option<f64>>,
    /// For each split the strength that was chosen inside its fit part.
    pub strengths: Vec<f64>,
}

impl CrossValidation {
    /// Metrics on split `folds`; AUROC and average precision are means over the splits.
    pub fn metrics(&self, targets: &Targets, plan: &ValidationPlan) -> Vec<Metric> {
        fold_metrics(self.probabilities.view(), &targets.select(&self.rows), &self.folds, plan, "folds")
    }
}

/// Nested cross-validation: [`validate`] on each of `splits`.
///
/// # Errors
/// As [`validate`].
pub fn cross_validate(
    method: &dyn Fit,
    examples: &Examples,
    splits: &[Split],
    plan: &ValidationPlan,
) -> Result<CrossValidation> {
    let plain = ValidationPlan { resamples: 0, ..plan.clone() };
    let (mut rows, mut folds, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut inner, mut strengths) = (Vec::new(), Vec::new());
    for split in splits {
        let validated = validate(method, examples.clone(), split, &plain)?;
        let scores = &validated.probe.scores;
        let area = scores.iter().find(|score| score.name == "auroc" && score.split == "validation");
        inner.push(area.map(|score| score.value));
        strengths.push(validated.probe.strength);
        folds.push((rows.len()..rows.len() + split.test.len()).collect());
        rows.extend_from_slice(&split.test);
        parts.push(validated.test);
    }
    let parts: Vec<_> = parts.iter().map(|part| part.view()).collect();
    // Each has one column per class, so that they concatenate.
    let probabilities = ndarray::concatenate(Axis(0), &parts).unwrap_or_default();
    Ok(CrossValidation { rows, folds, probabilities, inner, strengths })
}

/// The strength and calibration chosen by the folds.
pub(super) struct Choice {
    /// Index of the chosen strength.
    pub index: usize,
    pub strength: f64,
    pub calibration: Calibration,
    pub trials: Vec<StrengthScore>,
    /// Out-of-fold calibrated probabilities `[fit rows, classes]`.
    pub probabilities: Array2<f64>,
    /// The rows of those that each fold held out.
    pub folds: Vec<Vec<usize>>,
}

/// Chooses among `strengths` by out-of-fold `logits`, `[fold][strength]` of shape `[rows held out, heads]`; `folds` split
/// the rows `fit`.
///
/// The least log loss after temperature scaling wins, because the calibrated probe is the one that is used; among equals
/// the first, with the larger penalty. The winner's calibration is selected across the same folds.
pub(super) fn choose(
    targets: &Targets,
    fit: &[usize],
    plan: &ValidationPlan,
    strengths: &[f64],
    folds: &[Split],
    logits: Vec<Vec<Array2<f64>>>,
) -> Result<Choice> {
    let known = targets.select(fit);
    let plan = ValidationPlan { resamples: 0, ..plan.clone() };
    // The rows of each fold as indices into `fit`, which is ascending.
    let places =
        |split: &Split| split.test.iter().map(|row| fit.partition_point(|other| other < row)).collect();
    let places: Vec<Vec<usize>> = folds.iter().map(places).collect();
    let mut best: Option<(usize, Array2<f64>)> = None;
    let mut trials: Vec<StrengthScore> = Vec::with_capacity(strengths.len());
    for (index, &strength) in strengths.iter().enumerate() {
        let mut whole = Array2::zeros((fit.len(), targets.link.heads(targets.class_names.len())));
        for (places, part) in places.iter().zip(&logits) {
            places.iter().zip(part[index].rows()).for_each(|(&place, row)| whole.row_mut(place).assign(&row));
        }
        let calibration = temperature(&known, &whole);
        let probabilities = targets.link.probabilities(calibration.apply(whole.clone()));
        let scores = fold_metrics(probabilities.view(), &known, &places, &plan, "validation");
        let score = |name: &str| scores.iter().find(|score| score.name == name).map(|score| score.value);
        let log_loss = score("log_loss").unwrap_or(f64::INFINITY);
        if trials.iter().all(|trial| log_loss < trial.log_loss) {
            best = Some((index, whole));
        }
        trials.push(StrengthScore { strength, log_loss, auroc: score("auroc") });
    }
    let (index, logits) =
        best.ok_or_else(|| Error::input("probe", "no strength to choose from", "at least one"))?;
    let (calibration, probabilities) = match targets.link {
        Link::Binary | Link::Multinomial => {
            Calibration::select(targets.link, logits.view(), &known.classes, &places, plan.calibration)?
        }
        // One parameter for all heads: fitting it on the rows that it is scored on makes no visible difference.
        Link::MultiLabel | Link::Ordinal => {
            let calibration = match plan.calibration {
                CalibrationChoice::Auto | CalibrationChoice::Temperature => temperature(&known, &logits),
                CalibrationChoice::None => Calibration::None,
                other => {
                    let found = format!("{other} of {} targets", targets.link.name());
                    return Err(Error::input("calibration", found, "auto, temperature or none"));
                }
            };
            let probabilities = targets.link.probabilities(calibration.apply(logits));
            (calibration, probabilities)
        }
    };
    Ok(Choice { index, strength: strengths[index], calibration, trials, probabilities, folds: places })
}

/// Temperature scaling of logits `[rows, heads]`; one temperature over all heads as binary targets where the link is
/// multi-label or ordinal.
fn temperature(targets: &Targets, logits: &Array2<f64>) -> Calibration {
    match targets.link {
        Link::Binary | Link::Multinomial => {
            Calibration::temperature(targets.link, logits.view(), &targets.classes)
        }
        Link::MultiLabel | Link::Ordinal => {
            let positive = |row: usize, head: usize| match targets.link {
                Link::Ordinal => targets.classes[row] > head,
                _ => targets.is(row, head),
            };
            let (rows, heads) = logits.dim();
            let all = Array2::from_shape_fn((rows * heads, 1), |(n, _)| logits[[n / heads, n % heads]]);
            let truth: Vec<usize> =
                (0..rows * heads).map(|n| usize::from(positive(n / heads, n % heads))).collect();
            Calibration::temperature(Link::Binary, all.view(), &truth)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::probe::examples::tests::examples;
    use crate::probe::logistic::Logistic;
    use crate::probe::means::Means;
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
        let validated =
            validate(&Logistic::default(), examples.clone(), &split, &ValidationPlan::default()).unwrap();
        // The best rule for equal spheres at pairwise distance 2√2 picks the largest of three: right with probability
        // ∫ φ(x) Φ(x + 2)² dx = 0.8658 (scipy.integrate.quad).
        let accuracy = score(&validated, "accuracy", "test");
        assert!((accuracy.value - 0.8658).abs() < 0.045, "{accuracy:?}");
        assert!(accuracy.low.unwrap() < accuracy.value && accuracy.value < accuracy.high.unwrap());
        assert!(score(&validated, "ece", "test").value < 0.06);
        assert_eq!(validated.probe.held_out, ["0001", "0004", "0007"]);
        assert_eq!((validated.test.nrows(), validated.validation.nrows()), (450, 1050));
        let means = validate(&Means, examples.clone(), &split, &ValidationPlan::default()).unwrap();
        assert!(
            (score(&means, "auroc", "test").value - score(&validated, "auroc", "test").value).abs() < 0.03
        );
        assert!(score(&means, "ece", "test").value < 0.08);
    }

    #[test]
    fn the_test_part_changes_nothing_but_the_scores() {
        let examples = world(300, 8, 1.5, 2);
        let split = Split::hold_out(examples.targets(), &["0000"]).unwrap();
        let plan = ValidationPlan { resamples: 20, ..ValidationPlan::default() };
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
    fn the_strongest_penalty_is_chosen_on_noise() {
        let examples = world(240, 30, 0.0, 3);
        let split = Split::hold_out(examples.targets(), &["0002"]).unwrap();
        let plan = ValidationPlan { resamples: 0, ..ValidationPlan::default() };
        let validated = validate(&Logistic::default(), examples.clone(), &split, &plan).unwrap();
        assert_eq!(validated.probe.strength, 1e-3);
        assert!((score(&validated, "auroc", "validation").value - 0.5).abs() < 0.1);
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        let examples = world(300, 6, 1.0, 4);
        let split = Split::hold_out_share(examples.targets(), 3, 1).unwrap();
        let run =
            || validate(&Logistic::default(), examples.clone(), &split, &ValidationPlan::default()).unwrap();
        assert_eq!(run(), run());
    }
}
