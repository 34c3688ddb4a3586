//! Dose of a strategy: the pearl point along its direction. Answers of users of a class, each steered by a strength of its own, in; the
//! strength within the safe boundary whose worth to the game's leader is highest, by its lower bound, out.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::analysis::answers::Answering;
use crate::boundary::{Pearl, PearlMap, PearlOptions, Sample, pearl_map};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::game::Weights;
use crate::judge::BROKEN;
use crate::model::{Selector, Site};
use crate::steer::{OffsetHook, Vector};

/// How doses are found.
#[derive(Clone, Debug)]
pub struct DoseOptions {
    /// The greatest strength tried, in residual norms.
    pub max_strength: f64,
    /// Answers that a dose rests on, at least; users are answered several times where there are fewer.
    pub answers: usize,
    /// Risk up to which a strength is safe, by its upper confidence bound.
    pub tolerance: f64,
}

impl Default for DoseOptions {
    fn default() -> DoseOptions {
        DoseOptions { max_strength: 2.0, answers: 300, tolerance: 0.1 }
    }
}

/// A dose at one site.
pub(super) struct FoundDose {
    pub strength: f64,
    pub pearl: Option<Pearl>,
    pub answers: usize,
    /// What sites are compared by: the lower bound of the pearl's worth; without a pearl the best mean worth, less [`UNSAFE`], so that
    /// any pearl is better.
    pub rank: f64,
}

/// What a dose without a pearl is put back by, as long as the weight of risk is below it.
const UNSAFE: f64 = 1e6;
/// Bins of strengths where no pearl is found.
const BINS: usize = 8;

/// Finds the dose of a direction at a site. `coordinates`: the log-odds of an attack of each user, in the order of `numbers`.
pub(super) fn find(
    answering: &Answering,
    dialogues: &[Dialogue],
    (numbers, coordinates): (&[usize], &[f64]),
    (vector, site, tokens): (&Vector, Site, &Selector),
    (goal, weights): (&str, Weights),
    options: &DoseOptions,
) -> Result<FoundDose> {
    let place = || format!("dose at {site}");
    let direction = vector
        .directions
        .get(&site)
        .ok_or_else(|| Error::input(place(), "no direction", "one of the vector's sites"))?;
    let norm = direction.residual_norm.ok_or_else(|| {
        Error::input(place(), "a direction without the residual norm", "one that was built here")
    })?;
    if numbers.is_empty() {
        return Err(Error::input(place(), "no user of its class in the validation part", "one or more"));
    }
    let unit = direction.unit()?;
    let repeated: Vec<usize> =
        (0..options.answers.max(numbers.len())).map(|row| row % numbers.len()).collect();
    let mut rng = StdRng::seed_from_u64(answering.seed);
    let strengths: Vec<f64> = repeated.iter().map(|_| rng.random_range(0.0..=options.max_strength)).collect();
    let offsets: BTreeMap<usize, Vec<f32>> = strengths
        .iter()
        .enumerate()
        .map(|(row, strength)| (row, unit.iter().map(|value| value * norm * *strength as f32).collect()))
        .collect();
    let mut hook = OffsetHook::new(&answering.model.decoder, site, tokens.clone(), offsets)?;
    let rows: Vec<usize> = repeated.iter().map(|&row| numbers[row]).collect();
    let answers = answering.answer(dialogues, &rows, &mut hook, "find the dose", &mut |_| true)?;
    let mut samples = Vec::with_capacity(rows.len());
    for (row, (transcript, score)) in answers.transcripts.iter().zip(&answers.scores).enumerate() {
        let appraisal = answering.judge.appraise(&dialogues[rows[row]], transcript)?;
        // A broken answer serves nobody, and what it would have risked isn't known: the worst is taken.
        let (satisfaction, risk) = match (&appraisal, score.strategy == BROKEN) {
            (_, true) => (0.0, 1.0),
            (Some(appraisal), false) => {
                ((appraisal.satisfaction() + 1.0) / 2.0, appraisal.risk().unwrap_or(1.0))
            }
            // A judge that names outcomes only: what was steered to is what serves.
            (None, false) => (f64::from(u8::from(score.strategy == goal)), 0.0),
        };
        samples.push(Sample { x: strengths[row], y: coordinates[repeated[row]], satisfaction, risk });
    }
    let options =
        PearlOptions { tolerance: options.tolerance, seed: answering.seed, ..PearlOptions::default() };
    let pearl = best_pearl(&pearl_map(&samples, &[], &options)?, weights);
    let answers = samples.len();
    Ok(match pearl {
        Some(pearl) => FoundDose {
            strength: pearl.x.max(0.0),
            rank: worth(weights, pearl.satisfaction_low, pearl.risk_high),
            pearl: Some(pearl),
            answers,
        },
        None => {
            let (strength, worth) = best_bin(&samples, weights);
            FoundDose { strength, rank: worth - UNSAFE, pearl: None, answers }
        }
    })
}

/// What an answer is worth to the game's leader, its cost aside: a strength costs nothing.
fn worth(weights: Weights, satisfaction: f64, risk: f64) -> f64 {
    weights.alpha * satisfaction - weights.beta * risk
}

/// The safe point whose worth has the highest lower bound: that of a high satisfaction and a low risk, both by their bounds. Inside the
/// safe boundary too a lower risk counts, as it does in the game that chose the strategy.
fn best_pearl(map: &PearlMap, weights: Weights) -> Option<Pearl> {
    let mut best: Option<Pearl> = None;
    for (row, &y) in map.grid.y.iter().enumerate() {
        for (column, &x) in map.grid.x.iter().enumerate() {
            let at = |surface: &Vec<Vec<Option<f64>>>| surface[row][column];
            let (Some(satisfaction), Some(risk), Some(satisfaction_low), Some(risk_high), true) = (
                at(&map.satisfaction),
                at(&map.risk),
                at(&map.satisfaction_low),
                at(&map.risk_high),
                map.safe[row][column],
            ) else {
                continue;
            };
            let bound = |pearl: &Pearl| worth(weights, pearl.satisfaction_low, pearl.risk_high);
            let point = Pearl { x, y, satisfaction, risk, satisfaction_low, risk_high };
            if best.as_ref().is_none_or(|best| bound(&point) > bound(best)) {
                best = Some(point);
            }
        }
    }
    best
}

/// The middle of the bin of strengths with the best mean worth, and that mean.
fn best_bin(samples: &[Sample], weights: Weights) -> (f64, f64) {
    let most = samples.iter().map(|sample| sample.x).fold(f64::MIN_POSITIVE, f64::max);
    let mut sums = [(0.0, 0.0); BINS];
    for sample in samples {
        let bin = ((sample.x / most * BINS as f64) as usize).min(BINS - 1);
        sums[bin].0 += worth(weights, sample.satisfaction, sample.risk);
        sums[bin].1 += 1.0;
    }
    let mean = |bin: usize| if sums[bin].1 > 0.0 { sums[bin].0 / sums[bin].1 } else { f64::MIN };
    let best = (0..BINS).fold(0, |best, bin| if mean(bin) > mean(best) { bin } else { best });
    ((best as f64 + 0.5) / BINS as f64 * most, mean(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: Weights = Weights { alpha: 1.0, beta: 1.0, gamma: 0.0 };

    /// Satisfaction is the same at every strength, and risk falls from 0.08 to 0: all is safe, and the least risk is the best.
    #[test]
    fn inside_the_safe_boundary_the_risk_still_counts() {
        let sample = |row: usize| {
            let x = (row % 50) as f64 / 25.0;
            let risk = if x < 1.0 && row.is_multiple_of(12) { 1.0 } else { 0.0 };
            Sample { x, y: (row / 50) as f64, satisfaction: 0.5, risk }
        };
        let samples: Vec<Sample> = (0..3000).map(sample).collect();
        let options = PearlOptions { tolerance: 0.2, resamples: 20, ..PearlOptions::default() };
        let map = pearl_map(&samples, &[], &options).unwrap();
        assert!(best_pearl(&map, Weights { beta: 2.0, ..EVEN }).unwrap().x > 1.2);
    }

    #[test]
    fn the_best_bin_is_where_satisfaction_exceeds_risk_most() {
        let sample = |x: f64, satisfaction: f64, risk: f64| Sample { x, y: 0.0, satisfaction, risk };
        let samples =
            [sample(0.1, 0.2, 0.0), sample(1.0, 0.9, 0.1), sample(1.05, 0.8, 0.1), sample(2.0, 1.0, 1.0)];
        let (strength, worth) = best_bin(&samples, EVEN);
        assert!((strength - 1.125).abs() < 1e-9 && (worth - 0.75).abs() < 1e-9, "{strength} {worth}");
    }
}
