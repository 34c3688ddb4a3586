//! The boundary stages of an experiment: the boundary report, interpolation between twins, and token readout. Each saves its
//! tables in the run's folder and gives its metrics and charts.

use std::path::Path;

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::paths;
use crate::activations::Activations;
use crate::analysis::boundary_report::{self, Report};
use crate::analysis::dataset::Dataset;
use crate::analysis::interpolation::{self, Interpolations, Summary, interpolate, twins};
use crate::analysis::layer_sweep::Sweep;
use crate::analysis::token_readout;
use crate::artifact::{self, Header};
use crate::boundary::{ErrorKind, GroupTrial, Margin, RiskBound, RiskMap, Search};
use crate::config::experiment::{BoundaryReport, Interpolation, TokenReadout};
use crate::dialogue::{self, Dialogue};
use crate::error::{Error, Result};
use crate::judge::{self, Scorer};
use crate::model::Model;
use crate::organism::contrast::{self, Contrast};
use crate::plots;
use crate::plots::interpolation::InterpolationTable;
use crate::plots::margins::Margins;
use crate::plots::reliability::Reliability;
use crate::plots::trajectory::Trajectories;
use crate::probe::Probe;
use crate::progress::Progress;
use crate::report::Chart;
use crate::stats::{Interval, Metric, wilson};

/// A stage's section of the page, and its metrics.
pub struct StageSection {
    /// Title of the section.
    pub title: String,
    /// Its text.
    pub text: String,
    /// Its charts, by their files' names.
    pub charts: Vec<(String, Chart)>,
    /// Metrics for `results.json`.
    pub figures: Vec<Metric>,
}

/// Saves a boundary report's tables: the map, every margin, the margins to label next, the card.
///
/// # Errors
/// If a file can't be written.
pub fn save_report(out: &Path, header: &Header, found: &Report) -> Result<()> {
    let kind = |kind: &str| Header { kind: kind.into(), version: 1, ..header.clone() };
    #[derive(Serialize)]
    struct List<'a> {
        margins: &'a [Margin],
    }
    artifact::write_json(&out.join("map.json"), &kind("map"), &found.map)?;
    artifact::write_json(&out.join("margins.json"), &kind("margins"), &List { margins: &found.margins })?;
    artifact::write_json(&out.join("next.json"), &kind("margins"), &List { margins: &found.next })?;
    artifact::write_json(&out.join("boundary.json"), &kind("boundary"), &found.card)
}

/// The charts of a boundary report beside its map.
pub fn report_charts(probe: &Probe, found: &Report) -> Vec<(String, Chart)> {
    let card = &found.card;
    let reliability = Reliability {
        label: card.label.clone(),
        site: card.site.clone(),
        method: card.calibration.clone(),
        bins: found.bins.clone(),
        errors: [card.ece_as_fitted.value, card.ece.value],
        split: Some(card.split.clone()),
    };
    let margins = Margins {
        label: card.label.clone(),
        site: card.site.clone(),
        classes: probe.classes.clone(),
        margins: found.margins.clone(),
        split: Some(card.split.clone()),
    };
    vec![
        ("reliability".into(), plots::reliability::chart(&reliability)),
        ("margins".into(), plots::margins::chart(&margins)),
    ]
}

/// The boundary report of a probe's best site, over the test part.
pub(super) fn boundary(
    file: &BoundaryReport,
    sweep: &Sweep,
    data: &Dataset,
    activations: &Activations,
    (out, header): (&Path, &Header),
    seed: u64,
) -> Result<StageSection> {
    let (site, best) = sweep.best();
    // A probe may hold out groups of its own; nothing is promised from rows that it was fitted on.
    let kept = sweep.unseen(&data.test, &data.dialogues);
    if kept.is_empty() {
        let place = format!("boundary_report of {}", sweep.label);
        return Err(Error::input(
            place,
            "no dialogue of the test part that the probe never saw",
            "held-out groups",
        ));
    }
    let dialogue = |number: &usize| &data.dialogues[*number];
    let group = |number: &usize| {
        let named = sweep.group.as_ref().and_then(|group| dialogue(number).label(group));
        named.unwrap_or_else(|| dialogue(number).id.clone())
    };
    let rows = boundary_report::Rows {
        states: activations.at(site)?.select(Axis(0), &kept),
        ids: kept.iter().map(|number| dialogue(number).id.clone()).collect(),
        labels: kept.iter().map(|number| boundary_report::label(dialogue(number), &best.probe)).collect(),
        groups: kept.iter().map(group).collect(),
        split: sweep.split.clone(),
    };
    let kind = if file.false_alarms { ErrorKind::FalseAlarm } else { ErrorKind::Miss };
    let promise = file.alpha.map(|alpha| match file.expected {
        true => RiskBound::expected(kind, alpha),
        false => RiskBound::confident(kind, alpha, file.delta),
    });
    let question = boundary_report::Question {
        from: file.from.clone(),
        to: file.to.clone(),
        safe: file.safe.clone().unwrap_or_else(|| file.from.clone()),
        flag: file.flag.clone().unwrap_or_else(|| file.to.clone()),
        promise,
        guarantee: file.guarantee,
        resamplings: file.resamplings,
        next: file.next,
        seed,
    };
    let found = boundary_report::report(&best.probe, &rows, &question)?;
    save_report(&out.join("boundary"), header, &found)?;
    let name = |what: &str| format!("boundary/{}/{what}", found.card.label);
    let mut figures = vec![Metric { name: name("ece"), ..found.card.ece.clone() }];
    if let Some(flagged) = &found.card.flagged {
        let trial = &flagged.trial;
        let count = (trial.coverage * trial.resamplings as f64).round() as usize;
        let split = format!("resamplings of {}", found.card.split);
        figures.extend(wilson(count, trial.resamplings).map(|share| {
            Metric::new(name(&format!("{}/promise-held", flagged.class)), share, trial.resamplings, &split)
        }));
    }
    if let Some(flagged) = found.card.flagged.as_ref().filter(|flagged| !flagged.groups.is_empty()) {
        let within = |trial: &&GroupTrial| trial.rate <= flagged.threshold.risk_bound.alpha;
        let (within, count) = (flagged.groups.iter().filter(within).count(), flagged.groups.len());
        figures.extend(wilson(within, count).map(|share| {
            Metric::new(
                name(&format!("{}/promise-held-on-new-groups", flagged.class)),
                share,
                count,
                &found.card.split,
            )
        }));
    }
    let threshold = found.card.flagged.as_ref().map_or(String::new(), |flagged| {
        format!(
            " {} is flagged from P = {:.4} on: {}; the bound held in {:.1} % of {} resamplings of the same rows{}.",
            flagged.class,
            flagged.threshold.value,
            flagged.promise,
            100.0 * flagged.trial.coverage,
            flagged.trial.resamplings,
            [flagged.group_sentence(), flagged.doubt()]
                .into_iter()
                .flatten()
                .map(|sentence| format!("; {sentence}"))
                .collect::<String>()
        )
    });
    Ok(StageSection {
        title: "Distance and calibration".into(),
        text: format!("Distance of every dialogue to the boundary, and calibration of the probe.{threshold}"),
        charts: report_charts(&best.probe, &found),
        figures,
    })
}

/// Flips with a hash of what they were computed from: they are computed again only where that has changed.
#[derive(Serialize, Deserialize)]
struct Kept {
    made_from: String,
    #[serde(flatten)]
    found: Interpolations,
}

/// The dialogues of an interpolation.
pub(super) fn twin_dialogues(file: &Interpolation, seed: u64) -> Result<Vec<Dialogue>> {
    match (&file.file, file.sample, &file.contrast) {
        (Some(path), None, None) => Ok(dialogue::read(path, &dialogue::ReadOptions::default())?.dialogues),
        (None, Some(count), Some(name)) => {
            let contrast = Contrast::named(name).ok_or_else(|| {
                let names = Contrast::ALL.map(Contrast::name).join(" or ");
                Error::input(place(file), format!("contrast {name:?}"), names)
            })?;
            let pairs = contrast::pairs(count, contrast, seed).into_iter().flatten();
            Ok(pairs.map(|(_, dialogue)| dialogue).collect())
        }
        _ => {
            let expected = "file = PATH, or sample = COUNT with contrast = NAME";
            Err(Error::input(place(file), "no twins, or two sources", expected))
        }
    }
}

fn place(file: &Interpolation) -> String {
    format!("interpolation {}", file.name)
}

/// The interpolation's own judge, where it has refusal phrases.
///
/// # Errors
/// A phrase that is empty.
pub(super) fn own_judge(file: &Interpolation) -> Result<Option<Box<dyn Scorer>>> {
    let options = judge::Options { refusals: file.refusals.clone(), ..judge::Options::default() };
    if file.refusals.is_empty() { Ok(None) } else { judge::by_name("refusals", &options).map(Some) }
}

/// Interpolation between twins, at every site of a sweep or those that the file names.
pub(super) fn interpolation(
    file: &Interpolation,
    sweep: &Sweep,
    (model, judge, thinking): (&Model, &dyn Scorer, Option<bool>),
    (out, header): (&Path, &Header),
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<StageSection> {
    let seed = header.seed.unwrap_or(0);
    let dialogues = twin_dialogues(file, seed)?;
    let pairs = twins(&dialogues, &file.pair, &place(file))?;
    let own = own_judge(file)?;
    let judge = own.as_deref().unwrap_or(judge);
    let wanted = match &file.sites {
        Some(sites) => model.decoder.architecture().parse_sites(sites)?,
        None => sweep.sites.iter().map(|(site, _)| *site).collect(),
    };
    let probes = wanted.iter().map(|site| Ok(sweep.at(*site)?.probe.clone())).collect::<Result<Vec<_>>>()?;
    let options = interpolation::Options {
        search: Search { parts: file.parts, halvings: file.halvings },
        max_tokens: file.max_tokens,
        thinking,
        seed,
    };
    let text = |problem| Error::input(place(file), problem, "what JSON can hold");
    let weights: Vec<_> =
        probes.iter().map(|probe| (probe.source.site, &probe.weight, &probe.bias)).collect();
    let weights: Vec<String> = weights.iter().map(|weights| format!("{weights:?}")).collect();
    let made_from = serde_json::to_vec(&(
        "flips that last",
        file,
        judge.identity(),
        &dialogues,
        thinking,
        seed,
        &model.hash,
        weights,
    ))
    .map_err(text)?;
    let made_from = artifact::sha256(&made_from);
    let path = paths::interpolation(out, &file.name);
    let before = artifact::read_json::<Kept>(&path, "crossing", 1).ok();
    let found = match before.filter(|(_, kept)| kept.made_from == made_from) {
        Some((_, kept)) => kept.found,
        None => {
            let found = interpolate(model, judge, &pairs, &probes, &options, on_progress)?;
            let header = Header { kind: "crossing".into(), version: 1, ..header.clone() };
            let kept = Kept { made_from, found };
            artifact::write_json(&path, &header, &kept)?;
            kept.found
        }
    };
    let summaries = found.summaries(seed);
    let table = InterpolationTable { found, summaries };
    let mut charts = vec![(format!("crossing-shares-{}", file.name), plots::interpolation::shares(&table))];
    if table.has_flips() {
        charts.push((format!("crossing-{}", file.name), plots::interpolation::chart(&table)));
    }
    Ok(StageSection {
        title: format!("Two boundaries: {}", file.name),
        text: format!(
            "Twins that differ in one thing, {}: the first one's hidden state is moved towards the second's. The probe's class \
             flips at the represented boundary, the answer's outcome at the one that the model acts on. A flip counts if it is to \
             the second twin's class or outcome and lasts to the end of the way; other changes are counted apart.",
            file.name
        ),
        figures: table.summaries.iter().flat_map(|summary| figures(&file.name, summary)).collect(),
        charts,
    })
}

fn figures(name: &str, summary: &Summary) -> Vec<Metric> {
    let figure = |what: &str, interval: Option<Interval>, n: usize| {
        let name = format!("crossing/{name}/{}/{what}", summary.site);
        interval.map(|interval| Metric::new(name, interval, n, "twins answered differently"))
    };
    let share = |what: &str, count: usize| figure(what, wilson(count, summary.pairs), summary.pairs);
    let all = [
        share("probe-flips", summary.probe_flips),
        share("answer-flips", summary.model_flips),
        share("random-flips", summary.control_flips),
        share("probe-changes-otherwise", summary.probe_others),
        share("answer-changes-otherwise", summary.model_others),
        figure("probe-at", summary.probe_at, summary.probe_flips),
        figure("answer-at", summary.model_at, summary.model_flips),
        figure("gap", summary.gap, summary.probe_flips.min(summary.model_flips)),
    ];
    all.into_iter().flatten().collect()
}

/// Readout of dialogues of the test part: the first token by token at every site, all of them round by round.
pub(super) fn token_readout(
    file: &TokenReadout,
    sweep: &Sweep,
    (model, data, map): (&Model, &Dataset, Option<&RiskMap>),
    thinking: Option<bool>,
    (out, header): (&Path, &Header),
) -> Result<StageSection> {
    let mut chosen: Vec<&Dialogue> = data.test.iter().map(|&number| &data.dialogues[number]).collect();
    chosen.sort_by_key(|dialogue| std::cmp::Reverse(dialogue.messages.len()));
    match file.ids.as_slice() {
        [] => chosen.truncate(1),
        ids => {
            let missing = ids.iter().find(|id| !chosen.iter().any(|dialogue| dialogue.id == **id));
            if let Some(missing) = missing {
                return Err(Error::input(
                    "token_readout",
                    format!("no dialogue {missing}"),
                    "ids of the test part",
                ));
            }
            chosen.retain(|dialogue| ids.contains(&dialogue.id));
        }
    }
    let Some(first) = chosen.first() else {
        return Err(Error::input("token_readout", "no dialogue in the test part", "one or more"));
    };
    let kind = |kind: &str| Header { kind: kind.into(), version: 1, ..header.clone() };
    let probes: Vec<Probe> = sweep.sites.iter().map(|(_, fitted)| fitted.probe.clone()).collect();
    let readout = token_readout::read_tokens(model, first, &probes, &file.class, thinking)?;
    artifact::write_json(&out.join("tokens.json"), &kind("tokens"), &readout)?;
    let strip = serde_json::to_string(&plots::token_map::strip(&readout, None))
        .map_err(|error| Error::input("token_readout", error, "a strip that JSON can hold"))?;
    artifact::write_text(&out.join("tokens.strip.json"), &strip)?;
    let mut charts = vec![("tokens".to_owned(), plots::token_map::chart(&readout))];
    let (site, best) = sweep.best();
    if let Some(map) = map.filter(|map| map.label == sweep.label && map.site == site.to_string()) {
        let chosen: Vec<Dialogue> = chosen.into_iter().cloned().collect();
        let drifts = token_readout::trajectories(model, &chosen, &best.probe, &map.plane, thinking)?;
        artifact::write_json(
            &out.join("drift.json"),
            &kind("drift"),
            &token_readout::Trajectories { drifts: &drifts },
        )?;
        let table = Trajectories { map: map.clone(), drifts };
        charts.push(("drift".into(), plots::trajectory::chart(&table)));
    }
    Ok(StageSection {
        title: "Token by token, round by round".into(),
        text: "A dialogue of the test part, read by the probes at every token, and its trajectory over the map. Its text, each token \
               coloured by the last probe's probability, is in tokens.html, beside this page."
            .into(),
        charts,
        figures: Vec::new(),
    })
}
