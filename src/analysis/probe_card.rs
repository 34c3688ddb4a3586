//! A probe folder's fit: the dialogues (labelled by the model's own answers, if the file says so), the layer sweep, and its
//! scores.

use serde::Serialize;

use super::answers::{Answering, Answers};
use super::dataset::dialogues;
use super::layer_sweep::{self, Question, Rows, Sweep};
use crate::activations::{Request, extract};
use crate::artifact::Header;
use crate::config::ProbeFile;
use crate::config::defaults::BATCH_TOKENS;
use crate::config::probe;
use crate::dialogue::{Dialogue, Label};
use crate::error::Result;
use crate::generate::Sampling;
use crate::judge::{self, BROKEN, Scorer};
use crate::model::{Model, Site};
use crate::probe::{ValidationPlan, method};
use crate::progress::Progress;
use crate::stats::Metric;

/// What `scores.json` holds beside the header.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// The label that the probe reads.
    pub label: String,
    /// The best site.
    pub site: Site,
    /// Regularisation strength there.
    pub strength: f64,
    /// The part that scores are on.
    pub split: String,
    /// Groups of that part.
    pub held_out: Vec<String>,
    /// Number of rows of each class, fitted on and tested on together.
    pub rows: Vec<(String, usize)>,
    /// Number of dialogues with broken answers, which are left out.
    pub broken: usize,
    /// Scores of the best site, the controls, and the AUROC at each site.
    pub figures: Vec<Metric>,
    /// Controls that come near the probe.
    pub doubts: Vec<String>,
    /// Sites at which no probe could be fitted, and why.
    pub left_out: Vec<String>,
}

/// A fitted probe folder.
pub struct Fitted {
    /// The fits at every site.
    pub sweep: Sweep,
    /// Its scores.
    pub scores: Scores,
    /// The model's answers, where the label is their outcome.
    pub answers: Option<Answers>,
    /// Where the dialogues are from.
    pub source: String,
    /// Provenance, of kind `scores`.
    pub header: Header,
}

/// Fits the file's probe at every site. `on_progress` stops the work by giving false.
///
/// # Errors
/// Dialogues that can't be read or judged, a part without a class, or a stop.
pub fn fit(
    file: &ProbeFile,
    model: &Model,
    judge: &dyn Scorer,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Fitted> {
    let (mut dialogues, source, data_hash) = dialogues(&file.data, file.seed)?;
    let mut answered = None;
    if let Some(answers) = &file.answers {
        judge::check_dialogues(judge, &dialogues)?;
        let answers = answer(file, answers, model, judge, &dialogues, on_progress)?;
        dialogues = labelled(&file.label, dialogues, &answers);
        answered = Some(answers);
    }
    let reading = Request {
        sites: model.decoder.architecture().parse_sites(&file.sites)?,
        tokens: file.tokens.clone(),
        thinking: file.thinking,
        batch_tokens: BATCH_TOKENS,
        ..Request::default()
    };
    let total = dialogues.len();
    let activations = extract(model, &dialogues, &reading, &mut |done| {
        on_progress(Progress { stage: "reading", done, total })
    })?;
    let header = Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        model_form: Some(model.form()?),
        data_hash: Some(data_hash),
        seed: Some(file.seed),
        ..Header::new("scores", 1)
    };
    let method = method(&file.method, &file.strengths)?;
    let question = Question {
        label: &file.label,
        kind: file.kind,
        order: &file.order,
        group: Some(&file.data.group),
        held_out: &file.data.held_out,
        method: method.as_ref(),
        plan: ValidationPlan {
            folds: file.folds,
            by_group: file.by_group,
            seed: file.seed,
            calibration: file.calibration,
            ..ValidationPlan::default()
        },
    };
    let chosen: Vec<usize> = (0..activations.example.len()).collect();
    let rows = Rows {
        read: layer_sweep::Read {
            header: &header,
            tokens: &file.tokens,
            sites: &reading.sites,
            chosen: &chosen,
        },
        example: &activations.example,
        dialogues: &dialogues,
    };
    let total = reading.sites.len();
    let mut read = |site| activations.at(site).cloned();
    let known = rows.known(&question)?;
    let mut on_site = |done| on_progress(Progress { stage: "fitting", done, total });
    let mut sweep = layer_sweep::sweep(&question, rows.read, &known, &mut read, &mut on_site)?;
    if !file.data.held_out_with.is_empty() {
        sweep.split = format!("{} held out", file.data.held_out_labels());
    }

    let mut figures = sweep.best_figures();
    figures.extend(sweep.controls().into_iter().chain(&sweep.differences).cloned());
    for (site, metric) in sweep.table()?.sites {
        figures.push(Metric { name: format!("{site}/auroc"), ..metric });
    }
    let (site, best) = sweep.best();
    let scores = Scores {
        label: sweep.label.clone(),
        site,
        strength: best.probe.strength,
        split: sweep.split.clone(),
        held_out: best.probe.held_out.clone(),
        rows: known.targets.class_names.iter().cloned().zip(known.targets.counts()).collect(),
        broken: answered.as_ref().map_or(0, |answers| answers.count(BROKEN, |_| true).0),
        figures,
        doubts: sweep.doubts()?,
        left_out: sweep.left_out.clone(),
    };
    Ok(Fitted { sweep, scores, answers: answered, source, header })
}

/// Has the model answer every dialogue.
fn answer(
    file: &ProbeFile,
    answers: &probe::Answers,
    model: &Model,
    judge: &dyn Scorer,
    dialogues: &[Dialogue],
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Answers> {
    let answering = Answering {
        model,
        judge,
        sampling: answers.temperature.map_or(Ok(Sampling::Greedy), Sampling::temperature)?,
        max_tokens: answers.max_tokens,
        seed: file.seed,
        thinking: file.thinking,
    };
    let numbers: Vec<usize> = (0..dialogues.len()).collect();
    answering.answer(dialogues, &numbers, &mut (), "answering", on_progress)
}

/// The dialogues, each with its answer's outcome as the label; those with broken answers are left out.
fn labelled(label: &str, dialogues: Vec<Dialogue>, answers: &Answers) -> Vec<Dialogue> {
    let with_label = |(mut dialogue, score): (Dialogue, &judge::Score)| {
        dialogue.labels.insert(label.to_owned(), Label::Text(score.strategy.clone()));
        (score.strategy != BROKEN).then_some(dialogue)
    };
    dialogues.into_iter().zip(&answers.scores).filter_map(with_label).collect()
}
