//! Fits that minimise a loss with an L2 penalty: from examples to probes, all splits and strengths at once.
//! It knows nothing of how a strength is chosen.

use ndarray::{Array1, Array2, Axis, concatenate};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::probe::Reading;
use crate::probe::design_matrix::{Part, Standardised};
use crate::probe::examples::{Examples, Targets};
use crate::probe::loss::Loss;
use crate::probe::probe::{Link, Probe};
use crate::probe::solver::{Problem, Solution, solve};
use crate::probe::split::Split;

/// How near the optimum a probe is brought: the objective within this share of itself.
pub(super) const TOLERANCE: f64 = 1e-7;

/// What is minimised beside the penalty.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Family {
    Likelihood,
    Squares,
}

/// The losses whose sum is minimised for these targets, and what is true of every row for each: one, or one a label.
pub(super) fn tasks(targets: &Targets, family: Family) -> (Loss, Vec<Vec<u32>>) {
    let count = targets.class_names.len();
    let one = || vec![targets.classes.iter().map(|&class| class as u32).collect()];
    let each = || {
        let of = |label| (0..targets.rows()).map(|row| u32::from(targets.is(row, label))).collect();
        (0..count).map(of).collect()
    };
    match (targets.link, family) {
        (Link::Binary, Family::Likelihood) => (Loss::Logistic, one()),
        (Link::Multinomial, Family::Likelihood) => (Loss::Softmax(count), one()),
        (Link::Ordinal, _) => (Loss::Ordinal(count), one()),
        (Link::MultiLabel, Family::Likelihood) => (Loss::Logistic, each()),
        (Link::MultiLabel, Family::Squares) => (Loss::Squared(2), each()),
        (_, Family::Squares) => (Loss::Squared(count), one()),
    }
}

/// For each split a probe for each of `strengths`, with its logits on the split's test rows.
pub(super) fn regress(
    method: &str,
    family: Family,
    examples: Examples,
    splits: &[Split],
    strengths: &[f64],
) -> Result<Vec<Vec<Reading>>> {
    let place = examples.place();
    for split in splits {
        examples.check(&split.fit)?;
    }
    // The last is the whole; in a fold what does not vary gets no weight.
    if let Some(whole) = splits.last() {
        examples.check_spread(&whole.fit)?;
    }
    let (source, features, targets) = examples.into_parts();
    if (targets.link, family) == (Link::Ordinal, Family::Squares) {
        return Err(Error::input(place, format!("levels for {method}"), "method logistic for levels"));
    }
    let (loss, tasks) = tasks(&targets, family);
    let mut design = Standardised::new(features, splits);
    let parts: Vec<Part> = splits.iter().map(|split| design.part(split)).collect();
    let problem = |part, classes| Problem { loss, classes, part };
    let problems = parts.iter().flat_map(|part| tasks.iter().map(move |classes| problem(part, classes)));
    let problems: Vec<Problem> = problems.collect();
    let solutions = solve(&mut design, &problems, strengths, TOLERANCE);
    let solutions = solutions.map_err(|(found, expected)| Error::input(place, found, expected))?;
    let reading = |(split, number): (&Split, usize), strength: usize| {
        let own = &solutions[strength][number * tasks.len()..][..tasks.len()];
        let (weight, bias, logits) = together(own, loss, &split.test);
        let folded = design.fold_back(weight.view(), bias.view());
        let probe = Probe::new(folded, (&source, &targets), (method, strengths[strength]));
        Reading { probe, logits }
    };
    let splits = splits.par_iter().zip(0..splits.len());
    Ok(splits.map(|split| (0..strengths.len()).map(|strength| reading(split, strength)).collect()).collect())
}

/// The heads of one split's solutions below one another, and their logits on these rows.
pub(super) fn together(
    solutions: &[Solution],
    loss: Loss,
    rows: &[usize],
) -> (Array2<f64>, Array1<f64>, Array2<f64>) {
    // Levels share one direction.
    let times = loss.biases() / loss.heads();
    let weights = solutions.iter().flat_map(|solution| std::iter::repeat_n(solution.weight.view(), times));
    let biases: Vec<_> = solutions.iter().map(|solution| solution.bias.view()).collect();
    let logits: Vec<_> = solutions.iter().map(|solution| solution.logits.select(Axis(0), rows)).collect();
    let logits: Vec<_> = logits.iter().map(|logits| logits.view()).collect();
    // All are of one design, so that none fails.
    (
        concatenate(Axis(0), &weights.collect::<Vec<_>>()).unwrap_or_default(),
        concatenate(Axis(0), &biases).unwrap_or_default(),
        concatenate(Axis(1), &logits).unwrap_or_default(),
    )
}
