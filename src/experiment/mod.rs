//! The runners: an experiment, a steering grid or a probe folder, from its file to a folder of results. Every stage saves its
//! tables; progress goes to a callback.

pub mod boundary_stages;
pub mod probe_card;
mod report_page;
pub mod steering_grid;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::report_page::ReportPage;
use crate::activations::{self, Activations, Reading, extract_each};
use crate::analysis::cross_validation::{CrossValidated, cross_validate_sites};
use crate::analysis::dataset::Dataset;
use crate::analysis::interpolation::twins;
use crate::analysis::layer_sweep::{self, Question, Rows, Sweep};
use crate::analysis::pearl_map::pearl_map;
use crate::analysis::steering_eval::Evaluation;
use crate::artifact::{self, Header};
use crate::boundary::RiskMap;
use crate::config::defaults::BATCH_TOKENS;
use crate::error::{Error, Result};
use crate::judge::{self, Scorer};
use crate::model::{Model, Selector, Site};
use crate::probe::{Logistic, Plan, Targets};
use crate::report::{self, Chart, Results};

pub use self::report_page::headline;
pub use crate::config::Experiment;
pub use crate::progress::Progress;

/// The experiment that the program carries: the whole pipeline on the embedded model.
pub const DEMO: &str = include_str!("../../experiments/demo.toml");

/// The file that says what a run was made from.
const MADE_FROM: &str = "made-from.json";

/// What a run was made from (JSON, kind `made-from`).
#[derive(Serialize, Deserialize, PartialEq)]
struct MadeFrom {
    /// SHA-256 of the experiment with its model's and its data's hashes, in hex.
    hash: String,
    /// Version of the program.
    program: String,
}

/// The folder's results, if they were made from this experiment, model and data, by this version of the program.
///
/// # Errors
/// Data that can't be read.
pub fn fresh(experiment: &Experiment, model: &Model, out: &Path) -> Result<Option<Results>> {
    let data = Dataset::load(&experiment.data, experiment.seed)?;
    let now = made_from(experiment, model, &data)?;
    let before = artifact::read_json::<MadeFrom>(&out.join(MADE_FROM), "made-from", 1).ok();
    // A folder whose results are missing or of another kind is not fresh.
    Ok(before
        .filter(|(_, before)| *before == now)
        .and_then(|_| Results::read(&out.join("results.json")).ok()))
}

fn made_from(experiment: &Experiment, model: &Model, data: &Dataset) -> Result<MadeFrom> {
    let whole = serde_json::to_vec(&(experiment, &model.hash, &data.hash))
        .map_err(|error| Error::input("experiment", error, "what JSON can hold"))?;
    Ok(MadeFrom { hash: artifact::sha256(&whole), program: env!("CARGO_PKG_VERSION").into() })
}

/// Runs an experiment into a folder, and gives the results, as `results.json` has them; files of an earlier run are replaced.
/// `text` is the experiment's own text, kept beside the results. `on_progress` stops the run by giving false.
///
/// # Errors
/// A judge that can't judge the data or the outcomes, before any work begins; what a stage can't do; a stop.
pub fn run(
    experiment: &Experiment,
    text: &str,
    model: &Model,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Results> {
    let data = Dataset::load(&experiment.data, experiment.seed)?;
    let judge = checked_judge(experiment, model, &data)?;
    let judge = judge.as_ref();
    let header = |kind: &str| Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        data_hash: Some(data.hash.clone()),
        seed: Some(experiment.seed),
        ..Header::new(kind, 1)
    };
    let at = |name: &str| out.join(name);
    let before = at(MADE_FROM);
    if before.exists() {
        std::fs::remove_file(&before).map_err(Error::file(&before))?;
    }
    artifact::write_text(&at("experiment.toml"), text)?;
    crate::dialogue::write_jsonl(&at("dialogues.jsonl"), &data.dialogues)?;

    let reading = Reading {
        sites: model.decoder.architecture().parse_sites(&experiment.read.sites)?,
        tokens: experiment.read.tokens.clone(),
        thinking: experiment.thinking,
        batch_tokens: BATCH_TOKENS,
    };
    let mut selectors: Vec<Selector> = Vec::new();
    for tokens in experiment.probes.iter().filter_map(|probing| probing.tokens.as_ref()) {
        if *tokens != reading.tokens && !selectors.contains(tokens) {
            selectors.push(tokens.clone());
        }
    }
    let total = data.dialogues.len();
    let mut on_done = |done| on_progress(Progress { stage: "read activations", done, total });
    let mut read = extract_each(model, &data.dialogues, &reading, &selectors, &mut on_done)?;
    for (tokens, activations) in std::iter::once(&reading.tokens).chain(&selectors).zip(&read) {
        if activations.example.len() != total {
            let found = format!("{} rows from {total} dialogues", activations.example.len());
            let expected = "a selector that picks one token a dialogue, or pools";
            return Err(Error::input(format!("tokens {tokens}"), found, expected));
        }
    }
    let others = read.split_off(1);
    let activations = read.remove(0);
    let family = &model.decoder.architecture().family;
    activations::save(
        &at("activations"),
        header("activations"),
        family,
        &data.source,
        &reading.tokens,
        &activations,
    )?;

    let mut sweeps: Vec<Sweep> = Vec::new();
    for (done, probing) in experiment.probes.iter().enumerate() {
        if !on_progress(Progress { stage: "fit probes", done, total: experiment.probes.len() }) {
            return Err(Error::Stopped);
        }
        let own = probing.group.as_ref().map(|group| (group, &probing.held_out));
        let (group, held_out) = own.unwrap_or((&experiment.data.group, &experiment.data.held_out));
        let question = Question {
            label: &probing.label,
            kind: probing.kind,
            order: &probing.order,
            group: Some(group),
            held_out,
            method: &Logistic::default(),
            plan: Plan { seed: experiment.seed, ..Plan::default() },
        };
        // Validation dialogues are for choosing strengths; no probe is fitted or tested on them.
        let rows: Vec<usize> = data.fit.iter().chain(&data.test).copied().collect();
        let own = selectors.iter().zip(&others).find(|(tokens, _)| Some(*tokens) == probing.tokens.as_ref());
        let (tokens, values) = own.unwrap_or((&reading.tokens, &activations));
        let sites: Vec<Site> = values.sites.iter().map(|(site, _)| *site).collect();
        let rows = Rows {
            read: layer_sweep::Read { header: &header("activations"), tokens, sites: &sites, chosen: &rows },
            example: &values.example,
            dialogues: &data.dialogues,
        };
        let mut read = |site| values.at(site).cloned();
        let sweep =
            layer_sweep::sweep(&question, rows.read, &rows.known(&question)?, &mut read, &mut |_| true)?;
        sweep.best().1.probe.save(&probe_path(out, &probing.label))?;
        sweeps.push(sweep);
    }
    let sites: Vec<Site> = activations.sites.iter().map(|(site, _)| *site).collect();
    let all: Vec<usize> = (0..total).collect();
    let mut crossed: Vec<CrossValidated> = Vec::new();
    for file in &experiment.cross_validations {
        let rows = Rows {
            read: layer_sweep::Read {
                header: &header("activations"),
                tokens: &reading.tokens,
                sites: &sites,
                chosen: &all,
            },
            example: &activations.example,
            dialogues: &data.dialogues,
        };
        let mut read = |site| activations.at(site).cloned();
        let total = sites.len();
        let mut on_site = |done| on_progress(Progress { stage: "cross-validate", done, total });
        let one = cross_validate_sites(file, experiment.seed, &rows, &mut read, &mut on_site)?;
        let ids = |fold: &Vec<usize>| fold.iter().map(|&row| &data.dialogues[row].id).collect::<Vec<_>>();
        let folds = BTreeMap::from([("folds", one.folds.iter().map(ids).collect::<Vec<_>>())]);
        artifact::write_json(
            &at(&format!("folds/{}-{}.json", one.label, one.name)),
            &header("folds"),
            &folds,
        )?;
        crossed.push(one);
    }
    let sweep_of = |label: &str| {
        let found = sweeps.iter().find(|sweep| sweep.label == label);
        found.ok_or_else(|| {
            Error::input(format!("probe {label}"), "no such probe in the experiment", "the label of one")
        })
    };

    let map = match &experiment.boundary {
        None => None,
        Some(boundary) => Some(map(&data, sweep_of(&boundary.probe)?, &activations, &boundary.from, &boundary.to)?),
    };
    if let Some(map) = &map {
        artifact::write_json(&at("map.json"), &header("map"), map)?;
    }

    let mut page = ReportPage::default();
    page.sweeps(&sweeps)?;
    if let Some(map) = &map {
        page.map(map);
    }
    page.cross_validations(&crossed);
    let mut figures = Vec::new();
    for sweep in &sweeps {
        figures.extend(sweep.metrics()?);
    }
    figures.extend(crossed.iter().flat_map(CrossValidated::metrics));
    let place = (out, &header("boundary"));
    let thinking = experiment.thinking;
    let mut stages = Vec::new();
    if let Some(file) = &experiment.boundary_report {
        let sweep = sweep_of(&file.probe)?;
        stages.push(boundary_stages::boundary(file, sweep, &data, &activations, place, experiment.seed)?);
    }
    for file in &experiment.interpolations {
        let with = (model, judge, thinking);
        stages.push(boundary_stages::interpolation(file, sweep_of(&file.probe)?, with, place, on_progress)?);
    }
    if let Some(file) = &experiment.token_readout {
        let what = (model, &data, map.as_ref());
        stages.push(boundary_stages::token_readout(file, sweep_of(&file.probe)?, what, thinking, place)?);
    }
    for stage in stages {
        figures.extend(stage.figures.iter().cloned());
        page.stage(stage);
    }
    if let Some(steering) = &experiment.steer {
        let evaluation = Evaluation { experiment, steering, model, data: &data, judge };
        let sweep = sweep_of(&steering.probe)?;
        let steered = evaluation.run(sweep, &probe_path(out, &steering.probe), &activations, on_progress)?;
        steered.vector.save(&at("vectors").join(format!("{}.safetensors", steering.to)), header("vector"))?;
        let conditions = steered.test.iter().map(|(name, answers)| (*name, answers));
        for (name, answers) in std::iter::once(("fit", &steered.fit)).chain(conditions) {
            let name = format!("{}.jsonl", name.replace([' ', ','], "-"));
            artifact::write_text(&at("transcripts").join(name), &answers.to_jsonl()?)?;
        }
        let table = evaluation.table(sweep, &steered);
        artifact::write_json(&at("steering.json"), &header("steering"), &table)?;
        figures.extend(table.metrics());
        page.steering(&evaluation, &steered, &table);
        // The pearl map is one of satisfaction and risk.
        if judge.weighs() {
            let pearl = pearl_map(&evaluation, sweep, &activations, &steered, on_progress)?;
            artifact::write_json(&at("pearl.json"), &header("pearl"), &pearl.map)?;
            page.pearl(&pearl);
        }
        page.cards(&evaluation, &steered);
    }

    for (name, chart) in page.charts() {
        save_chart(out, name, chart)?;
    }
    report::draw_all(out)?;
    let results = Results::new(&experiment.name, &model.name, experiment.seed, figures);
    report::write(&page.page(experiment, model, &data, &results), &at("report.html"))?;
    // Last, so that a folder with results is whole.
    results.write(&at("results.json"))?;
    artifact::write_json(&at(MADE_FROM), &header("made-from"), &made_from(experiment, model, &data)?)?;
    Ok(results)
}

/// The experiment's judge, checked against the data and the outcomes that its stages name.
fn checked_judge(experiment: &Experiment, model: &Model, data: &Dataset) -> Result<Box<dyn Scorer>> {
    let options = judge::Options { refusals: experiment.refusals.clone() };
    let judge = judge::of_file(experiment.judge.as_deref(), &options, &model.name)?;
    for file in &experiment.interpolations {
        let own = boundary_stages::own_judge(file)?;
        let dialogues = boundary_stages::twin_dialogues(file, experiment.seed)?;
        let pairs = twins(&dialogues, &file.pair, &format!("interpolation {}", file.name))?;
        let twins = pairs.iter().flat_map(|(_, twins)| twins);
        judge::check_dialogues(own.as_deref().unwrap_or(judge.as_ref()), twins)?;
    }
    if let Some(steering) = &experiment.steer {
        Evaluation { experiment, steering, model, data, judge: judge.as_ref() }.check()?;
    }
    Ok(judge)
}

/// Saves a chart's table as `NAME.chart.json`.
fn save_chart(out: &Path, name: &str, chart: &Chart) -> Result<()> {
    let text = serde_json::to_string(chart)
        .map_err(|error| Error::input(name, error, "a chart that JSON can hold"))?;
    artifact::write_text(&out.join(format!("{name}.chart.json")), &text)
}

fn probe_path(out: &Path, label: &str) -> PathBuf {
    out.join("probes").join(format!("{label}.safetensors"))
}

/// The risk map at the probe's best site, with the test part's points.
fn map(data: &Dataset, sweep: &Sweep, activations: &Activations, from: &str, to: &str) -> Result<RiskMap> {
    let labels = data.labels(&sweep.label)?;
    let (site, validated) = sweep.best();
    let points = activations.at(site)?.select(ndarray::Axis(0), &data.test);
    let labels: Vec<&str> = data.test.iter().map(|&number| labels[number].as_str()).collect();
    let order: Vec<&str> = validated.probe.classes.iter().map(String::as_str).collect();
    let targets = Targets::new(&labels, &labels, &order)?;
    RiskMap::of_probe(&validated.probe, points.view(), &targets, from, to)
}
