//! The shuffled-label control: the same pipeline on labels that mean nothing.
//! It knows nothing of the method under control.

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::probe::Fit;
use crate::probe::examples::Examples;
use crate::probe::split::Split;
use crate::probe::validate::{Plan, validate};
use crate::stats::Figure;

/// AUROC on the test part, true labels there, of a probe whose labels were shuffled within the fit part before
/// anything was fitted or chosen: the mean over `repeats` shuffles, with the least and the greatest as bounds.
///
/// One shuffle may lie far from 0.5 on well-separated data, for even a random direction then ranks the classes; the
/// mean is near it. What lies above tells of a leak in the pipeline. (Hewitt & Liang 2019, arXiv 1909.03368, shuffle by
/// word type to measure what a probe can memorise; here groups are held out, and memory does not help.)
///
/// # Errors
/// If `repeats` is 0, the test part has one class only, or the pipeline fails.
pub fn shuffled(
    method: &dyn Fit,
    examples: &Examples,
    split: &Split,
    plan: &Plan,
    repeats: usize,
) -> Result<Figure> {
    let plan = Plan { resamples: 0, ..plan.clone() };
    let area = |repeat: usize| -> Result<f64> {
        let mut targets = examples.targets().clone();
        let mut labels: Vec<usize> = split.fit.iter().map(|&row| targets.classes[row]).collect();
        labels.shuffle(&mut StdRng::seed_from_u64(plan.seed ^ (repeat as u64 + 1).rotate_left(32)));
        split.fit.iter().zip(labels).for_each(|(&row, label)| targets.classes[row] = label);
        let validated = validate(method, &examples.with_targets(targets), split, &plan)?;
        let scores = validated.probe.scores;
        let area = scores.iter().find(|score| score.name == "auroc" && score.split == "test");
        area.map(|score| score.value)
            .ok_or_else(|| Error::input("shuffled labels", "one class in the test part", "two or more"))
    };
    let areas = (0..repeats).into_par_iter().map(area).collect::<Result<Vec<f64>>>()?;
    if areas.is_empty() {
        return Err(Error::input("shuffled labels", "0 repeats", "1 or more"));
    }
    Ok(Figure {
        name: "auroc/shuffled".into(),
        value: areas.iter().sum::<f64>() / areas.len() as f64,
        low: areas.iter().copied().reduce(f64::min),
        high: areas.iter().copied().reduce(f64::max),
        n: split.test.len(),
        split: "test".into(),
    })
}
