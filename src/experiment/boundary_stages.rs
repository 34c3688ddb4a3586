//! An experiment's stages around the boundary: its card with margins and a promise, the way between twins, and dialogues
//! under the probe's eye. Each saves its tables in the run's folder and gives its figures and charts.

use std::path::Path;

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::{Dataset, Progress};
use crate::activations::Activations;
use crate::analysis::boundary_report;
use crate::analysis::boundary_report::{Bounded, bound};
use crate::analysis::interpolation::{Crossing, Crossings, Summary, cross, twins};
use crate::analysis::layer_sweep::Sweep;
use crate::analysis::token_readout;
use crate::artifact::{self, Header};
use crate::boundary::{ErrorKind, Margin, RiskBound, RiskMap, Search};
use crate::config::experiment::{Bounding, Twins, Watching};
use crate::dialogue::{self, Dialogue};
use crate::error::{Error, Result};
use crate::judge::strategist;
use crate::model::Model;
use crate::organism::contrast::{self, Contrast};
use crate::plots::boundary_charts;
use crate::probe::Probe;
use crate::report::Chart;
use crate::stats::{Interval, Metric, wilson};

/// What a stage has to show: a section of the page.
pub struct Shown {
    pub title: String,
    pub text: String,
    pub charts: Vec<(String, Chart)>,
    pub figures: Vec<Metric>,
}

/// Saves a boundary's tables: the map, every margin, the margins to be labelled next, the card.
pub fn save_bounded(out: &Path, header: &Header, found: &Bounded) -> Result<()> {
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

/// The charts of a boundary beside its map.
pub fn bounded_charts(probe: &Probe, found: &Bounded) -> Vec<(String, Chart)> {
    let boundary_report::Card { label, site, calibration, .. } = &found.card;
    let errors = [found.card.ece_as_fitted.value, found.card.ece.value];
    let bins = [&found.bins[0][..], &found.bins[1][..]];
    vec![
        ("reliability".into(), boundary_charts::reliability(label, site, calibration, bins, errors)),
        ("margins".into(), boundary_charts::margins(label, site, &probe.classes, &found.margins)),
    ]
}

/// The boundary of a probe's best site over the test part.
pub fn bounded(
    asked: &Bounding,
    sweep: &Sweep,
    data: &Dataset,
    activations: &Activations,
    (out, header): (&Path, &Header),
    seed: u64,
) -> Result<Shown> {
    let (site, best) = sweep.best();
    let of = |number: &usize| &data.dialogues[*number];
    let rows = boundary_report::Rows {
        states: activations.at(site)?.select(Axis(0), &data.test),
        ids: data.test.iter().map(|number| of(number).id.clone()).collect(),
        labels: data.test.iter().map(|number| boundary_report::label(of(number), &best.probe)).collect(),
        split: sweep.split.clone(),
    };
    let guarantee = if asked.false_alarms { ErrorKind::FalseAlarm } else { ErrorKind::Miss };
    let promise = asked.alpha.map(|alpha| match asked.expected {
        true => RiskBound::expected(guarantee, alpha),
        false => RiskBound::confident(guarantee, alpha, asked.delta),
    });
    let question = boundary_report::Question {
        from: asked.from.clone(),
        to: asked.to.clone(),
        safe: asked.safe.clone().unwrap_or_else(|| asked.from.clone()),
        flag: asked.flag.clone().unwrap_or_else(|| asked.to.clone()),
        promise,
        resamplings: asked.resamplings,
        next: asked.next,
        seed,
    };
    let found = bound(&best.probe, &rows, &question)?;
    save_bounded(&out.join("boundary"), header, &found)?;
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
    let promised = found.card.flagged.as_ref().map_or(String::new(), |flagged| {
        format!(
            " {} is flagged from P = {:.4} on: {}, which held in {:.1} % of {} resamplings.",
            flagged.class,
            flagged.threshold.value,
            flagged.promise,
            100.0 * flagged.trial.coverage,
            flagged.trial.resamplings
        )
    });
    Ok(Shown {
        title: "How near, how sure".into(),
        text: format!(
            "How far every dialogue lies from the boundary, and how honest the probe is.{promised}"
        ),
        charts: bounded_charts(&best.probe, &found),
        figures,
    })
}

/// Saved with what it was made from, so that it is made again only where that has changed.
#[derive(Serialize, Deserialize)]
struct Kept {
    made_from: String,
    #[serde(flatten)]
    found: Crossings,
}

/// The way between twins, at every site of a sweep that is asked for.
pub fn crossed(
    asked: &Twins,
    sweep: &Sweep,
    model: &Model,
    thinking: Option<bool>,
    (out, header): (&Path, &Header),
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Shown> {
    let seed = header.seed.unwrap_or(0);
    let place = format!("crossing {}", asked.name);
    let dialogues: Vec<Dialogue> = match (&asked.file, asked.draw, &asked.contrast) {
        (Some(file), None, None) => dialogue::read(file, &dialogue::Options::default())?.dialogues,
        (None, Some(count), Some(name)) => {
            let contrast = Contrast::named(name).ok_or_else(|| {
                let names = Contrast::ALL.map(Contrast::name).join(" or ");
                Error::input(&place, format!("contrast {name:?}"), names)
            })?;
            let pairs = contrast::pairs(count, contrast, seed).into_iter().flatten();
            pairs.map(|(_, dialogue)| dialogue).collect()
        }
        _ => {
            let expected = "file = PATH, or draw = COUNT with contrast = NAME";
            return Err(Error::input(&place, "no twins, or two sources", expected));
        }
    };
    let pairs = twins(&dialogues, &asked.pair, &place)?;
    let judge = strategist(&asked.refusals, &dialogues)?;
    let wanted = match &asked.sites {
        Some(sites) => model.decoder.architecture().parse_sites(sites)?,
        None => sweep.sites.iter().map(|(site, _)| *site).collect(),
    };
    let probes = wanted.iter().map(|site| Ok(sweep.at(*site)?.probe.clone())).collect::<Result<Vec<_>>>()?;
    let how = Crossing {
        search: Search { parts: asked.parts, halvings: asked.halvings },
        max_tokens: asked.max_tokens,
        thinking,
        seed,
    };
    let text = |problem| Error::input(&place, problem, "what JSON can hold");
    let weights: Vec<_> =
        probes.iter().map(|probe| (probe.source.site, &probe.weight, &probe.bias)).collect();
    let weights: Vec<String> = weights.iter().map(|weights| format!("{weights:?}")).collect();
    let made_from =
        serde_json::to_vec(&(asked, &dialogues, thinking, seed, &model.hash, weights)).map_err(text)?;
    let made_from = artifact::sha256(&made_from);
    let path = out.join(format!("crossing-{}.json", asked.name));
    let before = artifact::read_json::<Kept>(&path, "crossing", 1).ok();
    let found = match before.filter(|(_, kept)| kept.made_from == made_from) {
        Some((_, kept)) => kept.found,
        None => {
            let found = cross(model, judge.as_ref(), &pairs, &probes, &how, on_progress)?;
            let header = Header { kind: "crossing".into(), version: 1, ..header.clone() };
            let kept = Kept { made_from, found };
            artifact::write_json(&path, &header, &kept)?;
            kept.found
        }
    };
    let summaries = found.summaries(seed);
    let mut charts = vec![(
        format!("crossing-shares-{}", asked.name),
        boundary_charts::crossing_shares(&found, &summaries),
    )];
    if summaries.iter().any(|summary| summary.probe_at.is_some() || summary.model_at.is_some()) {
        charts.push((format!("crossing-{}", asked.name), boundary_charts::crossings(&found, &summaries)));
    }
    Ok(Shown {
        title: format!("Two boundaries: {}", asked.name),
        text: format!(
            "Twins that differ in one thing, {}: the first one's state is moved towards the second's. Where the probe's \
             reading flips is the boundary that is represented; where the answer's strategy flips is the one that is acted on.",
            asked.name
        ),
        figures: summaries.iter().flat_map(|summary| figures(&asked.name, summary)).collect(),
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
        figure("probe-at", summary.probe_at, summary.probe_flips),
        figure("answer-at", summary.model_at, summary.model_flips),
        figure("gap", summary.gap, summary.probe_flips.min(summary.model_flips)),
    ];
    all.into_iter().flatten().collect()
}

/// Dialogues of the test part under the probes' eye: the first token by token at every site, all of them round by round.
pub fn watched(
    asked: &Watching,
    sweep: &Sweep,
    (model, data, map): (&Model, &Dataset, Option<&RiskMap>),
    thinking: Option<bool>,
    (out, header): (&Path, &Header),
) -> Result<Shown> {
    let mut chosen: Vec<&Dialogue> = data.test.iter().map(|&number| &data.dialogues[number]).collect();
    chosen.sort_by_key(|dialogue| std::cmp::Reverse(dialogue.messages.len()));
    match asked.ids.as_slice() {
        [] => chosen.truncate(1),
        ids => {
            let missing = ids.iter().find(|id| !chosen.iter().any(|dialogue| dialogue.id == **id));
            if let Some(missing) = missing {
                return Err(Error::input(
                    "watching",
                    format!("no dialogue {missing}"),
                    "ids of the test part",
                ));
            }
            chosen.retain(|dialogue| ids.contains(&dialogue.id));
        }
    }
    let Some(first) = chosen.first() else {
        return Err(Error::input("watching", "no dialogue in the test part", "one or more"));
    };
    let kind = |kind: &str| Header { kind: kind.into(), version: 1, ..header.clone() };
    let probes: Vec<Probe> = sweep.sites.iter().map(|(_, fitted)| fitted.probe.clone()).collect();
    let seen = token_readout::watch(model, first, &probes, &asked.class, thinking)?;
    artifact::write_json(&out.join("tokens.json"), &kind("tokens"), &seen)?;
    let strip = serde_json::to_string(&boundary_charts::strip(&seen, None))
        .map_err(|error| Error::input("watching", error, "a strip that JSON can hold"))?;
    artifact::write_text(&out.join("tokens.strip.json"), &strip)?;
    let mut charts = vec![("tokens".to_owned(), boundary_charts::tokens(&seen))];
    let (site, best) = sweep.best();
    if let Some(map) = map.filter(|map| map.label == sweep.label && map.site == site.to_string()) {
        let chosen: Vec<Dialogue> = chosen.into_iter().cloned().collect();
        let drifts = token_readout::drift(model, &chosen, &best.probe, &map.plane, thinking)?;
        artifact::write_json(
            &out.join("drift.json"),
            &kind("drift"),
            &token_readout::Drifts { drifts: &drifts },
        )?;
        charts.push(("drift".into(), boundary_charts::drift(map, &drifts)));
    }
    Ok(Shown {
        title: "Token by token, round by round".into(),
        text: "A dialogue of the test part as the probes read it at every token, and its way over the map. Its text, a token coloured by \
               what the last probe reads there, is in tokens.html, beside this page."
            .into(),
        charts,
        figures: Vec::new(),
    })
}
