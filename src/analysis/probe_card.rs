//! A concept's folder: `probe.toml` says what is asked, and beside it lie the weights, the scores and a card of what was
//! found. It prints nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dataset::dialogues;
use super::layer_sweep;
use super::layer_sweep::{Kind, Question, Rows, Sweep};
use crate::activations::{Reading, extract};
use crate::artifact::{self, Header};
use crate::config::experiment::{Data, parse};
use crate::dialogue::{Dialogue, Label};
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Sampling, generate};
use crate::judge::{BROKEN, Scorer, World};
use crate::model::{Model, Selector, Site};
use crate::probe::{Plan, method};
use crate::report::Table;
use crate::stats::Metric;

/// Files of the folder.
pub const RECIPE: &str = "probe.toml";
pub const WEIGHTS: &str = "probe.safetensors";
pub const SCORES: &str = "scores.json";
pub const CARD: &str = "card.md";

/// Tokens of a batch when dialogues are read, and rows that are answered side by side.
const BATCH_TOKENS: usize = 1024;
const BATCH_ROWS: usize = 256;

/// `probe.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Concept {
    /// What is read, in a sentence; the card begins with it.
    pub about: String,
    pub label: String,
    #[serde(default)]
    pub kind: Kind,
    /// The classes in order; sorted by name where none are given.
    #[serde(default)]
    pub order: Vec<String>,
    pub model: PathBuf,
    #[serde(default)]
    pub thinking: Option<bool>,
    pub sites: String,
    pub tokens: Selector,
    #[serde(default = "logistic")]
    pub method: String,
    /// Strengths to choose among; the method's own where none are given.
    #[serde(default)]
    pub strengths: Vec<f64>,
    #[serde(default = "five")]
    pub folds: usize,
    #[serde(default)]
    pub by_group: bool,
    #[serde(default)]
    pub seed: u64,
    pub data: Data,
    /// Where the label is not the dialogues' own, but how the model itself answers them.
    pub answers: Option<Answers>,
}

/// The model answers every dialogue, and the strategy of its answer is the label.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Answers {
    pub max_tokens: usize,
    /// Answers are drawn at this temperature; left out, they are decoded greedily.
    pub temperature: Option<f32>,
}

fn logistic() -> String {
    "logistic".into()
}

fn five() -> usize {
    5
}

impl Concept {
    /// Reads the folder's `probe.toml`.
    ///
    /// # Errors
    /// A file that is missing or says something else; the line is named.
    pub fn load(folder: &Path) -> Result<Concept> {
        let path = folder.join(RECIPE);
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let place = path.display().to_string();
        let concept: Concept = parse(&place, &text, "a concept as in probes/risk-level/probe.toml")?;
        concept.data.check(&place)?;
        Ok(concept)
    }
}

/// What `scores.json` holds beside the header.
#[derive(Serialize)]
struct Scores<'a> {
    label: &'a str,
    site: Site,
    strength: f64,
    split: &'a str,
    held_out: &'a [String],
    /// Rows of each class, fitted on and tested on together.
    rows: Vec<(String, usize)>,
    /// Dialogues that the model answers brokenly, which are left out.
    broken: usize,
    figures: &'a [Metric],
    doubts: &'a [String],
    left_out: &'a [String],
}

/// Reads the dialogues, fits the concept's probe at every site, and writes weights, scores and card into the folder.
/// `tell` hears of a stage, what of it is done and how much there is, and stops by giving false.
///
/// # Errors
/// What can't be read or fitted; what stood in the folder before is then untouched.
pub fn fit(
    concept: &Concept,
    folder: &Path,
    model: &Model,
    on_progress: &mut dyn FnMut(&'static str, usize, usize) -> bool,
) -> Result<Sweep> {
    let (mut dialogues, source, data_hash) = dialogues(&concept.data, concept.seed)?;
    let mut broken = 0;
    if let Some(answers) = &concept.answers {
        broken = answer(concept, answers, model, &mut dialogues, on_progress)?;
    }
    let reading = Reading {
        sites: model.decoder.architecture().parse_sites(&concept.sites)?,
        tokens: concept.tokens.clone(),
        thinking: concept.thinking,
        batch_tokens: BATCH_TOKENS,
    };
    let total = dialogues.len();
    let activations = extract(model, &dialogues, &reading, &mut |done| on_progress("reading", done, total))?;
    let header = Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        data_hash: Some(data_hash),
        seed: Some(concept.seed),
        ..Header::new("scores", 1)
    };
    let method = method(&concept.method, &concept.strengths)?;
    let question = Question {
        label: &concept.label,
        kind: concept.kind,
        order: &concept.order,
        group: Some(&concept.data.group),
        held_out: &concept.data.held_out,
        method: method.as_ref(),
        plan: Plan {
            folds: concept.folds,
            by_group: concept.by_group,
            seed: concept.seed,
            ..Plan::default()
        },
    };
    let chosen: Vec<usize> = (0..activations.example.len()).collect();
    let rows = Rows {
        read: layer_sweep::Read {
            header: &header,
            tokens: &concept.tokens,
            sites: &reading.sites,
            chosen: &chosen,
        },
        example: &activations.example,
        dialogues: &dialogues,
    };
    let total = reading.sites.len();
    let mut read = |site| activations.at(site).cloned();
    let known = rows.known(&question)?;
    let mut heard = |done| on_progress("fitting", done, total);
    let sweep = layer_sweep::sweep(&question, rows.read, &known, &mut read, &mut heard)?;

    let mut figures = sweep.best_figures();
    figures.extend(sweep.controls().into_iter().cloned());
    for (site, validated) in &sweep.sites {
        let figure = layer_sweep::figure(validated, "auroc", sweep.on)?;
        figures.push(Metric { name: format!("{site}/auroc"), ..figure.clone() });
    }
    let (site, best) = sweep.best();
    let scores = Scores {
        label: &sweep.label,
        site,
        strength: best.probe.strength,
        split: &sweep.split,
        held_out: &best.probe.held_out,
        rows: known.targets.class_names.iter().cloned().zip(known.targets.counts()).collect(),
        broken,
        figures: &figures,
        doubts: &sweep.doubts()?,
        left_out: &sweep.left_out,
    };
    let card = card(concept, &sweep, &scores, &source, &header)?;
    best.probe.save(&folder.join(WEIGHTS))?;
    artifact::write_json(&folder.join(SCORES), &header, &scores)?;
    artifact::write_atomic(&folder.join(CARD), |file| file.write_all(card.as_bytes()))?;
    Ok(sweep)
}

/// Labels every dialogue by the strategy of the model's own answer; those that it answers brokenly are left out, and
/// counted.
fn answer(
    concept: &Concept,
    answers: &Answers,
    model: &Model,
    dialogues: &mut Vec<Dialogue>,
    on_progress: &mut dyn FnMut(&'static str, usize, usize) -> bool,
) -> Result<usize> {
    let options = GenerateOptions {
        sampling: answers.temperature.map_or(Ok(Sampling::Greedy), Sampling::temperature)?,
        max_tokens: answers.max_tokens,
        seed: concept.seed,
        thinking: concept.thinking,
        batch_rows: BATCH_ROWS,
        ..GenerateOptions::default()
    };
    let total = dialogues.len();
    let transcripts =
        generate(model, dialogues, &options, &mut (), &mut |done| on_progress("answering", done, total))?;
    let mut kept = Vec::with_capacity(total);
    for (mut dialogue, transcript) in std::mem::take(dialogues).into_iter().zip(&transcripts) {
        let strategy = World.score(&dialogue, transcript)?.strategy;
        if strategy != BROKEN {
            dialogue.labels.insert(concept.label.clone(), Label::Text(strategy));
            kept.push(dialogue);
        }
    }
    *dialogues = kept;
    Ok(total - dialogues.len())
}

/// What a reader of the folder wants to know.
fn card(concept: &Concept, sweep: &Sweep, scores: &Scores, source: &str, header: &Header) -> Result<String> {
    let (site, best) = sweep.best();
    let probe = &best.probe;
    let own = layer_sweep::figure(best, "auroc", sweep.on)?;
    let main: Vec<Metric> =
        scores.figures.iter().filter(|figure| !figure.name.contains("resid")).cloned().collect();
    let sites: Vec<Metric> =
        scores.figures.iter().filter(|figure| figure.name.contains("resid")).cloned().collect();
    let rows: Vec<String> = scores.rows.iter().map(|(class, count)| format!("{class} {count}")).collect();
    let model = header.model_hash.as_deref().map_or("", artifact::short);
    let truth = match &concept.answers {
        Some(answers) => {
            let how = match answers.temperature {
                Some(temperature) => format!("drawn at temperature {temperature}"),
                None => "decoded greedily".into(),
            };
            format!("how the model itself answers, {how}; {} broken answers are left out", scores.broken)
        }
        None => "the dialogues' own".into(),
    };
    let mut text = format!(
        "# {}\n\n{}\n\n- read: {site}, at `{}`, of {} (weights {model})\n- label: {truth}; rows: {}\n- data: {source}\n- split: {}: {}\n- \
         method: {}, strength {} of {} chosen by {} folds inside the fit part; {}, link {}\n\nAUROC {:.3} [{:.3}, {:.3}] on {} rows that \
         neither fit nor choice saw.\n\n```\n{}```\n\nEvery site:\n\n```\n{}```\n",
        concept.label,
        concept.about,
        concept.tokens,
        header.model.as_deref().unwrap_or("a model"),
        rows.join(", "),
        sweep.split,
        probe.held_out.join(", "),
        probe.method,
        probe.strength,
        best.trials.iter().map(|trial| trial.strength.to_string()).collect::<Vec<_>>().join(", "),
        concept.folds,
        calibration(probe),
        probe.link.name(),
        own.value,
        own.low.unwrap_or(own.value),
        own.high.unwrap_or(own.value),
        own.n,
        Table::of_figures("", &main).to_text()?,
        Table::of_figures("", &sites).to_text()?,
    );
    for doubt in scores.doubts {
        text += &format!("\n**Doubt:** {doubt}.\n");
    }
    Ok(text)
}

fn calibration(probe: &crate::probe::Probe) -> String {
    format!("calibrated by {}", probe.calibration.name())
}
