//! Refinement of failing answers by Lingo-BP: users of the organism's world, or dialogues of any chat model, in; for each engine the share of
//! failing answers that meet both losses within the steps, with intervals over groups, and every history, out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::chain_path::chain_paths;
use super::group_interval;
use super::pearl_map::SitePearlMap;
use crate::config::defaults::BATCH_ROWS;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, generate};
use crate::judge::{Scorer, World};
use crate::model::{Model, Site};
use crate::organism::{self, Split, fit_topic, read_thought};
use crate::progress::Progress;
use crate::reasoning::answering::{Answering, outcome};
use crate::reasoning::free_answering::FreeAnswering;
use crate::reasoning::{
    AskModel, Case, Chain, EditEngine, Failure, Forward, GradientSearch, History, ModelEngine, Outcome,
    ProbeSearch, RandomEdits, Reader, Refinement, Strategy, ValueProbes, first_chain, organism as grammar,
    refine,
};
use crate::stats::Interval;

/// Topics whose users choose the site of the value probes.
const VALIDATION: [&str; 3] = ["biodiversity", "music", "public-order"];
/// Tokens of an answer with its thinking part, at most.
const MAX_TOKENS: usize = 48;

/// An engine of edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Search by value probes; of the organism.
    Probes,
    /// Search by the model's own gradient; of the organism.
    Gradient,
    /// Random edits of the same budget.
    Random,
    /// A local model that is asked.
    Model,
    /// A model behind an endpoint.
    Endpoint,
}

const ENGINES: [(Engine, &str); 5] = [
    (Engine::Probes, "probes"),
    (Engine::Gradient, "gradient"),
    (Engine::Random, "random"),
    (Engine::Model, "model"),
    (Engine::Endpoint, "endpoint"),
];

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The table has every variant.
        f.write_str(ENGINES.iter().find(|(engine, _)| engine == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(text: &str) -> Result<Engine> {
        let found = ENGINES.iter().find(|(_, name)| *name == text).map(|(engine, _)| *engine);
        found.ok_or_else(|| {
            Error::input("engine", format!("{text:?}"), ENGINES.map(|(_, name)| name).join(", "))
        })
    }
}

/// What is refined.
#[derive(Clone, Debug)]
pub struct RefinementOptions {
    /// Users drawn from the world; those of held-out topics are refined, the others fit the value probes.
    pub users: usize,
    /// The engines, in the order of the table.
    pub engines: Vec<Engine>,
    /// Steps and losses.
    pub refinement: Refinement,
    /// Paths that are drawn over the map of the value probes' plane; 0 makes no map.
    pub paths: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for RefinementOptions {
    fn default() -> RefinementOptions {
        let engines = vec![Engine::Probes, Engine::Random];
        RefinementOptions { users: 3000, engines, refinement: Refinement::default(), paths: 0, seed: 0 }
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
    /// Proposals that could not be parsed, in all.
    #[serde(default)]
    pub unparsed: usize,
    /// Proposals past their budget, in all.
    #[serde(default)]
    pub past_budget: usize,
    /// Answers whose verdict could not be parsed, in all.
    #[serde(default)]
    pub unjudged: usize,
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
    /// Answers: to users of held-out topics, or to the dialogues given.
    pub answers: usize,
    /// Those that fail a loss.
    pub failing: usize,
    /// Failing ones without a chain that could be edited; they count as not met.
    pub without_chain: usize,
    /// Answers whose first verdict could not be parsed; they are no part of the others.
    #[serde(default)]
    pub unjudged: usize,
    /// Site of the value probes; none without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// Share of validation cases, each with a strategy drawn at random, that both probes tell rightly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The engines, in the order given.
    pub engines: Vec<EngineResult>,
}

/// Refines the failing answers of a model of the organism's language; the map has the paths of the first engine's longest refinements, where
/// it was asked for. Histories are added to `refined` as they come, so that they are there
/// if a later one fails.
///
/// # Errors
/// Too few users; an engine that asks a model; a model whose answers can't be generated; a stop.
pub fn refine_failing(
    model: &Model,
    options: &RefinementOptions,
    refined: &mut Vec<Refined>,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(RefinementTable, Option<SitePearlMap>)> {
    if let Some(engine) = options.engines.iter().find(|one| matches!(one, Engine::Model | Engine::Endpoint)) {
        let expected = "--data FILE with it: the organism's world has an engine of its own, probes";
        return Err(Error::input("--engine", format!("{engine} without dialogues"), expected));
    }
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
        // The world's judge judges every answer.
        let Some(own) = outcome(&World, &dialogue, transcript)? else { continue };
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
    let vocabulary = grammar::vocabulary();
    let total = options.engines.len() * failing.len();
    for (number, (case, own)) in failing.iter().enumerate() {
        let Case { dialogue, stated, chain } = case;
        let reader = Reader { model, dialogue, stated, vocabulary: &vocabulary, probes: &probes };
        let mut forward = Answering { model, judge: &World, dialogue, stated };
        for engine in &options.engines {
            let mut engine: Box<dyn EditEngine> = match engine {
                Engine::Gradient => Box::new(GradientSearch(reader)),
                Engine::Random => Box::new(RandomEdits::new(
                    Some(stated),
                    &vocabulary,
                    options.seed.wrapping_add(number as u64),
                )),
                // The others were refused above.
                Engine::Probes | Engine::Model | Engine::Endpoint => Box::new(ProbeSearch(reader)),
            };
            run((&dialogue.id, chain, own), &mut forward, engine.as_mut(), options, refined)?;
            if !on_progress(Progress { stage: "refine failing answers", done: refined.len(), total }) {
                return Err(Error::Stopped);
            }
        }
    }
    let topics: Vec<String> =
        failing.iter().map(|(case, _)| case.dialogue.label("topic").unwrap_or_default()).collect();
    let map = match options.paths {
        0 => None,
        _ => {
            // The engines of a case follow one another.
            let firsts = refined.iter().step_by(options.engines.len());
            let mut longest: Vec<_> = failing.iter().zip(firsts).filter(|(_, one)| one.history.met).collect();
            longest.sort_by_key(|(_, one)| std::cmp::Reverse(one.history.steps.len()));
            let drawn: Vec<_> = longest
                .into_iter()
                .take(options.paths)
                .map(|((case, _), one)| (&case.dialogue, &case.stated, &one.history))
                .collect();
            Some(chain_paths(model, &probes, &drawn, options.seed)?)
        }
    };
    let table = RefinementTable {
        answers,
        failing: failing.len() + without_chain,
        without_chain,
        unjudged: 0,
        site: Some(probes.site),
        accuracy: Some(probes.accuracy),
        engines: engine_results(refined, &topics, without_chain, options),
    };
    Ok((table, map))
}

/// A dialogue of any chat model, with the chain of its answer where there is one.
pub struct FreeCase {
    /// The dialogue.
    pub dialogue: Dialogue,
    /// The chain; without one, the model that is asked for edits writes it.
    pub chain: Option<Chain>,
}

/// What answers and judges free dialogues, and what is asked for edits.
pub struct FreeModels<'a> {
    /// The model that answers.
    pub model: &'a Model,
    /// How it answers.
    pub generation: &'a GenerateOptions,
    /// The judge.
    pub judge: &'a dyn Scorer,
    /// The models that are asked for edits, by their engine.
    pub asked: Vec<(Engine, Box<dyn AskModel + 'a>)>,
    /// The label to group by for intervals; a dialogue without it is a group of its own.
    pub group: &'a str,
}

/// Refines the failing answers to free dialogues, each from its chain. Histories are added to `refined` as they come, so that they are there
/// if a later one fails.
///
/// # Errors
/// No dialogue; an engine that is the organism's alone; a chain that no model is asked for; a judge that does not appraise; no failing
/// answer; a stop.
pub fn refine_dialogues(
    models: &FreeModels,
    cases: &[FreeCase],
    options: &RefinementOptions,
    refined: &mut Vec<Refined>,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<RefinementTable> {
    if let Some(engine) = options.engines.iter().find(|one| matches!(one, Engine::Probes | Engine::Gradient))
    {
        let expected = "random, model or endpoint: value probes are the organism's, without --data";
        return Err(Error::input("--engine", format!("{engine} with dialogues"), expected));
    }
    let FreeModels { model, generation, judge, asked, group } = models;
    let chain_model = asked.first().map(|(_, asked)| asked);
    if let (Some(case), None) = (cases.iter().find(|case| case.chain.is_none()), chain_model) {
        let place = format!("dialogue {}", case.dialogue.id);
        return Err(Error::input(place, "no chain", "one, or an engine that writes it (model, endpoint)"));
    }
    cases.iter().try_for_each(|case| judge.check(&case.dialogue))?;
    let vocabulary: Vec<Strategy> = {
        let mut all: Vec<Strategy> = cases
            .iter()
            .filter_map(|case| case.chain.as_ref())
            .flat_map(|chain| chain.strategies.clone())
            .collect();
        all.sort();
        all.dedup();
        all
    };
    let (mut without_chain, mut unjudged, mut failing, mut groups) = (0, 0, 0, Vec::new());
    for (number, FreeCase { dialogue, chain }) in cases.iter().enumerate() {
        if !on_progress(Progress { stage: "refine answers", done: number, total: cases.len() }) {
            return Err(Error::Stopped);
        }
        let written = match (chain, chain_model) {
            (Some(chain), _) => Ok(chain.clone()),
            (None, Some(asked)) => first_chain(asked.as_ref(), dialogue)?,
            (None, None) => Err(String::new()),
        };
        let Ok(chain) = written else {
            without_chain += 1;
            continue;
        };
        let mut forward = FreeAnswering { model, judge: *judge, dialogue, options: generation };
        let Some(own) = forward.forward(&chain)? else {
            unjudged += 1;
            continue;
        };
        if options.refinement.is_met(&own.losses) {
            continue;
        }
        failing += 1;
        groups.push(dialogue.label(group).unwrap_or_else(|| format!("\0{number}")));
        for engine in &options.engines {
            let by_model = asked.iter().find(|(own, _)| own == engine);
            let mut engine: Box<dyn EditEngine> = match by_model {
                Some((_, asked)) => Box::new(ModelEngine { asked: asked.as_ref(), dialogue }),
                None => {
                    Box::new(RandomEdits::new(None, &vocabulary, options.seed.wrapping_add(number as u64)))
                }
            };
            run((&dialogue.id, &chain, &own), &mut forward, engine.as_mut(), options, refined)?;
        }
    }
    if failing == 0 {
        let found = format!(
            "{} answers, none of which fails; {without_chain} without a chain, {unjudged} without a verdict",
            cases.len()
        );
        return Err(Error::input("reasoning", found, "answers that fail a loss"));
    }
    Ok(RefinementTable {
        answers: cases.len() - without_chain - unjudged,
        failing,
        without_chain,
        unjudged,
        site: None,
        accuracy: None,
        engines: engine_results(refined, &groups, 0, options),
    })
}

/// Refines one answer by one engine.
fn run(
    (id, chain, own): (&str, &Chain, &Outcome),
    forward: &mut dyn Forward,
    engine: &mut dyn EditEngine,
    options: &RefinementOptions,
    refined: &mut Vec<Refined>,
) -> Result<()> {
    let history = refine(chain, own, forward, engine, &options.refinement)?;
    refined.push(Refined { id: id.into(), engine: engine.name().into(), history });
    Ok(())
}

/// The results of all engines. `groups`: of the refined answers of each, in order.
fn engine_results(
    refined: &[Refined],
    groups: &[String],
    without_chain: usize,
    options: &RefinementOptions,
) -> Vec<EngineResult> {
    let result = |engine: &Engine| {
        let engine = engine.to_string();
        let own: Vec<&Refined> = refined.iter().filter(|one| one.engine == engine).collect();
        engine_result(&engine, &own, groups, without_chain, options)
    };
    options.engines.iter().map(result).collect()
}

fn engine_result(
    engine: &str,
    refined: &[&Refined],
    topics: &[String],
    without_chain: usize,
    options: &RefinementOptions,
) -> EngineResult {
    let met_within = |steps: usize| -> Vec<bool> {
        let one = |one: &&Refined| one.history.met && one.history.spent() <= steps;
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
    let count = |kind: Failure| refined.iter().map(|one| one.history.failures(kind)).sum();
    EngineResult {
        engine: engine.into(),
        met: met.unwrap_or(Interval { value, low: value, high: value }),
        met_by_step: (1..=options.refinement.steps).map(|steps| share(&met_within(steps))).collect(),
        steps: mean(&|one| one.history.spent() as f64),
        unparsed: count(Failure::Unparsed),
        past_budget: count(Failure::PastBudget),
        unjudged: count(Failure::Unjudged),
        losses: [
            mean(&|one| one.history.last().losses.safety),
            mean(&|one| one.history.last().losses.satisfaction),
        ],
    }
}
