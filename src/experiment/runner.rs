//! The runner of an experiment: read, fit, decide, steer, and write the report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::boundary_stages::{self, StageSection};
use super::chart_file::save_chart;
use super::dose_stage::DoseStage;
use super::paths;
use super::report_page::ReportPage;
use crate::activations::{self, Activations, Request, extract_each};
use crate::analysis::cross_validation::{CrossValidated, cross_validate_sites};
use crate::analysis::dataset::Dataset;
use crate::analysis::interpolation::twins;
use crate::analysis::layer_sweep::{self, Question, Rows, Sweep};
use crate::analysis::pearl_map::pearl_map;
use crate::analysis::steering_eval::Evaluation;
use crate::artifact::{self, FolderLock, Header};
use crate::boundary::RiskMap;
use crate::config::Experiment;
use crate::config::defaults::BATCH_TOKENS;
use crate::config::experiment::{Boundary, CrossValidation, Probe, Steering};
use crate::dialogue;
use crate::error::{Error, Result};
use crate::judge::{self, Scorer};
use crate::model::{Model, Selector, Site};
use crate::probe::{Logistic, Targets, ValidationPlan};
use crate::progress::Progress;
use crate::report::{self, Results};
use crate::stats::Metric;

/// The file that says what a run was made from.
const MADE_FROM: &str = "made-from.json";

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
    paths::check_experiment(experiment)?;
    let given = experiment;
    let experiment = &with_held_out(given)?;
    let data = Dataset::load(&experiment.data, experiment.seed)?;
    let judge = checked_judge(experiment, model, &data)?;
    let run = Run { experiment, model, data: &data, judge: judge.as_ref(), out };
    let _lock = FolderLock::take(out)?;
    let before = out.join(MADE_FROM);
    if before.exists() {
        std::fs::remove_file(&before).map_err(Error::file(&before))?;
    }
    artifact::write_text(&out.join("experiment.toml"), text)?;
    dialogue::write_jsonl(out.join("dialogues.jsonl"), &data.dialogues)?;

    let read = run.read(on_progress)?;
    let sweeps = run.fit(&read, on_progress)?;
    let mut validated: Vec<CrossValidated> = Vec::new();
    for file in &experiment.cross_validations {
        validated.push(run.cross_validate(file, &read, on_progress)?);
    }
    let activations = &read[0].1;
    let map = match &experiment.boundary {
        None => None,
        Some(file) => Some(run.map(file, sweep_of(&sweeps, &file.probe)?, activations)?),
    };

    let mut page = ReportPage::default();
    page.sweeps(&sweeps)?;
    if let Some(map) = &map {
        page.map(map);
    }
    page.cross_validations(&validated);
    let (mut figures, mut doubts) = (Vec::new(), Vec::new());
    for sweep in &sweeps {
        figures.extend(sweep.metrics()?);
    }
    figures.extend(validated.iter().flat_map(CrossValidated::metrics));
    for stage in run.boundary_stages(&sweeps, activations, map.as_ref(), on_progress)? {
        figures.extend(stage.figures.iter().cloned());
        page.stage(stage);
    }
    if let Some(steering) = &experiment.steer {
        let sweep = sweep_of(&sweeps, &steering.probe)?;
        let (own, doubted) = run.steer(steering, sweep, activations, &mut page, on_progress)?;
        figures.extend(own);
        doubts.extend(doubted);
    }

    if let Some(file) = &experiment.dose {
        let stage = DoseStage { experiment, file, model, data: &data, judge: judge.as_ref() };
        let sweep = sweep_of(&sweeps, &file.probe)?;
        let header = run.header("activations");
        let (section, cards) = stage.run(sweep, activations, (out, &header), on_progress)?;
        figures.extend(section.figures.iter().cloned());
        page.stage(section);
        page.answers(cards);
    }

    for (name, chart) in page.charts() {
        save_chart(out, name, chart)?;
    }
    report::draw_all(out)?;
    let results = Results::new(&experiment.name, &model.name, experiment.seed, figures).doubting(doubts);
    report::write(&page.page(experiment, model, &data, &results), &out.join("report.html"))?;
    // Last, so that a folder with results is whole.
    results.write(&out.join("results.json"))?;
    let made = made_from(given, model, &data)?;
    artifact::write_json(&out.join(MADE_FROM), &run.header("made-from"), &made)?;
    Ok(results)
}

/// The inputs of a run's stages.
struct Run<'a> {
    experiment: &'a Experiment,
    model: &'a Model,
    data: &'a Dataset,
    judge: &'a dyn Scorer,
    out: &'a Path,
}

/// Activations of every dialogue, by the tokens read: the experiment's own first.
type Read = Vec<(Selector, Activations)>;

impl Run<'_> {
    fn header(&self, kind: &str) -> Header {
        // Tables need no form: they aren't used on a model.
        let is_used = matches!(kind, "vector" | "activations");
        Header {
            model: Some(self.model.name.clone()),
            model_hash: Some(self.model.hash.clone()),
            model_form: self.model.form().ok().filter(|_| is_used),
            data_hash: Some(self.data.hash.clone()),
            seed: Some(self.experiment.seed),
            ..Header::new(kind, 1)
        }
    }

    /// Reads every dialogue, at the experiment's tokens and at those of each probe that has its own.
    fn read(&self, on_progress: &mut dyn FnMut(Progress) -> bool) -> Result<Read> {
        let Run { experiment, model, data, .. } = self;
        let reading = Request {
            sites: model.decoder.architecture().parse_sites(&experiment.read.sites)?,
            tokens: experiment.read.tokens.clone(),
            thinking: experiment.thinking,
            batch_tokens: BATCH_TOKENS,
            ..Request::default()
        };
        let mut selectors: Vec<Selector> = Vec::new();
        for tokens in experiment.probes.iter().filter_map(|probe| probe.tokens.as_ref()) {
            if *tokens != reading.tokens && !selectors.contains(tokens) {
                selectors.push(tokens.clone());
            }
        }
        let total = data.dialogues.len();
        let mut on_done = |done| on_progress(Progress { stage: "read activations", done, total });
        let read = extract_each(model, &data.dialogues, &reading, &selectors, &mut on_done)?;
        let read: Read = std::iter::once(reading.tokens).chain(selectors).zip(read).collect();
        for (tokens, activations) in &read {
            if activations.example.len() != total {
                let found = format!("{} rows from {total} dialogues", activations.example.len());
                let expected = "a selector that picks one token a dialogue, or pools";
                return Err(Error::input(format!("tokens {tokens}"), found, expected));
            }
        }
        let (tokens, own) = &read[0];
        let (place, header) = (self.out.join("activations"), self.header("activations"));
        let family = &model.decoder.architecture().family;
        activations::save(&place, header, family, &data.source, tokens, own)?;
        Ok(read)
    }

    /// Fits every probe at every site, and saves each at its best site.
    fn fit(&self, read: &Read, on_progress: &mut dyn FnMut(Progress) -> bool) -> Result<Vec<Sweep>> {
        let mut sweeps: Vec<Sweep> = Vec::new();
        let total = self.experiment.probes.len();
        for (done, file) in self.experiment.probes.iter().enumerate() {
            if !on_progress(Progress { stage: "fit probes", done, total }) {
                return Err(Error::Stopped);
            }
            let sweep = self.sweep(file, read)?;
            sweep.best().1.probe.save(&paths::probe(self.out, &file.label))?;
            sweeps.push(sweep);
        }
        Ok(sweeps)
    }

    fn sweep(&self, file: &Probe, read: &Read) -> Result<Sweep> {
        let Run { experiment, data, .. } = self;
        let own = file.group.as_ref().map(|group| (group, &file.held_out));
        let (group, held_out) = own.unwrap_or((&experiment.data.group, &experiment.data.held_out));
        let question = Question {
            label: &file.label,
            kind: file.kind,
            order: &file.order,
            group: Some(group),
            held_out,
            method: &Logistic::default(),
            plan: ValidationPlan { seed: experiment.seed, ..ValidationPlan::default() },
        };
        // Validation dialogues are for choosing strengths; no probe is fitted or tested on them.
        let chosen: Vec<usize> = data.fit.iter().chain(&data.test).copied().collect();
        let own = read.iter().find(|(tokens, _)| Some(tokens) == file.tokens.as_ref());
        let (tokens, values) = own.unwrap_or(&read[0]);
        let sites: Vec<Site> = values.sites.iter().map(|(site, _)| *site).collect();
        let header = self.header("activations");
        let rows = Rows {
            read: layer_sweep::Read { header: &header, tokens, sites: &sites, chosen: &chosen },
            example: &values.example,
            dialogues: &data.dialogues,
        };
        let mut values_at = |site| values.at(site).cloned();
        let known = rows.known(&question)?;
        let mut sweep = layer_sweep::sweep(&question, rows.read, &known, &mut values_at, &mut |_| true)?;
        if file.group.is_none() && !experiment.data.held_out_with.is_empty() {
            sweep.split = format!("{} held out", experiment.data.held_out_labels());
        }
        Ok(sweep)
    }

    /// Cross-validates at every site, and saves the folds.
    fn cross_validate(
        &self,
        file: &CrossValidation,
        read: &Read,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<CrossValidated> {
        let (tokens, values) = &read[0];
        let dialogues = &self.data.dialogues;
        let sites: Vec<Site> = values.sites.iter().map(|(site, _)| *site).collect();
        let (header, all) = (self.header("activations"), (0..dialogues.len()).collect::<Vec<_>>());
        let rows = Rows {
            read: layer_sweep::Read { header: &header, tokens, sites: &sites, chosen: &all },
            example: &values.example,
            dialogues,
        };
        let mut values_at = |site| values.at(site).cloned();
        let total = sites.len();
        let mut on_site = |done| on_progress(Progress { stage: "cross-validate", done, total });
        let validated =
            cross_validate_sites(file, self.experiment.seed, &rows, &mut values_at, &mut on_site)?;
        let ids = |fold: &Vec<usize>| fold.iter().map(|&row| &dialogues[row].id).collect::<Vec<_>>();
        let folds = BTreeMap::from([("folds", validated.folds.iter().map(ids).collect::<Vec<_>>())]);
        let place = paths::folds(self.out, &validated.label, &validated.name);
        artifact::write_json(&place, &self.header("folds"), &folds)?;
        Ok(validated)
    }

    /// The risk map at the probe's best site, with the test part's points, and what they are to the probe.
    fn map(&self, file: &Boundary, sweep: &Sweep, activations: &Activations) -> Result<RiskMap> {
        let (labels, test) = (self.data.labels(&sweep.label)?, &self.data.test);
        let (site, best) = sweep.best();
        let points = activations.at(site)?.select(ndarray::Axis(0), test);
        let labels: Vec<&str> = test.iter().map(|&number| labels[number].as_str()).collect();
        let order: Vec<&str> = best.probe.classes.iter().map(String::as_str).collect();
        let groups = self.data.labels(&self.experiment.data.group)?;
        let groups: Vec<&str> = test.iter().map(|&number| groups[number].as_str()).collect();
        let targets = Targets::new(&labels, &groups, &order)?;
        let mut map = RiskMap::of_probe(&best.probe, points.view(), &targets, &file.from, &file.to)?;
        let unseen = sweep.unseen(test, &self.data.dialogues).len();
        map.split = Some(match unseen {
            unseen if unseen == test.len() => sweep.split.clone(),
            0 => "the probe was fitted on them".into(),
            unseen => format!("{unseen} of {} held out, the probe fitted on the others", test.len()),
        });
        artifact::write_json(&self.out.join("map.json"), &self.header("map"), &map)?;
        Ok(map)
    }

    /// The boundary report, the interpolations and the token readout.
    fn boundary_stages(
        &self,
        sweeps: &[Sweep],
        activations: &Activations,
        map: Option<&RiskMap>,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Vec<StageSection>> {
        let Run { experiment, model, data, judge, out } = *self;
        let header = self.header("boundary");
        let (place, thinking) = ((out, &header), experiment.thinking);
        let mut stages = Vec::new();
        if let Some(file) = &experiment.boundary_report {
            let sweep = sweep_of(sweeps, &file.probe)?;
            stages.push(boundary_stages::boundary(file, sweep, data, activations, place, experiment.seed)?);
        }
        for file in &experiment.interpolations {
            let (sweep, with) = (sweep_of(sweeps, &file.probe)?, (model, judge, thinking));
            stages.push(boundary_stages::interpolation(file, sweep, with, place, on_progress)?);
        }
        if let Some(file) = &experiment.token_readout {
            let (sweep, what) = (sweep_of(sweeps, &file.probe)?, (model, data, map));
            stages.push(boundary_stages::token_readout(file, sweep, what, thinking, place)?);
        }
        Ok(stages)
    }

    /// Evaluates steering, saves its vector, answers and tables, and adds its sections to the page. Gives metrics and doubts.
    fn steer(
        &self,
        steering: &Steering,
        sweep: &Sweep,
        activations: &Activations,
        page: &mut ReportPage,
        on_progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Vec<Metric>, Vec<String>)> {
        let Run { experiment, model, data, judge, out } = *self;
        let evaluation = Evaluation { experiment, steering, model, data, judge };
        let steered = evaluation.run(sweep, &paths::probe(out, &steering.probe), activations, on_progress)?;
        let vector = paths::vector(out, &steering.to);
        steered.vector.save(&vector, self.header("vector"))?;
        let conditions = steered.test.iter().map(|(name, answers)| (*name, answers));
        for (name, answers) in std::iter::once(("fit", &steered.fit)).chain(conditions) {
            let name = name.replace([' ', ','], "-");
            artifact::write_text(&paths::transcript(out, &name), &answers.to_jsonl()?)?;
        }
        let table = evaluation.table(sweep, &steered);
        artifact::write_json(&out.join("steering.json"), &self.header("steering"), &table)?;
        page.steering(&evaluation, &steered, &table);
        // The pearl map is one of satisfaction and risk.
        if judge.weighs() {
            let pearl = pearl_map(&evaluation, sweep, activations, &steered, on_progress)?;
            artifact::write_json(&out.join("pearl.json"), &self.header("pearl"), &pearl.map)?;
            page.pearl(&pearl);
        }
        page.cards(&evaluation, &steered);
        Ok((table.metrics(), table.doubts()))
    }
}

/// The experiment with groups in the place of a share of them.
fn with_held_out(experiment: &Experiment) -> Result<Experiment> {
    let mut named = experiment.clone();
    let Some(share) = named.data.held_out_share.take() else { return Ok(named) };
    let all = Dataset::load(&named.data, experiment.seed)?;
    let groups = all.labels(&named.data.group)?;
    let mut groups: Vec<String> = groups.into_iter().collect::<BTreeSet<String>>().into_iter().collect();
    groups.retain(|group| !named.data.validation.contains(group));
    let count = ((share * groups.len() as f64).round() as usize).max(1);
    if count >= groups.len() {
        let found = format!("{} groups by {}", groups.len(), named.data.group);
        return Err(Error::input("held-out-share", found, "some to hold out, and more that are left"));
    }
    groups.shuffle(&mut StdRng::seed_from_u64(experiment.seed));
    groups.truncate(count);
    groups.sort();
    named.data.held_out = groups;
    Ok(named)
}

fn sweep_of<'a>(sweeps: &'a [Sweep], label: &str) -> Result<&'a Sweep> {
    sweeps.iter().find(|sweep| sweep.label == label).ok_or_else(|| {
        Error::input(format!("probe {label}"), "no such probe in the experiment", "the label of one")
    })
}

/// The experiment's judge, checked against the data and the outcomes that its stages name.
fn checked_judge(experiment: &Experiment, model: &Model, data: &Dataset) -> Result<Box<dyn Scorer>> {
    let judge = judge::of_file(experiment.judge.as_deref(), &experiment.judge_options(), &model.name)?;
    judge.check_model(Some(model))?;
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
    if let Some(dose) = &experiment.dose {
        DoseStage { experiment, file: dose, model, data, judge: judge.as_ref() }.check()?;
    }
    Ok(judge)
}

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
