//! Controls: the AUROC of the same pipeline on shuffled labels, on random features and on text lengths.

use ndarray::Array2;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

use crate::error::{Error, Result};
use crate::probe::examples::{Examples, Provenance};
use crate::probe::fit::Fit;
use crate::probe::plan::ValidationPlan;
use crate::probe::split::Split;
use crate::probe::targets::Targets;
use crate::probe::validation::{Validated, validate};
use crate::stats::{Linearised, Metric};

/// AUROC on the test part (with true labels) of a probe fitted on labels shuffled within the fit part: the mean over
/// `repeats` shuffles, with the least and the greatest as bounds.
///
/// A single shuffle may be far from 0.5 on well-separated data, where even a random direction ranks the classes; the mean
/// is near 0.5 unless the pipeline leaks. (Hewitt & Liang 2019, arXiv 1909.03368, shuffle by word type to measure
/// memorisation; held-out groups rule that out here.)
///
/// `examples` makes the examples for each shuffle, so that only one copy is in memory.
///
/// # Errors
/// 0 repeats; one class only in the test part; an error of the pipeline.
pub fn shuffled(
    method: &dyn Fit,
    examples: &mut dyn FnMut() -> Result<Examples>,
    split: &Split,
    plan: &ValidationPlan,
    repeats: usize,
) -> Result<Metric> {
    let plan = ValidationPlan { resamples: 0, ..plan.clone() };
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

/// AUROC on the test part of features `[rows, width]` drawn from a standard normal distribution.
///
/// # Errors
/// As [`shuffled`].
pub fn random(
    method: &dyn Fit,
    (source, targets): (&Provenance, &Targets),
    width: usize,
    split: &Split,
    plan: &ValidationPlan,
) -> Result<Metric> {
    let mut random = StdRng::seed_from_u64(plan.seed.rotate_left(16) ^ 1);
    let features =
        Array2::from_shape_fn((targets.rows(), width), |_| random.sample::<f32, _>(StandardNormal));
    let examples = Examples::new(source.clone(), features, targets.clone())?;
    Ok(Metric { name: "random/auroc".into(), ..auroc(method, examples, split, plan)? })
}

/// AUROC on the test part of five features: characters and words of each text, log(1 + both), and `counts` (of messages,
/// say); and that area with its influences, for paired
/// differences. A probe may have found length instead of a concept.
///
/// # Errors
/// As [`shuffled`]; another number of texts or counts than rows.
pub fn lengths(
    method: &dyn Fit,
    (source, targets): (&Provenance, &Targets),
    (texts, counts): (&[String], &[usize]),
    split: &Split,
    plan: &ValidationPlan,
) -> Result<(Metric, Option<Linearised>)> {
    let row = |(text, count): (&String, &usize)| {
        let (characters, words) = (text.chars().count() as f32, text.split_whitespace().count() as f32);
        [characters, words, characters.ln_1p(), words.ln_1p(), *count as f32]
    };
    let rows: Vec<[f32; 5]> = texts.iter().zip(counts).map(row).collect();
    let features = Array2::from(rows);
    let examples = Examples::new(source.clone(), features, targets.clone())?;
    let name = "length/auroc".to_owned();
    if examples.check_spread(&split.fit).is_err() {
        // Constant features have no fit; their AUROC is that of ties.
        let n = if split.test.is_empty() { split.fit.len() } else { split.test.len() };
        let metric = Metric { name, value: 0.5, low: None, high: None, n, split: split.scored_on().into() };
        return Ok((metric, None));
    }
    let validated = validate(method, examples, split, plan)?;
    let area = validated.area(targets);
    Ok((Metric { name, ..auroc_of(validated, split)? }, area))
}

/// The pipeline's AUROC on the test part.
fn auroc(method: &dyn Fit, examples: Examples, split: &Split, plan: &ValidationPlan) -> Result<Metric> {
    auroc_of(validate(method, examples, split, plan)?, split)
}

fn auroc_of(validated: Validated, split: &Split) -> Result<Metric> {
    let scores = validated.probe.scores;
    let on = split.scored_on();
    let score = scores.into_iter().find(|score| score.name == "auroc" && score.split == on);
    score.ok_or_else(|| Error::input("control", format!("one class in the {on} part"), "two or more"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::logistic::Logistic;
    use crate::probe::validation::tests::world;

    #[test]
    fn shuffled_labels_tell_nothing_about_held_out_groups() {
        let examples = world(1500, 12, 2.0, 1);
        let split = Split::hold_out(examples.targets(), &["0001", "0004", "0007"]).unwrap();
        let plan = ValidationPlan::default();
        let mut again = || Ok(examples.clone());
        let control = shuffled(&Logistic::default(), &mut again, &split, &plan, 8).unwrap();
        assert!((control.value - 0.5).abs() < 0.1, "{control:?}");
    }
}
