//! Controls: the same pipeline on labels that mean nothing, on features that mean nothing, and on lengths alone.
//! It knows nothing of the method under control.

use ndarray::Array2;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

use crate::error::{Error, Result};
use crate::probe::Fit;
use crate::probe::examples::{Examples, Source, Targets};
use crate::probe::split::Split;
use crate::probe::validation::{Plan, validate};
use crate::stats::Metric;

/// AUROC on the test part, true labels there, of a probe whose labels were shuffled within the fit part before
/// anything was fitted or chosen: the mean over `repeats` shuffles, with the least and the greatest as bounds.
///
/// One shuffle may lie far from 0.5 on well-separated data, for even a random direction then ranks the classes; the
/// mean is near it. What lies above tells of a leak in the pipeline. (Hewitt & Liang 2019, arXiv 1909.03368, shuffle by
/// word type to measure what a probe can memorise; here groups are held out, and memory does not help.)
///
/// `examples` gives the examples anew each time, so that they are in memory once.
///
/// # Errors
/// If `repeats` is 0, the test part has one class only, or the pipeline fails.
pub fn shuffled(
    method: &dyn Fit,
    examples: &mut dyn FnMut() -> Result<Examples>,
    split: &Split,
    plan: &Plan,
    repeats: usize,
) -> Result<Metric> {
    let plan = Plan { resamples: 0, ..plan.clone() };
    let area = |repeat: usize| -> Result<f64> {
        let (source, features, targets) = examples()?.into_parts();
        let mut order = split.fit.clone();
        order.shuffle(&mut StdRng::seed_from_u64(plan.seed ^ (repeat as u64 + 1).rotate_left(32)));
        let mut shuffled = targets.clone();
        for (&row, from) in split.fit.iter().zip(order) {
            shuffled.classes[row] = targets.classes[from];
            if let Some(members) = shuffled.members.get_mut(row) {
                members.clone_from(&targets.members[from]);
            }
        }
        let examples = Examples::new(source, features, shuffled)?;
        auroc(method, examples, split, &plan).map(|area| area.value)
    };
    let areas = (0..repeats).map(area).collect::<Result<Vec<f64>>>()?;
    if areas.is_empty() {
        return Err(Error::input("shuffled labels", "0 repeats", "1 or more"));
    }
    Ok(Metric {
        name: "shuffled/auroc".into(),
        value: areas.iter().sum::<f64>() / areas.len() as f64,
        low: areas.iter().copied().reduce(f64::min),
        high: areas.iter().copied().reduce(f64::max),
        n: if split.test.is_empty() { split.fit.len() } else { split.test.len() },
        split: split.scored_on().into(),
    })
}

/// AUROC on the test part of `width` features a row that were drawn from a normal distribution: what the
/// pipeline finds where there is nothing to find.
///
/// # Errors
/// As [`shuffled`].
pub fn random(
    method: &dyn Fit,
    (source, targets): (&Source, &Targets),
    width: usize,
    split: &Split,
    plan: &Plan,
) -> Result<Metric> {
    let mut random = StdRng::seed_from_u64(plan.seed.rotate_left(16) ^ 1);
    let features =
        Array2::from_shape_fn((targets.rows(), width), |_| random.sample::<f32, _>(StandardNormal));
    let examples = Examples::new(source.clone(), features, targets.clone())?;
    Ok(Metric { name: "random/auroc".into(), ..auroc(method, examples, split, plan)? })
}

/// AUROC on the test part of how long the texts are, in characters and in words (and the logarithms of both), and of
/// `counts` beside them (messages, say): what a probe may have found instead of a concept.
///
/// # Errors
/// As [`shuffled`]; if there are not as many texts and counts as rows.
pub fn lengths(
    method: &dyn Fit,
    (source, targets): (&Source, &Targets),
    (texts, counts): (&[String], &[usize]),
    split: &Split,
    plan: &Plan,
) -> Result<Metric> {
    let row = |(text, count): (&String, &usize)| {
        let (characters, words) = (text.chars().count() as f32, text.split_whitespace().count() as f32);
        [characters, words, characters.ln_1p(), words.ln_1p(), *count as f32]
    };
    let rows: Vec<[f32; 5]> = texts.iter().zip(counts).map(row).collect();
    let features = Array2::from(rows);
    let examples = Examples::new(source.clone(), features, targets.clone())?;
    let name = "length/auroc".to_owned();
    if examples.check_spread(&split.fit).is_err() {
        // Texts of one length tell nothing apart.
        let n = if split.test.is_empty() { split.fit.len() } else { split.test.len() };
        return Ok(Metric { name, value: 0.5, low: None, high: None, n, split: split.scored_on().into() });
    }
    Ok(Metric { name, ..auroc(method, examples, split, plan)? })
}

/// The pipeline's AUROC on the test part.
fn auroc(method: &dyn Fit, examples: Examples, split: &Split, plan: &Plan) -> Result<Metric> {
    let scores = validate(method, examples, split, plan)?.probe.scores;
    let on = split.scored_on();
    let figure = scores.into_iter().find(|score| score.name == "auroc" && score.split == on);
    figure.ok_or_else(|| Error::input("control", format!("one class in the {on} part"), "two or more"))
}
