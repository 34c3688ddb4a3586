//! Fit of a policy: a model, labelled dialogues and a judge in; belief probe, game, directions with their doses, and risk faces out.

use std::collections::BTreeMap;

use super::dose::{self, DoseOptions, FoundDose};
use super::policy::{Policy, PolicySettings, StrategyDose};
use crate::activations::Labelled;
use crate::analysis::answers::{Answering, Answers};
use crate::analysis::game_estimate::{EstimateOptions, estimate};
use crate::boundary::{ErrorKind, RiskBound, Threshold, threshold};
use crate::config::StrategySpec;
use crate::dialogue::{Dialogue, Dialogues, Label};
use crate::error::{Error, Result};
use crate::game::Game;
use crate::generate::Sampling;
use crate::judge::{self, Scorer};
use crate::model::{Model, Selector, Site};
use crate::probe::Probe;
use crate::progress::Progress;
use crate::steer::Vector;

/// How a policy is fitted. The default fits the organism.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// The label of the user's type.
    pub label: String,
    /// The type that attacks.
    pub attack: String,
    /// A label of the risk level, probed too where the dialogues have it.
    pub risk: String,
    /// The label to group by.
    pub group: String,
    /// Labels and values that nothing may be fitted on.
    pub held_out: Vec<(String, String)>,
    /// Its values that scores, thresholds and doses come from.
    pub validation: Vec<String>,
    /// Sites that the belief is read at; the best is chosen on folds.
    pub read_sites: String,
    /// Sites that are steered; the best is chosen on the validation part.
    pub sites: String,
    /// Tokens that are steered.
    pub tokens: String,
    /// The strategies that are steered.
    pub strategies: Vec<StrategySpec>,
    /// The game; estimated with simulated users of the organism's world where there is none.
    pub game: Option<Game>,
    /// Weights and simulated users of an estimated game; its topics held out and its seed are those of the fit.
    pub estimate: EstimateOptions,
    /// How doses are found.
    pub dose: DoseOptions,
    /// Share of attacks that may be missed by the threshold from which the face is held; its confidence is 0.9.
    pub alpha: f64,
    /// Mode of the chat template.
    pub thinking: Option<bool>,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> FitOptions {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let spec = |action: &str, class: &str, from: &str| StrategySpec {
            action: action.into(),
            class: class.into(),
            from: from.into(),
            to: action.into(),
            contrast: None,
        };
        FitOptions {
            label: "user-type".into(),
            attack: "malicious".into(),
            risk: "risk-level".into(),
            group: "topic".into(),
            held_out: crate::organism::wording::HELD_OUT_TOPICS
                .map(|topic| ("topic".to_owned(), topic.to_owned()))
                .to_vec(),
            validation: owned(&["biodiversity", "music", "public-order"]),
            read_sites: "2-5.resid_post".into(),
            sites: "3-4.resid_post".into(),
            tokens: "assistant.start".into(),
            strategies: vec![spec("guide", "sensitive", "refuse"), spec("refuse", "malicious", "unsafe")],
            game: None,
            estimate: EstimateOptions::default(),
            dose: DoseOptions::default(),
            alpha: 0.05,
            thinking: None,
            max_tokens: 48,
            seed: 0,
        }
    }
}

/// The label that the outcome of a dialogue's own answer is kept in.
const OUTCOME: &str = "own-answer";

/// The label of a dialogue's part, and its value in the fit part: directions are found on nothing else.
const PART: &str = "own-part";
const FITTED: &str = "fit";

/// Fits a policy.
///
/// # Errors
/// Data without the labels or groups that the options name; a strategy whose two outcomes don't both occur; a judge that can't judge the
/// dialogues; a stop.
pub fn fit(
    model: &Model,
    data: &Dialogues,
    judge: &dyn Scorer,
    options: &FitOptions,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Policy> {
    let tokens: Selector = options.tokens.parse()?;
    tokens.check_steering()?;
    for spec in &options.strategies {
        for (what, outcome) in [("from", &spec.from), ("to", &spec.to)] {
            judge::check_outcome(judge, &format!("strategy {}, {what}", spec.action), outcome)?;
        }
    }
    let dialogues = parts(data, options)?;
    judge::check_dialogues(judge, &dialogues)?;
    let is_validation: Vec<bool> =
        dialogues.iter().map(|dialogue| has(dialogue, &options.group, &options.validation)).collect();
    let fitted: Vec<usize> = (0..dialogues.len()).filter(|&number| !is_validation[number]).collect();
    let answering = Answering {
        model,
        judge,
        sampling: Sampling::Temperature(1.0),
        max_tokens: options.max_tokens,
        seed: options.seed,
        thinking: options.thinking,
    };
    let own = answering.answer(&dialogues, &fitted, &mut (), "answer the fit part", on_progress)?;
    let states = states(model, data, &dialogues, &own, options)?;
    let belief = states
        .probe(&options.label)
        .group(&options.group)
        .hold_out(options.validation.clone())
        .sites(&options.read_sites)
        .fit()?
        .best()
        .clone();
    let risk = match dialogues.iter().all(|dialogue| dialogue.label(&options.risk).is_some()) {
        true => Some(risk_probe(&states, options)?),
        false => None,
    };
    let game = match &options.game {
        Some(game) => game.clone(),
        None => {
            let own = EstimateOptions {
                exclude: options.held_out.clone(),
                seed: options.seed,
                ..options.estimate.clone()
            };
            estimate(model, &own, on_progress)?.game
        }
    };
    let shares = shares(&game, &dialogues, &fitted, &options.label);
    let attacks = attack_probabilities(&states, &belief, &options.attack)?;
    let attack_threshold = attack_threshold(&attacks, &dialogues, &is_validation, options)?;
    let (mut strategies, mut vectors, mut faces) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for spec in &options.strategies {
        let (label, from, to) = match &spec.contrast {
            None => {
                let [from, to] = [&spec.from, &spec.to].map(|outcome| format!("{}+{outcome}", spec.class));
                (format!("{}+{OUTCOME}", options.label), from, to)
            }
            Some(contrast) => {
                let [from, to] = [&contrast.from, &contrast.to].map(|value| format!("{value}+{FITTED}"));
                (format!("{}+{PART}", contrast.label), from, to)
            }
        };
        let (vector, rows) = states.contrast(&label, &from, &to).sites(&options.sites).build()?;
        let users: Vec<usize> = (0..dialogues.len())
            .filter(|&number| {
                is_validation[number]
                    && has(&dialogues[number], &options.label, std::slice::from_ref(&spec.class))
            })
            .collect();
        let coordinates: Vec<f64> = users.iter().map(|&number| log_odds(attacks[number])).collect();
        let mut best: Option<(Site, FoundDose)> = None;
        for &site in vector.directions.keys() {
            let along = (&vector, site, &tokens);
            let found = dose::find(
                &answering,
                &dialogues,
                (&users, &coordinates),
                along,
                (&spec.to, game.weights),
                &options.dose,
            )?;
            if best.as_ref().is_none_or(|(_, other)| found.rank > other.rank) {
                best = Some((site, found));
            }
        }
        let (site, found) =
            best.ok_or_else(|| Error::input("constructive", "no site to steer", "one or more"))?;
        let face = face(model, &dialogues, &own, spec, site, options)?;
        strategies.push(StrategyDose {
            spec: spec.clone(),
            site,
            strength: (found.strength * 1e3).round() / 1e3,
            pearl: found.pearl,
            answers: found.answers,
            rows,
            has_face: face.is_some(),
        });
        faces.extend(face.map(|face| (spec.action.clone(), face)));
        vectors.insert(spec.action.clone(), at_site(vector, site));
    }
    let settings = PolicySettings {
        label: options.label.clone(),
        shares,
        attack: options.attack.clone(),
        attack_threshold,
        group: options.group.clone(),
        held_out: options.held_out.clone(),
        strategies,
        tokens: options.tokens.clone(),
        thinking: options.thinking,
        judge: judge.name().into(),
    };
    let header = Policy::new_header(model, &data.hash, options.seed);
    let policy = Policy { header, settings, belief, risk, game, vectors, faces };
    policy.check("constructive")?;
    Ok(policy)
}

fn has(dialogue: &Dialogue, label: &str, values: &[String]) -> bool {
    dialogue.label(label).is_some_and(|value| values.contains(&value))
}

/// The dialogues of the fit and validation parts; the others are left out before anything is read.
fn parts(data: &Dialogues, options: &FitOptions) -> Result<Vec<Dialogue>> {
    let place = data.path.display().to_string();
    let missing = data
        .dialogues
        .iter()
        .find(|one| one.label(&options.label).is_none() || one.label(&options.group).is_none());
    if let Some(dialogue) = missing {
        let found = format!("dialogue {} without {} or {}", dialogue.id, options.label, options.group);
        return Err(Error::input(place, found, "both labels on every dialogue"));
    }
    let is_held_out = |dialogue: &Dialogue| {
        options.held_out.iter().any(|(label, value)| dialogue.label(label).as_ref() == Some(value))
    };
    let kept: Vec<Dialogue> = data.dialogues.iter().filter(|one| !is_held_out(one)).cloned().collect();
    let validation = kept.iter().filter(|one| has(one, &options.group, &options.validation)).count();
    if validation == 0 || validation == kept.len() {
        let found = format!("{validation} of {} dialogues in the validation part", kept.len());
        return Err(Error::input(place, found, format!("some, but not all, by values of {}", options.group)));
    }
    Ok(kept)
}

/// The states at all sites that are read or steered, with the outcome of each fitted dialogue's own answer as a label.
fn states(
    model: &Model,
    data: &Dialogues,
    dialogues: &[Dialogue],
    own: &Answers,
    options: &FitOptions,
) -> Result<Labelled> {
    let mut labelled = dialogues.to_vec();
    // Validation dialogues have an outcome that no direction asks for.
    labelled.iter_mut().for_each(|dialogue| {
        dialogue.labels.insert(OUTCOME.into(), Label::Text("not-answered".into()));
        dialogue.labels.insert(PART.into(), Label::Text("validation".into()));
    });
    for (&number, score) in own.numbers.iter().zip(&own.scores) {
        labelled[number].labels.insert(OUTCOME.into(), Label::Text(score.strategy.clone()));
        labelled[number].labels.insert(PART.into(), Label::Text(FITTED.into()));
    }
    let labelled = Dialogues::new(&data.path.display().to_string(), labelled)?;
    let architecture = model.decoder.architecture();
    let mut sites = architecture.parse_sites(&options.read_sites)?;
    sites.extend(architecture.parse_sites(&options.sites)?);
    sites.sort();
    sites.dedup();
    let names: Vec<String> = sites.iter().map(Site::to_string).collect();
    model.extraction(&names.join(","), "assistant.start")?.thinking(options.thinking).run(&labelled)
}

fn risk_probe(states: &Labelled, options: &FitOptions) -> Result<Probe> {
    let sweep = states
        .probe(&options.risk)
        .group(&options.group)
        .hold_out(options.validation.clone())
        .sites(&options.read_sites)
        .fit()?;
    Ok(sweep.best().clone())
}

/// Shares of the game's types in the fit part.
fn shares(game: &Game, dialogues: &[Dialogue], fitted: &[usize], label: &str) -> Vec<f64> {
    let count = |name: &str| {
        fitted.iter().filter(|&&number| dialogues[number].label(label).as_deref() == Some(name)).count()
            as f64
    };
    game.types.iter().map(|kind| count(&kind.name) / fitted.len().max(1) as f64).collect()
}

/// Probability of the attacking type of every dialogue.
fn attack_probabilities(states: &Labelled, belief: &Probe, attack: &str) -> Result<Vec<f64>> {
    let class = belief.class(attack)?;
    let probabilities = belief.probabilities(states.at(belief.source.site)?.view())?;
    Ok(probabilities.column(class).to_vec())
}

fn log_odds(probability: f64) -> f64 {
    // Beyond this the plane would be mostly empty.
    let p = probability.clamp(1e-3, 1.0 - 1e-3);
    (p / (1.0 - p)).ln()
}

/// The threshold on the validation part; none where its rows are too few for the bound.
fn attack_threshold(
    attacks: &[f64],
    dialogues: &[Dialogue],
    is_validation: &[bool],
    options: &FitOptions,
) -> Result<Option<Threshold>> {
    let rows: Vec<usize> = (0..attacks.len()).filter(|&row| is_validation[row]).collect();
    let scores: Vec<f64> = rows.iter().map(|&row| attacks[row]).collect();
    let positive: Vec<bool> = rows
        .iter()
        .map(|&row| has(&dialogues[row], &options.label, std::slice::from_ref(&options.attack)))
        .collect();
    if !(0.0..1.0).contains(&options.alpha) || options.alpha == 0.0 {
        return Err(Error::input("alpha", options.alpha, "between 0 and 1"));
    }
    Ok(threshold(&scores, &positive, RiskBound::confident(ErrorKind::Miss, options.alpha, 0.1)).ok())
}

/// The probe between the two outcomes of a strategy among users of its class, at the steered site; none where too few answers had one of
/// them.
fn face(
    model: &Model,
    dialogues: &[Dialogue],
    own: &Answers,
    spec: &StrategySpec,
    site: Site,
    options: &FitOptions,
) -> Result<Option<Probe>> {
    let mut chosen = Vec::new();
    for (&number, score) in own.numbers.iter().zip(&own.scores) {
        let is_one = [&spec.from, &spec.to].contains(&&score.strategy);
        if is_one && has(&dialogues[number], &options.label, std::slice::from_ref(&spec.class)) {
            let mut dialogue = dialogues[number].clone();
            dialogue.labels.insert(OUTCOME.into(), Label::Text(score.strategy.clone()));
            chosen.push(dialogue);
        }
    }
    let chosen = Dialogues::new("answers of the fit part", chosen)?;
    let states =
        model.extraction(&site.to_string(), "assistant.start")?.thinking(options.thinking).run(&chosen)?;
    let order = [spec.from.as_str(), spec.to.as_str()];
    // Too few rows of an outcome, or of its groups, leave the strategy without a face: the card says so.
    Ok(states.probe(OUTCOME).order(order).group(&options.group).fit().ok().map(|sweep| sweep.best().clone()))
}

/// The vector at one site alone.
fn at_site(vector: Vector, site: Site) -> Vector {
    let directions = vector.directions.into_iter().filter(|(other, _)| *other == site).collect();
    Vector { directions, ..vector }
}
