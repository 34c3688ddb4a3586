//! Value probes: from the hidden states at the end of a thinking part, whether the answer behind it will be safe, and whether it will satisfy.
//!
//! They are fitted on answers after thinking parts whose strategy was drawn at random, so that the strategy says nothing of the user.

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::answering::{answers, outcome, states};
use super::chain::Chain;
use super::lingo_bp::Refinement;
use super::organism::{Stated, vocabulary};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::judge::Scorer;
use crate::model::{Model, Selector, Site};
use crate::probe::{Examples, Fit, Logistic, Probe, Provenance, Targets};

/// Inverse penalty: the states of a small model are told apart with little weight.
const STRENGTH: f64 = 0.1;

/// A user with the chain of his answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// The dialogue.
    pub dialogue: Dialogue,
    /// The chain.
    pub chain: Chain,
    /// What it states about the user.
    pub stated: Stated,
}

/// What decides an answer's worth, as the two probes read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// Probability that the answer is safe.
    pub safe: f64,
    /// Probability that it satisfies.
    pub satisfied: f64,
}

/// The two probes, at one site.
#[derive(Clone, Debug)]
pub struct ValueProbes {
    /// Where they read.
    pub site: Site,
    safe: Probe,
    satisfied: Probe,
    /// Share of the validation cases that both tell rightly.
    pub accuracy: f64,
    /// Cases that they were fitted on.
    pub rows: usize,
}

/// Cases with a drawn strategy each, what their answers were worth, and their states.
struct Drawn {
    safe: Vec<bool>,
    satisfied: Vec<bool>,
    states: Vec<(Site, Array2<f32>)>,
}

impl ValueProbes {
    /// Fits the probes at each site, and keeps the site that tells most validation cases rightly.
    ///
    /// # Errors
    /// No cases or sites; answers that are all of one worth; a judge that does not appraise.
    pub fn fit(
        model: &Model,
        judge: &dyn Scorer,
        (fitted, validation): (&[Case], &[Case]),
        sites: &[Site],
        goal: &Refinement,
        seed: u64,
    ) -> Result<ValueProbes> {
        if fitted.is_empty() || validation.is_empty() {
            let found = format!("{} cases and {} for validation", fitted.len(), validation.len());
            return Err(Error::input("value probes", found, "some of each"));
        }
        let train = draw(model, judge, fitted, sites, goal, seed)?;
        let check = draw(model, judge, validation, sites, goal, seed + 1)?;
        let mut best: Option<ValueProbes> = None;
        for ((site, own), (_, other)) in train.states.iter().zip(&check.states) {
            let fit = |label: &str, truth: &[bool]| {
                let source = Provenance {
                    site: *site,
                    tokens: Selector::Last,
                    label: label.into(),
                    model: Some(model.name.clone()),
                    model_hash: Some(model.hash.clone()),
                    model_form: model.form().ok(),
                    data_hash: None,
                };
                let names: Vec<&str> = truth.iter().map(|is| if *is { "yes" } else { "no" }).collect();
                let targets = Targets::new(&names, &names, &["no", "yes"])?;
                Logistic::default().fit_all(Examples::new(source, own.clone(), targets)?, STRENGTH)
            };
            let mut probes = ValueProbes {
                site: *site,
                safe: fit("safe", &train.safe)?,
                satisfied: fit("satisfied", &train.satisfied)?,
                accuracy: 0.0,
                rows: fitted.len(),
            };
            let values = probes.values(other.view())?;
            let right = values.iter().zip(check.safe.iter().zip(&check.satisfied)).filter(
                |(value, (safe, satisfied))| {
                    (value.safe >= 0.5) == **safe && (value.satisfied >= 0.5) == **satisfied
                },
            );
            probes.accuracy = right.count() as f64 / validation.len() as f64;
            if best.as_ref().is_none_or(|best| probes.accuracy > best.accuracy) {
                best = Some(probes);
            }
        }
        best.ok_or_else(|| Error::input("value probes", "no site", "one or more"))
    }

    /// The values of states `[rows, width]` at the probes' site.
    ///
    /// # Errors
    /// Another width.
    pub fn values(&self, states: ArrayView2<f32>) -> Result<Vec<Value>> {
        let [safe, satisfied] = [&self.safe, &self.satisfied].map(|probe| probe.probabilities(states));
        // Two classes, "no" and "yes": the second column is the latter.
        Ok(safe?
            .column(1)
            .iter()
            .zip(satisfied?.column(1))
            .map(|(&safe, &satisfied)| Value { safe, satisfied })
            .collect())
    }
}

/// Draws a strategy for each case, lets the model answer, and reads the states.
fn draw(
    model: &Model,
    judge: &dyn Scorer,
    cases: &[Case],
    sites: &[Site],
    goal: &Refinement,
    seed: u64,
) -> Result<Drawn> {
    let mut rng = StdRng::seed_from_u64(seed);
    let strategies = vocabulary();
    let mut thinking = Vec::with_capacity(cases.len());
    for case in cases {
        // The vocabulary is not empty.
        let drawn = strategies.choose(&mut rng).unwrap_or(&strategies[0]);
        thinking.push(case.stated.write(&case.stated.with(&case.chain, drawn))?);
    }
    let dialogues: Vec<Dialogue> = cases.iter().map(|case| case.dialogue.clone()).collect();
    let transcripts = answers(model, &dialogues, &thinking)?;
    let (mut safe, mut satisfied) = (Vec::new(), Vec::new());
    for (dialogue, transcript) in dialogues.iter().zip(&transcripts) {
        let losses = outcome(judge, dialogue, transcript)?.losses;
        safe.push(losses.safety <= goal.safety);
        satisfied.push(losses.satisfaction <= goal.satisfaction);
    }
    let dialogues: Vec<&Dialogue> = dialogues.iter().collect();
    Ok(Drawn { safe, satisfied, states: states(model, &dialogues, &thinking, sites)? })
}
