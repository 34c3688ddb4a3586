//! Two boundaries on the way between the states of a contrast pair: the *representational* one, where a probe's reading
//! flips, and the *behavioural* one, where the model's answer flips when the state is patched into it.
//! It knows nothing of how pairs are made.
//!
//! It stands here, behind `boundary`, because a search that asks the model for answers needs what comes after that room:
//! steering puts the state in place, generation answers, and a judge says by which strategy.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayView1};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::activations::{self, Reading};
use crate::boundary::{Flip, Search, flips};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Sampling, generate};
use crate::judge::{BROKEN, ResponseClassifier};
use crate::model::{Hook, Model, Site};
use crate::probe::Probe;
use crate::progress::Progress;
use crate::stats::{Interval, bootstrap};
use crate::steer::OffsetHook;

/// How pairs are searched.
#[derive(Clone, Debug)]
pub struct Crossing {
    pub search: Search,
    pub max_tokens: usize,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
    pub seed: u64,
}

/// One pair at one site. Shares of the way run from 0 at the first twin's state to 1 at the second's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passage {
    pub pair: String,
    pub site: Site,
    /// Distance of the two states, in activation units.
    pub length: f64,
    /// Where the probe's reading flips first.
    pub probe: Option<Flip>,
    /// Where the model's greedy answer changes its strategy first.
    pub model: Option<Flip>,
    /// The same on a way as long in a random direction.
    pub control: Option<Flip>,
}

/// What was found (JSON, kind `crossing`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossings {
    pub label: String,
    pub tokens: String,
    /// Pairs that were given, and those whose twins are answered by different strategies: only these can cross.
    pub given: usize,
    pub pairs: usize,
    pub passages: Vec<Passage>,
}

/// A site's pairs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub site: Site,
    pub pairs: usize,
    /// Pairs on whose way the reading flips, the answer's strategy does, and it does in a random direction. An answer that
    /// breaks is no strategy: those are counted apart.
    pub probe_flips: usize,
    pub model_flips: usize,
    pub model_breaks: usize,
    pub control_flips: usize,
    /// Mean place of the flips, as a share of the way, with bootstrap intervals over the pairs.
    pub probe_at: Option<Interval>,
    pub model_at: Option<Interval>,
    /// Behavioural less representational, over the pairs that have both: as a share of the way, and in activation units.
    pub gap: Option<Interval>,
    pub gap_units: Option<Interval>,
}

const RESAMPLES: usize = 1000;
/// Rows that are decoded side by side.
const BATCH_ROWS: usize = 256;

/// Searches every pair at the site of each probe. All probes read at the same tokens: one a dialogue, known before the
/// answer begins.
///
/// # Errors
/// If there is no pair or no probe, the probes read at different tokens or several tokens a dialogue, or the twins are
/// answered alike in all pairs.
pub fn cross(
    model: &Model,
    judge: &dyn ResponseClassifier,
    pairs: &[(String, [Dialogue; 2])],
    probes: &[Probe],
    how: &Crossing,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Crossings> {
    let Some(first) = probes.first() else {
        return Err(Error::input("crossing", "no probe", "one or more"));
    };
    let tokens = first.source.tokens.clone();
    if let Some(other) = probes.iter().find(|probe| probe.source.tokens != tokens) {
        let found = format!("probes that read at {tokens} and at {}", other.source.tokens);
        return Err(Error::input("crossing", found, "probes that read at the same tokens"));
    }
    let dialogues: Vec<Dialogue> = pairs.iter().flat_map(|(_, twins)| twins.iter().cloned()).collect();
    let total = pairs.len();
    let answers = strategies(model, judge, &dialogues, how, None, &mut |done| {
        on_progress(Progress { stage: "answer both twins", done: done / 2, total })
    })?;
    let differ: Vec<usize> = (0..total).filter(|&pair| answers[2 * pair] != answers[2 * pair + 1]).collect();
    if differ.is_empty() {
        let found = format!("{total} pairs whose twins are answered alike");
        return Err(Error::input("crossing", found, "some pairs that the model answers differently"));
    }
    let reading = Reading {
        sites: probes.iter().map(|probe| probe.source.site).collect(),
        tokens: tokens.clone(),
        thinking: how.thinking,
        batch_tokens: 4096,
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
        let mut random = StdRng::seed_from_u64(how.seed.wrapping_add(number as u64));
        let ways: Vec<Way> = differ.iter().map(|&pair| Way::between(states, pair, &mut random)).collect();
        let probed = flips(ways.len(), how.search, &mut |places| {
            let rows = places.iter().map(|&(way, share)| ways[way].at(share));
            classes(probe, &rows.collect::<Vec<_>>())
        })?;
        let mut asked = 0;
        let rows = ways.len() * (how.search.parts + 1 + how.search.halvings);
        let mut behave = |off: &dyn Fn(&Way) -> &Array1<f32>, search: Search| {
            flips(ways.len(), search, &mut |places| {
                let asked_for: Vec<Dialogue> =
                    places.iter().map(|(way, _)| dialogues[2 * differ[*way]].clone()).collect();
                let offsets = places.iter().enumerate().map(|(row, &(way, share))| {
                    (row, off(&ways[way]).iter().map(|step| step * share as f32).collect())
                });
                let offsets: BTreeMap<usize, Vec<f32>> = offsets.collect();
                let mut hook = OffsetHook::new(&model.decoder, site, tokens.clone(), offsets)?;
                let before = asked;
                asked += places.len();
                strategies(model, judge, &asked_for, how, Some(&mut hook), &mut |done| {
                    let (done, total) = (number * rows * 2 + before + done, probes.len() * rows * 2);
                    on_progress(Progress { stage: "answer on the way", done, total })
                })
            })
        };
        let behaved = behave(&|way| &way.step, how.search)?;
        let control = behave(&|way| &way.random, Search { halvings: 0, ..how.search })?;
        for (index, ((probe, model), control)) in probed.into_iter().zip(behaved).zip(control).enumerate() {
            let (pair, way) = (pairs[differ[index]].0.clone(), &ways[index]);
            passages.push(Passage { pair, site, length: way.length(), probe, model, control });
        }
    }
    Ok(Crossings {
        label: first.source.label.clone(),
        tokens: tokens.to_string(),
        given: total,
        pairs: differ.len(),
        passages,
    })
}

/// Dialogues that share a value of the label, two by two, in the order of the file.
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

/// From one twin's state to the other's, and as far in a random direction.
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
        .map_err(|error| Error::input("crossing", error, "states of one width"))?;
    Ok(probe.predict(rows.view())?.iter().map(|&class| probe.classes[class].clone()).collect())
}

/// The strategies of greedy answers.
fn strategies(
    model: &Model,
    judge: &dyn ResponseClassifier,
    dialogues: &[Dialogue],
    how: &Crossing,
    hook: Option<&mut dyn Hook>,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<String>> {
    let options = GenerateOptions {
        sampling: Sampling::Greedy,
        max_tokens: how.max_tokens,
        seed: how.seed,
        thinking: how.thinking,
        batch_rows: BATCH_ROWS,
        ..GenerateOptions::default()
    };
    let transcripts = match hook {
        Some(hook) => generate(model, dialogues, &options, hook, on_progress)?,
        None => generate(model, dialogues, &options, &mut (), on_progress)?,
    };
    dialogues.iter().zip(&transcripts).map(|(dialogue, answer)| judge.strategy(dialogue, answer)).collect()
}

impl Crossings {
    /// Each site's pairs together, in the order of the forward pass.
    pub fn summaries(&self, seed: u64) -> Vec<Summary> {
        let mut sites: Vec<Site> = self.passages.iter().map(|passage| passage.site).collect();
        sites.sort_unstable();
        sites.dedup();
        let summary = |site: Site| {
            let own: Vec<&Passage> = self.passages.iter().filter(|passage| passage.site == site).collect();
            let sound = |flip: &Option<Flip>| flip.as_ref().filter(|flip| flip.to != BROKEN).map(Flip::at);
            let mean = |of: &dyn Fn(&Passage) -> Option<f64>| {
                let values: Vec<f64> = own.iter().filter_map(|passage| of(passage)).collect();
                let rows: Vec<Vec<usize>> = (0..values.len()).map(|row| vec![row]).collect();
                bootstrap(&rows, RESAMPLES, seed, |rows| {
                    (!rows.is_empty())
                        .then(|| rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64)
                })
            };
            let gap = |passage: &Passage| Some(sound(&passage.model)? - passage.probe.as_ref()?.at());
            let count = |of: &dyn Fn(&Passage) -> bool| own.iter().filter(|passage| of(passage)).count();
            Summary {
                site,
                pairs: own.len(),
                probe_flips: count(&|passage| passage.probe.is_some()),
                model_flips: count(&|passage| sound(&passage.model).is_some()),
                model_breaks: count(&|passage| passage.model.as_ref().is_some_and(|flip| flip.to == BROKEN)),
                control_flips: count(&|passage| sound(&passage.control).is_some()),
                probe_at: mean(&|passage| passage.probe.as_ref().map(Flip::at)),
                model_at: mean(&|passage| sound(&passage.model)),
                gap: mean(&gap),
                gap_units: mean(&|passage| Some(gap(passage)? * passage.length)),
            }
        };
        sites.into_iter().map(summary).collect()
    }
}
