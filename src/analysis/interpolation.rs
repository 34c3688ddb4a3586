//! Interpolation between the states of twins: where a probe's class flips (the *representational* boundary), and where the
//! answer's outcome does when the state is patched in (the *behavioural* one).
//!
//! Pairs of dialogues, probes and a judge in; for every pair and site the flip of each, and of a control direction, out. A flip
//! counts if it is to the twin's own class or outcome and lasts to the end of the way. It stands here and not in `boundary`, since it steers, generates and judges.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayView1};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use super::answers::Answering;
use crate::activations::{self, Request};
use crate::boundary::{Flip, Search, flips};
use crate::config::defaults::{BATCH_TOKENS_FEW_SITES, RESAMPLES};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::Sampling;
use crate::judge::{self, BROKEN, Scorer};
use crate::model::{Model, Site};
use crate::probe::Probe;
use crate::progress::Progress;
use crate::stats::{Interval, bootstrap};
use crate::steer::OffsetHook;

/// How pairs are searched.
#[derive(Clone, Debug)]
pub struct Options {
    /// Points and halvings of the search.
    pub search: Search,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
    /// Seed of the control directions and the intervals.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { search: Search::default(), max_tokens: 60, thinking: None, seed: 0 }
    }
}

/// One pair at one site. Shares of the way run from 0 at the first twin's state to 1 at the second's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairFlips {
    /// The pair's name.
    pub pair: String,
    /// The site.
    pub site: Site,
    /// Distance of the two states, in activation units.
    pub length: f64,
    /// The second twin's class, which the probe should come to; where it has none, whatever the probe reads at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_target: Option<String>,
    /// The outcome of the second twin's own answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_target: Option<String>,
    /// Where the probe's class flips.
    pub probe: Option<Flip>,
    /// Where the outcome of the model's greedy answer flips.
    pub model: Option<Flip>,
    /// The same for a random direction of the same length.
    pub control: Option<Flip>,
}

/// Flips of all pairs at all sites (JSON, kind `crossing`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interpolations {
    /// Label of the probes.
    pub label: String,
    /// Tokens whose state is patched.
    pub tokens: String,
    /// Number of pairs.
    pub given: usize,
    /// Number of pairs whose twins' answers differ in outcome. Only these are searched; where there are none, the probe's flips
    /// are those of all pairs.
    pub pairs: usize,
    /// One a pair and site.
    pub passages: Vec<PairFlips>,
}

/// A site's pairs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The site.
    pub site: Site,
    /// Number of pairs.
    pub pairs: usize,
    /// Pairs on whose way the probe's class flips to the twin's, for good.
    pub probe_flips: usize,
    /// Pairs on whose way it changes otherwise: to a third class, or back again.
    #[serde(default)]
    pub probe_others: usize,
    /// Pairs on whose way the answer's outcome flips to the twin's, for good.
    pub model_flips: usize,
    /// Pairs on whose way it changes otherwise, and is not broken.
    #[serde(default)]
    pub model_others: usize,
    /// Pairs on whose way the answer breaks.
    pub model_breaks: usize,
    /// Pairs on which the answer's outcome flips to the twin's, for good, along the random direction.
    pub control_flips: usize,
    /// Pairs on which it changes otherwise along the random direction, broken answers among them.
    #[serde(default)]
    pub control_others: usize,
    /// Mean place of the probe's flips, as a share of the way, with a bootstrap interval over the pairs.
    pub probe_at: Option<Interval>,
    /// Mean place of the answer's flips.
    pub model_at: Option<Interval>,
    /// Behavioural less representational place, over the pairs that have both, as a share of the way.
    pub gap: Option<Interval>,
    /// The same in activation units.
    pub gap_units: Option<Interval>,
}

/// Searches every pair at the site of each probe. All probes read at the same tokens: one a dialogue, known before the
/// answer begins.
///
/// # Errors
/// If there is no pair or no probe, the probes read at different tokens or several tokens a dialogue, or the judge can't
/// judge a dialogue.
pub fn interpolate(
    model: &Model,
    judge: &dyn Scorer,
    pairs: &[(String, [Dialogue; 2])],
    probes: &[Probe],
    options: &Options,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Interpolations> {
    let Some(first) = probes.first() else {
        return Err(Error::input("interpolation", "no probe", "one or more"));
    };
    let tokens = first.source.tokens.clone();
    if let Some(other) = probes.iter().find(|probe| probe.source.tokens != tokens) {
        let found = format!("probes that read at {tokens} and at {}", other.source.tokens);
        return Err(Error::input("interpolation", found, "probes that read at the same tokens"));
    }
    let dialogues: Vec<Dialogue> = pairs.iter().flat_map(|(_, twins)| twins.iter().cloned()).collect();
    judge::check_dialogues(judge, &dialogues)?;
    let answering = Answering {
        model,
        judge,
        sampling: Sampling::Greedy,
        max_tokens: options.max_tokens,
        seed: options.seed,
        thinking: options.thinking,
    };
    let total = pairs.len();
    let numbers: Vec<usize> = (0..dialogues.len()).collect();
    let outcomes = answering.answer(&dialogues, &numbers, &mut (), "answer both twins", &mut |progress| {
        on_progress(Progress { done: progress.done / 2, total, ..progress })
    })?;
    let outcome = |number: usize| &outcomes.scores[number].strategy;
    let differ: Vec<usize> = (0..total).filter(|&pair| outcome(2 * pair) != outcome(2 * pair + 1)).collect();
    // Where no answers differ, there is no flip of the answer to look for; the probe may flip all the same.
    let searched = if differ.is_empty() { (0..total).collect() } else { differ.clone() };
    let reading = Request {
        sites: probes.iter().map(|probe| probe.source.site).collect(),
        tokens: tokens.clone(),
        thinking: options.thinking,
        batch_tokens: BATCH_TOKENS_FEW_SITES,
        ..Request::default()
    };
    let read = activations::extract(model, &dialogues, &reading, &mut |_| true)?;
    if read.example.len() != dialogues.len() {
        let found = format!("{} rows from {} dialogues", read.example.len(), dialogues.len());
        return Err(Error::input(
            format!("tokens {tokens}"),
            found,
            "a selector that picks one token a dialogue",
        ));
    }
    let mut passages = Vec::new();
    for (number, probe) in probes.iter().enumerate() {
        let site = probe.source.site;
        let states = read.at(site)?;
        let mut random = StdRng::seed_from_u64(options.seed.wrapping_add(number as u64));
        let ways: Vec<Way> = searched.iter().map(|&pair| Way::between(states, pair, &mut random)).collect();
        let probed = flips(ways.len(), options.search, &mut |places| {
            let rows = places.iter().map(|&(way, share)| ways[way].at(share));
            classes(probe, &rows.collect::<Vec<_>>())
        })?;
        let mut answered = 0;
        let rows = ways.len() * (options.search.parts + 1 + options.search.halvings);
        let mut answer_flips = |offset: &dyn Fn(&Way) -> &Array1<f32>, search: Search| {
            flips(ways.len(), search, &mut |places| {
                let firsts: Vec<usize> = places.iter().map(|(way, _)| 2 * searched[*way]).collect();
                let offsets = places.iter().enumerate().map(|(row, &(way, share))| {
                    (row, offset(&ways[way]).iter().map(|step| step * share as f32).collect())
                });
                let offsets: BTreeMap<usize, Vec<f32>> = offsets.collect();
                let mut hook = OffsetHook::new(&model.decoder, site, tokens.clone(), offsets)?;
                let before = answered;
                answered += places.len();
                let answers = answering.answer(
                    &dialogues,
                    &firsts,
                    &mut hook,
                    "answer on the way",
                    &mut |progress| {
                        let done = number * rows * 2 + before + progress.done;
                        on_progress(Progress { done, total: probes.len() * rows * 2, ..progress })
                    },
                )?;
                Ok(answers.scores.into_iter().map(|score| score.strategy).collect())
            })
        };
        let (behaved, control) = match differ.is_empty() {
            true => (vec![None; ways.len()], vec![None; ways.len()]),
            false => (
                answer_flips(&|way| &way.step, options.search)?,
                answer_flips(&|way| &way.random, Search { halvings: 0, ..options.search })?,
            ),
        };
        for (index, ((probe, model), control)) in probed.into_iter().zip(behaved).zip(control).enumerate() {
            let (pair, way) = (pairs[searched[index]].0.clone(), &ways[index]);
            let twin = 2 * searched[index] + 1;
            passages.push(PairFlips {
                pair,
                site,
                length: way.length(),
                probe_target: dialogues[twin].label(&first.source.label),
                model_target: (!differ.is_empty()).then(|| outcome(twin).clone()),
                probe,
                model,
                control,
            });
        }
    }
    Ok(Interpolations {
        label: first.source.label.clone(),
        tokens: tokens.to_string(),
        given: total,
        pairs: differ.len(),
        passages,
    })
}

/// Pairs of dialogues that share a value of the label, in the order of the file.
///
/// # Errors
/// A value that one dialogue has, or more than two; no value at all.
pub fn twins(dialogues: &[Dialogue], label: &str, place: &str) -> Result<Vec<(String, [Dialogue; 2])>> {
    let mut groups: BTreeMap<String, Vec<&Dialogue>> = BTreeMap::new();
    let mut order = Vec::new();
    for dialogue in dialogues {
        let Some(value) = dialogue.label(label) else { continue };
        let group = groups.entry(value.clone()).or_default();
        if group.is_empty() {
            order.push(value);
        }
        group.push(dialogue);
    }
    let mut pairs = Vec::new();
    for value in order {
        match groups[&value][..] {
            [first, second] => pairs.push((value, [first.clone(), second.clone()])),
            ref other => {
                let found = format!("{} dialogues with {label} = {value}", other.len());
                return Err(Error::input(place, found, "two, a pair"));
            }
        }
    }
    if pairs.is_empty() {
        let expected = "two dialogues for each value of it, as `pearl organism pairs` writes them";
        return Err(Error::input(place, format!("no dialogue with a label {label}"), expected));
    }
    Ok(pairs)
}

/// The way from one twin's state to the other's, and a random direction of the same length.
struct Way {
    from: Array1<f32>,
    step: Array1<f32>,
    random: Array1<f32>,
}

impl Way {
    fn between(states: &Array2<f32>, pair: usize, random: &mut StdRng) -> Way {
        let (from, to) = (states.row(2 * pair).to_owned(), states.row(2 * pair + 1));
        let step = &to - &from;
        let drawn: Array1<f32> = (0..step.len()).map(|_| random.sample::<f32, _>(StandardNormal)).collect();
        let scale = (step.dot(&step) / drawn.dot(&drawn)).sqrt();
        Way { from, step, random: drawn * scale }
    }

    fn at(&self, share: f64) -> Array1<f32> {
        &self.from + &(&self.step * share as f32)
    }

    fn length(&self) -> f64 {
        f64::from(self.step.dot(&self.step)).sqrt()
    }
}

/// The classes that a probe reads from states.
fn classes(probe: &Probe, states: &[Array1<f32>]) -> Result<Vec<String>> {
    let views: Vec<ArrayView1<f32>> = states.iter().map(|state| state.view()).collect();
    let rows = ndarray::stack(ndarray::Axis(0), &views)
        .map_err(|error| Error::input("interpolation", error, "states of one width"))?;
    Ok(probe.predict(rows.view())?.iter().map(|&class| probe.classes[class].clone()).collect())
}

impl Interpolations {
    /// The pairs that were searched, in words.
    pub fn searched(&self) -> String {
        match self.pairs {
            0 => format!("all {} pairs (no twins are answered with different outcomes)", self.given),
            pairs => format!("{pairs} pairs whose answers differ"),
        }
    }

    /// Summaries by site, in the order of the forward pass.
    pub fn summaries(&self, seed: u64) -> Vec<Summary> {
        let mut sites: Vec<Site> = self.passages.iter().map(|passage| passage.site).collect();
        sites.sort_unstable();
        sites.dedup();
        let summary = |site: Site| {
            let own: Vec<&PairFlips> = self.passages.iter().filter(|passage| passage.site == site).collect();
            let place = |(flip, target): (&Option<Flip>, &Option<String>)| {
                let counts =
                    |flip: &&Flip| flip.lasts && target.as_ref().is_none_or(|target| flip.to == *target);
                flip.as_ref().filter(counts).map(Flip::at)
            };
            let probe = |passage: &PairFlips| place((&passage.probe, &passage.probe_target));
            let model = |passage: &PairFlips| place((&passage.model, &passage.model_target));
            let control = |passage: &PairFlips| place((&passage.control, &passage.model_target));
            let breaks = |flip: &Option<Flip>| flip.as_ref().is_some_and(|flip| flip.to == BROKEN);
            let mean = |of: &dyn Fn(&PairFlips) -> Option<f64>| {
                let values: Vec<f64> = own.iter().filter_map(|passage| of(passage)).collect();
                let rows: Vec<Vec<usize>> = (0..values.len()).map(|row| vec![row]).collect();
                bootstrap(&rows, RESAMPLES, seed, |rows| {
                    (!rows.is_empty())
                        .then(|| rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64)
                })
            };
            let gap = |passage: &PairFlips| Some(model(passage)? - probe(passage)?);
            let count = |of: &dyn Fn(&PairFlips) -> bool| own.iter().filter(|passage| of(passage)).count();
            Summary {
                site,
                pairs: own.len(),
                probe_flips: count(&|passage| probe(passage).is_some()),
                probe_others: count(&|passage| passage.probe.is_some() && probe(passage).is_none()),
                model_flips: count(&|passage| model(passage).is_some()),
                model_others: count(&|passage| {
                    passage.model.is_some() && model(passage).is_none() && !breaks(&passage.model)
                }),
                model_breaks: count(&|passage| breaks(&passage.model)),
                control_flips: count(&|passage| control(passage).is_some()),
                control_others: count(&|passage| passage.control.is_some() && control(passage).is_none()),
                probe_at: mean(&probe),
                model_at: mean(&model),
                gap: mean(&gap),
                gap_units: mean(&|passage| Some(gap(passage)? * passage.length)),
            }
        };
        sites.into_iter().map(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn islands_third_classes_and_broken_answers_are_counted_apart() {
        let flip = |to: &str, at: f64, lasts: bool| {
            Some(Flip { low: at, high: at, from: "a".into(), to: to.into(), lasts, detour: false })
        };
        let passage = |probe: Option<Flip>, model: Option<Flip>| PairFlips {
            pair: String::new(),
            site: "1.resid_post".parse().unwrap(),
            length: 2.0,
            probe_target: Some("b".into()),
            model_target: Some("guide".into()),
            probe,
            control: model.clone(),
            model,
        };
        let passages = vec![
            passage(flip("b", 0.25, true), flip("guide", 0.75, true)),
            // An island; a third class that lasts.
            passage(flip("b", 0.5, false), flip("refuse", 0.5, true)),
            passage(flip("c", 0.5, true), flip("guide", 0.25, false)),
            passage(None, flip(BROKEN, 0.5, true)),
        ];
        let found = Interpolations { label: "l".into(), tokens: "t".into(), given: 4, pairs: 4, passages };
        let summary = &found.summaries(0)[0];
        assert_eq!((summary.probe_flips, summary.probe_others), (1, 2));
        assert_eq!((summary.model_flips, summary.model_others, summary.model_breaks), (1, 2, 1));
        assert_eq!((summary.control_flips, summary.control_others), (1, 3));
        assert!(summary.probe_at.is_none_or(|at| at.value == 0.25));
    }
}
