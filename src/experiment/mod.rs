//! A whole experiment, from one file: read, decide, steer, show. Every stage saves what it found in the run's folder.
//! It prints nothing: whoever runs it hears of progress through a callback.

pub mod boundary_stages;
mod report_page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use crate::analysis::dataset::Dataset;
pub use crate::analysis::metrics::headline;
pub use crate::config::experiment::Experiment;

use crate::activations::{self, Activations, Reading, extract_each};
use crate::analysis::cross_validation::{self, Crossed};
use crate::analysis::layer_sweep::{self, Question, Rows, Sweep};
use crate::analysis::metrics;
use crate::analysis::steering_eval::Stage;
use crate::artifact::{self, Header};
use crate::boundary::RiskMap;
use crate::error::{Error, Result};
use crate::judge::World;
use crate::model::{Model, Selector, Site};
use crate::probe::{Logistic, Plan, Targets};
pub use crate::progress::Progress;
use crate::report::{self, Results};

/// The experiment that the program carries: the whole job on the embedded model.
pub const DEMO: &str = include_str!("../../experiments/demo.toml");

/// Tokens of a batch when dialogues are read.
const BATCH_TOKENS: usize = 1024;

/// Where a run says what it was made from.
const MADE_FROM: &str = "made-from.json";

/// What a run follows from (JSON, kind `made-from`).
#[derive(Serialize, Deserialize, PartialEq)]
struct MadeFrom {
    /// SHA-256 of the experiment with its model's and its data's hashes, in hex.
    hash: String,
    program: String,
}

/// The results of a run that stands in the folder already, from this experiment, model and data, and this version of the
/// program.
///
/// # Errors
/// As reading the data.
pub fn fresh(experiment: &Experiment, model: &Model, out: &Path) -> Result<Option<Results>> {
    let data = Dataset::load(&experiment.data, experiment.seed)?;
    let now = made_from(experiment, model, &data)?;
    let before = artifact::read_json::<MadeFrom>(&out.join(MADE_FROM), "made-from", 1).ok();
    // A folder that lacks its results, or has others, is not fresh: the run then says what is wrong, if anything is.
    Ok(before
        .filter(|(_, before)| *before == now)
        .and_then(|_| Results::read(&out.join("results.json")).ok()))
}

fn made_from(experiment: &Experiment, model: &Model, data: &Dataset) -> Result<MadeFrom> {
    let whole = serde_json::to_vec(&(experiment, &model.hash, &data.hash))
        .map_err(|error| Error::input("experiment", error, "what JSON can hold"))?;
    Ok(MadeFrom { hash: artifact::sha256(&whole), program: env!("CARGO_PKG_VERSION").into() })
}

/// Runs an experiment into a folder; files of an earlier run there are replaced. `text` is the experiment's own text, kept beside the
/// results. `tell` hears of progress, and stops the run by giving false.
///
/// Gives the results, as `results.json` has them.
pub fn run(
    experiment: &Experiment,
    text: &str,
    model: &Model,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Results> {
    let data = Dataset::load(&experiment.data, experiment.seed)?;
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
    crate::dialogue::write_jsonl(at("dialogues.jsonl"), &data.dialogues)?;

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
    let mut heard = |done| on_progress(Progress { stage: "read activations", done, total });
    let mut read = extract_each(model, &data.dialogues, &reading, &selectors, &mut heard)?;
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
        // Validation dialogues are for choosing strengths: here they belong to no part.
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
    let mut crossed: Vec<Crossed> = Vec::new();
    for way in &experiment.cross {
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
        let mut heard = |done| on_progress(Progress { stage: "cross-validate", done, total });
        let one = cross_validation::cross(way, experiment.seed, &rows, &mut read, &mut heard)?;
        let ids = |fold: &Vec<usize>| fold.iter().map(|&row| &data.dialogues[row].id).collect::<Vec<_>>();
        let folds = BTreeMap::from([("folds", one.folds.iter().map(ids).collect::<Vec<_>>())]);
        artifact::write_json(
            &at(&format!("folds/{}-{}.json", one.label, one.name)),
            &header("folds"),
            &folds,
        )?;
        crossed.push(one);
    }
    let of = |label: &str| {
        let found = sweeps.iter().find(|sweep| sweep.label == label);
        found.ok_or_else(|| {
            Error::input(format!("probe {label}"), "no such probe in the experiment", "the label of one")
        })
    };

    let map = match &experiment.boundary {
        None => None,
        Some(boundary) => Some(map(&data, of(&boundary.probe)?, &activations, &boundary.from, &boundary.to)?),
    };
    if let Some(map) = &map {
        artifact::write_json(&at("map.json"), &header("map"), map)?;
    }

    let mut show = report_page::Show::default();
    show.sweeps(&sweeps)?;
    if let Some(map) = &map {
        show.map(map);
    }
    show.crossed(&crossed);
    let mut figures = metrics::of_sweeps(&sweeps)?;
    figures.extend(crossed.iter().flat_map(Crossed::figures));
    let place = (out, &header("boundary"));
    let mut shown = Vec::new();
    if let Some(asked) = &experiment.bounding {
        shown.push(boundary_stages::bounded(
            asked,
            of(&asked.probe)?,
            &data,
            &activations,
            place,
            experiment.seed,
        )?);
    }
    for asked in &experiment.crossing {
        shown.push(boundary_stages::crossed(
            asked,
            of(&asked.probe)?,
            model,
            experiment.thinking,
            place,
            on_progress,
        )?);
    }
    if let Some(asked) = &experiment.watching {
        let what = (model, &data, map.as_ref());
        shown.push(boundary_stages::watched(asked, of(&asked.probe)?, what, experiment.thinking, place)?);
    }
    for one in shown {
        figures.extend(one.figures.iter().cloned());
        show.decided(one);
    }
    if let Some(steering) = &experiment.steer {
        let stage = Stage { experiment, steering, model, data: &data, scorer: &World };
        let sweep = of(&steering.probe)?;
        let steered = stage.run(sweep, &probe_path(out, &steering.probe), &activations, on_progress)?;
        steered.vector.save(&at("vectors").join(format!("{}.safetensors", steering.to)), header("vector"))?;
        for (name, answers) in std::iter::once(("fit", &steered.fit))
            .chain(steered.test.iter().map(|(name, answers)| (*name, answers)))
        {
            let lines = answers.lines()?;
            artifact::write_text(
                &at("transcripts").join(format!("{}.jsonl", name.replace([' ', ','], "-"))),
                &lines,
            )?;
        }
        figures.extend(metrics::of_steering(&stage, &steered)?);
        let pearl = metrics::pearl(&stage, sweep, &activations, &steered, on_progress)?;
        artifact::write_json(&at("pearl.json"), &header("pearl"), &pearl)?;
        show.steering(&stage, &steered);
        show.pearl(&stage, &steered, &pearl);
        show.cards(&stage, &steered);
    }

    for (name, chart) in show.charts() {
        let text = serde_json::to_string(chart)
            .map_err(|error| Error::input(name, error, "a chart that JSON can hold"))?;
        artifact::write_text(&at(&format!("{name}.chart.json")), &text)?;
    }
    report::draw_all(out)?;
    let results = Results::new(&experiment.name, &model.name, experiment.seed, figures);
    report::write(&show.page(experiment, model, &data, &results), &at("report.html"))?;
    // Last, so that a folder with results is whole.
    results.write(&at("results.json"))?;
    artifact::write_json(&at(MADE_FROM), &header("made-from"), &made_from(experiment, model, &data)?)?;
    Ok(results)
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
