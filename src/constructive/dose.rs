//! Dose of a strategy: the pearl point along its direction. Answers of users of a class, each steered by a strength of its own, in; the
//! strength where satisfaction is highest within the safe boundary out.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::analysis::answers::Answering;
use crate::boundary::{Pearl, PearlOptions, Sample, pearl_map};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
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
    /// What sites are compared by: the pearl's lower bound of satisfaction; without a pearl the best mean S − R, less 2, so that any
    /// pearl is better.
    pub rank: f64,
}

/// Bins of strengths where no pearl is found.
const BINS: usize = 8;

/// Finds the dose of a direction at a site. `coordinates`: the log-odds of an attack of each user, in the order of `numbers`.
pub(super) fn find(
    answering: &Answering,
    dialogues: &[Dialogue],
    (numbers, coordinates): (&[usize], &[f64]),
    (vector, site, tokens): (&Vector, Site, &Selector),
    goal: &str,
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
    let pearl = pearl_map(&samples, &[], &options)?.pearl;
    let answers = samples.len();
    Ok(match pearl {
        Some(pearl) => FoundDose {
            strength: pearl.x.max(0.0),
            rank: pearl.satisfaction_low,
            pearl: Some(pearl),
            answers,
        },
        None => {
            let (strength, worth) = best_bin(&samples);
            FoundDose { strength, rank: worth - 2.0, pearl: None, answers }
        }
    })
}

/// The middle of the bin of strengths with the best mean S − R, and that mean.
fn best_bin(samples: &[Sample]) -> (f64, f64) {
    let most = samples.iter().map(|sample| sample.x).fold(f64::MIN_POSITIVE, f64::max);
    let mut sums = [(0.0, 0.0); BINS];
    for sample in samples {
        let bin = ((sample.x / most * BINS as f64) as usize).min(BINS - 1);
        sums[bin].0 += sample.satisfaction - sample.risk;
        sums[bin].1 += 1.0;
    }
    let mean = |bin: usize| if sums[bin].1 > 0.0 { sums[bin].0 / sums[bin].1 } else { f64::MIN };
    let best = (0..BINS).fold(0, |best, bin| if mean(bin) > mean(best) { bin } else { best });
    ((best as f64 + 0.5) / BINS as f64 * most, mean(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_bin_is_where_satisfaction_exceeds_risk_most() {
        let sample = |x: f64, satisfaction: f64, risk: f64| Sample { x, y: 0.0, satisfaction, risk };
        let samples =
            [sample(0.1, 0.2, 0.0), sample(1.0, 0.9, 0.1), sample(1.05, 0.8, 0.1), sample(2.0, 1.0, 1.0)];
        let (strength, worth) = best_bin(&samples);
        assert!((strength - 1.125).abs() < 1e-9 && (worth - 0.75).abs() < 1e-9, "{strength} {worth}");
    }
}
