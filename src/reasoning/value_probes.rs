//! Value probes: from the hidden states at the end of a thinking part, whether the answer behind it will be safe, and whether it will satisfy.
//!
//! They are fitted on answers after thinking parts whose strategy was drawn at random, so that the strategy says nothing of the user.

use ndarray::{Array2, ArrayView2, Axis, concatenate};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::answering::{answers, outcome, states};
use super::chain::Chain;
use super::lingo_bp::{Losses, Refinement};
use super::organism::{Stated, vocabulary};
use crate::activations::Readout;
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
    /// The answers that they were fitted on and chosen by: states `[rows, width]` at the site, and losses.
    pub drawn: (Array2<f32>, Vec<Losses>),
}

/// Cases with a drawn strategy each: the losses of their answers, and their states.
struct Drawn {
    losses: Vec<Losses>,
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
        let train = draw(model, judge, fitted, sites, seed)?;
        let check = draw(model, judge, validation, sites, seed + 1)?;
        let [safe, satisfied] = [Drawn::safe, Drawn::satisfied].map(|of| of(&train, goal));
        let [check_safe, check_satisfied] = [Drawn::safe, Drawn::satisfied].map(|of| of(&check, goal));
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
                safe: fit("safe", &safe)?,
                satisfied: fit("satisfied", &satisfied)?,
                accuracy: 0.0,
                rows: fitted.len(),
                drawn: (Array2::default((0, 0)), Vec::new()),
            };
            let values = probes.values(other.view())?;
            let right = values.iter().zip(check_safe.iter().zip(&check_satisfied)).filter(
                |(value, (safe, satisfied))| {
                    (value.safe >= 0.5) == **safe && (value.satisfied >= 0.5) == **satisfied
                },
            );
            probes.accuracy = right.count() as f64 / validation.len() as f64;
            if best.as_ref().is_none_or(|best| probes.accuracy > best.accuracy) {
                let both = concatenate![Axis(0), own.view(), other.view()];
                probes.drawn = (both, train.losses.iter().chain(&check.losses).copied().collect());
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

impl Drawn {
    fn safe(&self, goal: &Refinement) -> Vec<bool> {
        self.losses.iter().map(|losses| losses.safety <= goal.safety).collect()
    }

    fn satisfied(&self, goal: &Refinement) -> Vec<bool> {
        self.losses.iter().map(|losses| losses.satisfaction <= goal.satisfaction).collect()
    }
}

impl ValueProbes {
    /// The two readouts at the end of a thinking part, safe and satisfied: each is a logit without its bias.
    pub fn readouts(&self) -> [Readout; 2] {
        [&self.safe, &self.satisfied]
            .map(|probe| Readout::Direction(self.site, probe.weight.row(0).to_owned()))
    }

    /// The value at two readouts.
    pub fn value_at(&self, [safe, satisfied]: [f64; 2]) -> Value {
        let of = |probe: &Probe, readout: f64| {
            let logit = Array2::from_elem((1, 1), readout + f64::from(probe.bias[0]));
            probe.from_logits(logit)[[0, 1]]
        };
        Value { safe: of(&self.safe, safe), satisfied: of(&self.satisfied, satisfied) }
    }
}

/// Draws a strategy for each case, lets the model answer, and reads the states.
fn draw(model: &Model, judge: &dyn Scorer, cases: &[Case], sites: &[Site], seed: u64) -> Result<Drawn> {
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
    let mut losses = Vec::with_capacity(dialogues.len());
    for (dialogue, transcript) in dialogues.iter().zip(&transcripts) {
        // What can't be judged is worth nothing.
        let own = outcome(judge, dialogue, transcript)?.map(|outcome| outcome.losses);
        losses.push(own.unwrap_or(Losses { safety: 1.0, satisfaction: 1.0 }));
    }
    let dialogues: Vec<&Dialogue> = dialogues.iter().collect();
    Ok(Drawn { losses, states: states(model, &dialogues, &thinking, sites)? })
}
