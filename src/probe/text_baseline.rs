//! Text baselines: logistic regression on sparse features of texts, without a model; what the controls on words share.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::design_matrix::{RowSubset, SparseMatrix};
use crate::probe::metrics::{classification_metrics, fold_metrics, linearised_auroc};
use crate::probe::penalised::{Objective, concatenate_heads, tasks};
use crate::probe::plan::ValidationPlan;
use crate::probe::solver::{Problem, solve};
use crate::probe::split::Split;
use crate::probe::targets::Targets;
use crate::probe::validation::{StrengthScore, choose};
use crate::stats::{Linearised, Metric};

/// A fitted baseline's scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextBaseline {
    /// The chosen inverse penalty C.
    pub strength: f64,
    /// By inverse penalty, in ascending order.
    pub trials: Vec<StrengthScore>,
    /// Number of features used.
    pub width: usize,
    /// Metrics on the test part and out of the folds.
    pub scores: Vec<Metric>,
    /// AUROC on the part that scores are on ([`Split::scored_on`]), for paired differences; none with one class.
    #[serde(skip)]
    pub area: Option<Linearised>,
}

/// The features of the texts: a matrix, and the columns that each fold, and at last the whole fit part, may use.
pub(super) struct Features {
    pub matrix: SparseMatrix,
    pub columns: Vec<Vec<u32>>,
    /// Relative tolerance of the objective.
    pub tolerance: f64,
}

/// Fits and validates a baseline, choosing penalty and calibration as [`validate`](crate::probe::validate()) does. `folds` split the
/// fit part of `split`.
pub(super) fn fit(
    place: &str,
    mut features: Features,
    targets: &Targets,
    (split, folds): (&Split, &[Split]),
    plan: &ValidationPlan,
    strengths: &[f64],
) -> Result<TextBaseline> {
    let splits: Vec<&Split> = folds.iter().chain([split]).collect();
    let subsets =
        splits.iter().zip(&features.columns).map(|(split, kept)| features.matrix.subset(split, kept));
    let subsets: Vec<RowSubset> = subsets.collect();
    let (loss, tasks) = tasks(targets, Objective::Likelihood);
    let problem = |subset, classes| Problem { loss, classes, subset };
    let problems =
        subsets.iter().flat_map(|subset| tasks.iter().map(move |classes| problem(subset, classes)));
    let solutions = solve(&mut features.matrix, &problems.collect::<Vec<_>>(), strengths, features.tolerance);
    let solutions = solutions.map_err(|(found, expected)| Error::input(place, found, expected))?;
    let logits = |number: usize, strength: usize| {
        let own = &solutions[strength][number * tasks.len()..][..tasks.len()];
        concatenate_heads(own, loss, &splits[number].test).2
    };
    let of_fold = |fold| (0..strengths.len()).map(|strength| logits(fold, strength)).collect();
    let out_of_fold = (0..folds.len()).map(of_fold).collect();
    let choice = choose(targets, &split.fit, plan, strengths, folds, out_of_fold)?;
    let logits = logits(folds.len(), choice.index);
    let test = targets.link.probabilities(choice.calibration.apply(logits));
    let (own, tested) = (targets.select(&split.fit), targets.select(&split.test));
    let area = match split.test.is_empty() {
        true => linearised_auroc(choice.probabilities.view(), &own, &choice.folds),
        false => linearised_auroc(test.view(), &tested, &[]),
    };
    let mut scores = classification_metrics(test.view(), &tested, plan, "test");
    scores.extend(fold_metrics(choice.probabilities.view(), &own, &choice.folds, plan, "validation"));
    Ok(TextBaseline {
        strength: choice.strength,
        trials: choice.trials,
        width: features.columns.last().map_or(0, Vec::len),
        scores,
        area,
    })
}

/// The lower-cased words of a text: runs of letters, digits and apostrophes.
pub(super) fn words(text: &str) -> Vec<String> {
    let is_inside = |c: char| c.is_alphanumeric() || c == '\'';
    let text = text.to_lowercase();
    text.split(|c| !is_inside(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// # Errors
/// Another number of texts than targets.
pub(super) fn check_texts(place: &str, texts: &[String], targets: &Targets) -> Result<()> {
    match texts.len() == targets.rows() {
        true => Ok(()),
        false => {
            let found = format!("{} texts", texts.len());
            Err(Error::input(place, found, format!("{}, one a label", targets.rows())))
        }
    }
}
