//! Refinement of the organism's failing answers by Lingo-BP: users of its world in; for each engine the share of failing answers that meet
//! both losses within the steps, with intervals over topics, and every history, out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::group_interval;
use crate::config::defaults::BATCH_ROWS;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, generate};
use crate::judge::{Scorer, World};
use crate::model::{Model, Site};
use crate::organism::{self, Split, fit_topic, read_thought};
use crate::progress::Progress;
use crate::reasoning::answering::{Answering, outcome};
use crate::reasoning::{
    Case, EditEngine, History, Outcome, ProbeSearch, RandomEdits, Refinement, ValueProbes,
    organism as grammar, refine,
};
use crate::stats::Interval;

/// Topics whose users choose the site of the value probes.
const VALIDATION: [&str; 3] = ["biodiversity", "music", "public-order"];
/// Tokens of an answer with its thinking part, at most.
const MAX_TOKENS: usize = 48;

/// What is refined.
#[derive(Clone, Debug)]
pub struct RefinementOptions {
    /// Users drawn from the world; those of held-out topics are refined, the others fit the value probes.
    pub users: usize,
    /// Steps and losses.
    pub refinement: Refinement,
    /// Seed.
    pub seed: u64,
}

impl Default for RefinementOptions {
    fn default() -> RefinementOptions {
        RefinementOptions { users: 3000, refinement: Refinement::default(), seed: 0 }
    }
}

/// What one engine reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineResult {
    /// The engine.
    pub engine: String,
    /// Share of failing answers that meet both losses at the end.
    pub met: Interval,
    /// The same after each number of steps, from one.
    pub met_by_step: Vec<f64>,
    /// Mean number of steps.
    pub steps: f64,
    /// Mean losses at the end: safety, satisfaction.
    pub losses: [f64; 2],
}

/// A refined answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refined {
    /// The dialogue's id.
    pub id: String,
    /// The engine.
    pub engine: String,
    /// Its steps.
    #[serde(flatten)]
    pub history: History,
}

/// The table (JSON, kind `chain-refinement`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefinementTable {
    /// Answers to users of held-out topics.
    pub answers: usize,
    /// Those that fail a loss.
    pub failing: usize,
    /// Failing ones without a chain that could be edited; they count as not met.
    pub without_chain: usize,
    /// Site of the value probes, and the share of validation cases that they tell rightly.
    pub site: Site,
    /// Share of validation cases, each with a strategy drawn at random, that both probes tell rightly.
    pub accuracy: f64,
    /// The engines, the search first.
    pub engines: Vec<EngineResult>,
}

/// Refines the failing answers of a model of the organism's language.
///
/// # Errors
/// Too few users; a model whose answers can't be generated; a stop.
pub fn refine_failing(
    model: &Model,
    options: &RefinementOptions,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(RefinementTable, Vec<Refined>)> {
    organism::check_count("reasoning", options.users)?;
    let drawn = organism::sample(options.users, Split::HeldOutWording, options.seed);
    let dialogues: Vec<Dialogue> = drawn.into_iter().map(|(_, dialogue)| dialogue).collect();
    let generation =
        GenerateOptions::default().max_tokens(MAX_TOKENS).seed(options.seed).batch_rows(BATCH_ROWS);
    let total = dialogues.len();
    let mut on_done = |done| on_progress(Progress { stage: "answer users", done, total });
    let transcripts = generate(model, &dialogues, &generation, &mut (), &mut on_done)?;
    let (mut fitted, mut validation, mut failing) = (Vec::new(), Vec::new(), Vec::new());
    let (mut answers, mut without_chain) = (0, 0);
    for (dialogue, transcript) in dialogues.into_iter().zip(&transcripts) {
        let topic = dialogue.label("topic").unwrap_or_default();
        let case = read_thought(&transcript.text).map(|thought| {
            let (chain, stated) = grammar::chain(&thought);
            Case { dialogue: dialogue.clone(), chain, stated }
        });
        if fit_topic(&topic) {
            let part = if VALIDATION.contains(&topic.as_str()) { &mut validation } else { &mut fitted };
            part.extend(case);
            continue;
        }
        answers += 1;
        let own = outcome(&World, &dialogue, transcript)?;
        if options.refinement.is_met(&own.losses) {
            continue;
        }
        match case {
            Some(case) => failing.push((case, own)),
            None => without_chain += 1,
        }
    }
    if failing.is_empty() {
        let found = format!("{answers} answers to users of held-out topics, none of which fails");
        return Err(Error::input("reasoning", found, "more users"));
    }
    let sites: Vec<Site> = model.decoder.architecture().parse_sites("*.resid_post")?;
    let probes =
        ValueProbes::fit(model, &World, (&fitted, &validation), &sites, &options.refinement, options.seed)?;
    let mut refined = Vec::new();
    let total = 2 * failing.len();
    for (number, (case, own)) in failing.iter().enumerate() {
        let Case { dialogue, stated, .. } = case;
        let mut search = ProbeSearch { model, dialogue, stated, probes: &probes };
        let mut random = RandomEdits::new(stated, options.seed.wrapping_add(number as u64));
        let engines: [&mut dyn EditEngine; 2] = [&mut search, &mut random];
        for engine in engines {
            let history = run(model, &World, (case, own), engine, &options.refinement)?;
            refined.push(Refined { id: dialogue.id.clone(), engine: engine.name().into(), history });
            if !on_progress(Progress { stage: "refine failing answers", done: refined.len(), total }) {
                return Err(Error::Stopped);
            }
        }
    }
    let topics: Vec<String> =
        failing.iter().map(|(case, _)| case.dialogue.label("topic").unwrap_or_default()).collect();
    let engines = ["probes", "random"].map(|engine| {
        let own: Vec<&Refined> = refined.iter().filter(|one| one.engine == engine).collect();
        engine_result(engine, &own, &topics, without_chain, options)
    });
    let table = RefinementTable {
        answers,
        failing: failing.len() + without_chain,
        without_chain,
        site: probes.site,
        accuracy: probes.accuracy,
        engines: engines.to_vec(),
    };
    Ok((table, refined))
}

fn run(
    model: &Model,
    judge: &dyn Scorer,
    (case, own): (&Case, &Outcome),
    engine: &mut dyn EditEngine,
    options: &Refinement,
) -> Result<History> {
    let mut forward = Answering { model, judge, dialogue: &case.dialogue, stated: &case.stated };
    refine(&case.chain, own, &mut forward, engine, options)
}

fn engine_result(
    engine: &str,
    refined: &[&Refined],
    topics: &[String],
    without_chain: usize,
    options: &RefinementOptions,
) -> EngineResult {
    let met_within = |steps: usize| -> Vec<bool> {
        let one = |one: &&Refined| one.history.met && one.history.steps.len() <= steps;
        // Answers without a chain are of no topic's rows; they count as not met, each by itself.
        refined.iter().map(one).chain(std::iter::repeat_n(false, without_chain)).collect()
    };
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    topics.iter().enumerate().for_each(|(row, topic)| groups.entry(topic).or_default().push(row));
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    groups.extend((0..without_chain).map(|row| vec![topics.len() + row]));
    let share = |hits: &[bool]| hits.iter().filter(|hit| **hit).count() as f64 / hits.len().max(1) as f64;
    let hits = met_within(options.refinement.steps);
    let value = share(&hits);
    let met = group_interval::share(&hits, &groups, options.seed);
    let mean = |of: &dyn Fn(&Refined) -> f64| {
        refined.iter().map(|one| of(one)).sum::<f64>() / refined.len().max(1) as f64
    };
    EngineResult {
        engine: engine.into(),
        met: met.unwrap_or(Interval { value, low: value, high: value }),
        met_by_step: (1..=options.refinement.steps).map(|steps| share(&met_within(steps))).collect(),
        steps: mean(&|one| one.history.steps.len() as f64),
        losses: [
            mean(&|one| one.history.last().losses.safety),
            mean(&|one| one.history.last().losses.satisfaction),
        ],
    }
}
