//! L2-penalised fits: minimises C · Σ loss + ½ ‖weight‖² on standardised features, for all splits and strengths at once.

use ndarray::{Array1, Array2, Axis, concatenate};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::probe::design_matrix::{RowSubset, Standardised};
use crate::probe::examples::Examples;
use crate::probe::fit::SplitFit;
use crate::probe::link::Link;
use crate::probe::loss::Loss;
use crate::probe::probe::Probe;
use crate::probe::solver::{Problem, Solution, solve};
use crate::probe::split::Split;
use crate::probe::targets::Targets;

/// Relative tolerance of the objective at the optimum.
pub(super) const TOLERANCE: f64 = 1e-7;

/// The loss that is penalised.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Objective {
    /// Negative log-likelihood.
    Likelihood,
    /// Squared error.
    LeastSquares,
}

/// The loss for these targets, and the class of every row in each of its problems: one problem, or one per label.
pub(super) fn tasks(targets: &Targets, family: Objective) -> (Loss, Vec<Vec<u32>>) {
    let count = targets.class_names.len();
    let one = || vec![targets.classes.iter().map(|&class| class as u32).collect()];
    let each = || {
        let has = |label| (0..targets.rows()).map(|row| u32::from(targets.is(row, label))).collect();
        (0..count).map(has).collect()
    };
    match (targets.link, family) {
        (Link::Binary, Objective::Likelihood) => (Loss::Logistic, one()),
        (Link::Multinomial, Objective::Likelihood) => (Loss::Softmax(count), one()),
        (Link::Ordinal, _) => (Loss::Ordinal(count), one()),
        (Link::MultiLabel, Objective::Likelihood) => (Loss::Logistic, each()),
        (Link::MultiLabel, Objective::LeastSquares) => (Loss::Squared(2), each()),
        (_, Objective::LeastSquares) => (Loss::Squared(count), one()),
    }
}

/// For each split a probe for each of `strengths`, with its logits on the split's test rows: `[split][strength]`.
pub(super) fn fit(
    method: &str,
    family: Objective,
    examples: Examples,
    splits: &[Split],
    strengths: &[f64],
) -> Result<Vec<Vec<SplitFit>>> {
    let place = examples.place();
    for split in splits {
        examples.check(&split.fit)?;
    }
    // The last split is the whole fit part; in a fold a constant column gets no weight.
    if let Some(whole) = splits.last() {
        examples.check_spread(&whole.fit)?;
    }
    let (source, features, targets) = examples.into_parts();
    if (targets.link, family) == (Link::Ordinal, Objective::LeastSquares) {
        return Err(Error::input(place, format!("ordinal targets for {method}"), "method logistic for them"));
    }
    let (loss, tasks) = tasks(&targets, family);
    let mut design = Standardised::new(features, splits);
    let subsets: Vec<RowSubset> = splits.iter().map(|split| design.subset(split)).collect();
    let problem = |subset, classes| Problem { loss, classes, subset };
    let problems =
        subsets.iter().flat_map(|subset| tasks.iter().map(move |classes| problem(subset, classes)));
    let problems: Vec<Problem> = problems.collect();
    let solutions = solve(&mut design, &problems, strengths, TOLERANCE);
    let solutions = solutions.map_err(|(found, expected)| Error::input(place, found, expected))?;
    let split_fit = |(split, number): (&Split, usize), strength: usize| {
        let own = &solutions[strength][number * tasks.len()..][..tasks.len()];
        let (weight, bias, logits) = concatenate_heads(own, loss, &split.test);
        let folded = design.fold_back(weight.view(), bias.view());
        let probe = Probe::new(folded, (&source, &targets), (method, strengths[strength]));
        SplitFit { probe, logits }
    };
    let splits = splits.par_iter().zip(0..splits.len());
    let fits = splits.map(|split| (0..strengths.len()).map(|strength| split_fit(split, strength)).collect());
    Ok(fits.collect())
}

/// Weights `[heads, width]` and biases `[heads]` of one split's solutions, and their logits `[rows, heads]` on these rows.
pub(super) fn concatenate_heads(
    solutions: &[Solution],
    loss: Loss,
    rows: &[usize],
) -> (Array2<f64>, Array1<f64>, Array2<f64>) {
    // Ordinal heads share one direction.
    let times = loss.biases() / loss.heads();
    let weights = solutions.iter().flat_map(|solution| std::iter::repeat_n(solution.weight.view(), times));
    let biases: Vec<_> = solutions.iter().map(|solution| solution.bias.view()).collect();
    let logits: Vec<_> = solutions.iter().map(|solution| solution.logits.select(Axis(0), rows)).collect();
    let logits: Vec<_> = logits.iter().map(|logits| logits.view()).collect();
    // All solutions have the design's width and rows, so that none of these fails.
    (
        concatenate(Axis(0), &weights.collect::<Vec<_>>()).unwrap_or_default(),
        concatenate(Axis(0), &biases).unwrap_or_default(),
        concatenate(Axis(1), &logits).unwrap_or_default(),
    )
}
