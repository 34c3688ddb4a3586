//! What fitted probes say: `score`, `compare`, `cosines`.

use std::path::{Path, PathBuf};

use clap::Args;
use ndarray::{Array2, Axis};
use serde_json::json;

use super::held::Held;
use crate::cli::progress::Console;
use crate::cli::{Outcome, print};
use pearlpoint::activations::Store;
use pearlpoint::analysis::dataset::labels;
use pearlpoint::artifact;
use pearlpoint::dialogue::Dialogues;
use pearlpoint::error::Error;
use pearlpoint::plots::boundary_charts;
use pearlpoint::probe::{Link, ValidationPlan, Probe, Targets, classification_metrics};
use pearlpoint::report::{self, Table, table::Column};
use pearlpoint::stats::{self, Metric};

#[derive(Args)]
pub struct Score {
    /// A probe that `pearl probe fit` made
    probe: PathBuf,
    #[command(flatten)]
    held: Held,
    /// Only rows of groups that the probe never saw: the label that its groups are values of
    #[arg(long)]
    group: Option<String>,
    /// Print a line of JSON a row: its dialogue, and the probability of every class
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Compare {
    /// Probes of one label; the first is what the others are held against
    #[arg(required = true, num_args = 2..)]
    probes: Vec<PathBuf>,
    #[command(flatten)]
    held: Held,
    /// Only rows of groups that none of the probes saw: the label that their groups are values of
    #[arg(long)]
    group: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn score(arguments: Score, talk: &Console) -> anyhow::Result<Outcome> {
    let probe = Probe::load(&arguments.probe)?;
    let (store, example, data) = arguments.held.open()?;
    let rows = rows(&[&probe], &arguments.group, &store, &example, &data, talk)?;
    let probabilities = read(&probe, &store, &rows)?;
    if arguments.json {
        for (&row, values) in rows.iter().zip(probabilities.rows()) {
            let classes = probe.classes.iter().cloned().zip(values.iter().map(|&p| json!(p)));
            let classes: serde_json::Map<String, serde_json::Value> = classes.collect();
            let dialogue = &data.dialogues[example[row]];
            print(json!({"id": dialogue.id, "row": row, "probabilities": classes}))?;
        }
        return Ok(Outcome::Done);
    }
    let targets = truth(&probe, &rows, &example, &data)?;
    let found = classification_metrics(probabilities.view(), &targets, &ValidationPlan::default(), "given");
    let mut table = Table::of_figures("", &found);
    table.columns[0] = Column::text(&format!("{} at {}", probe.source.label, probe.source.site));
    print(table.to_text()?)?;
    Ok(Outcome::Done)
}

pub fn compare(arguments: Compare, talk: &Console) -> anyhow::Result<Outcome> {
    let probes = arguments.probes.iter().map(|path| Probe::load(path)).collect::<Result<Vec<_>, _>>()?;
    let of = |probe: &Probe| (probe.source.label.clone(), probe.classes.clone());
    if let Some((other, path)) =
        probes.iter().zip(&arguments.probes).find(|(probe, _)| of(probe) != of(&probes[0]))
    {
        let found = format!("a probe of {} ({})", other.source.label, other.classes.join(", "));
        let expected =
            format!("one of {} ({}), as the first", probes[0].source.label, probes[0].classes.join(", "));
        return Err(Error::input(path.display(), found, expected).into());
    }
    let (store, example, data) = arguments.held.open()?;
    let all: Vec<&Probe> = probes.iter().collect();
    let rows = rows(&all, &arguments.group, &store, &example, &data, talk)?;
    let targets = truth(&probes[0], &rows, &example, &data)?;
    let read = probes.iter().map(|probe| read(probe, &store, &rows)).collect::<Result<Vec<_>, _>>()?;
    let plan = ValidationPlan::default();
    let units: Vec<Vec<usize>> = (0..rows.len()).map(|row| vec![row]).collect();
    // The same draws of rows for all, so that a difference is as sure as pairs make it.
    let area = |probabilities: &Array2<f64>, rows: &[usize]| {
        let some = targets.select(rows);
        let plain = ValidationPlan { resamples: 0, ..plan.clone() };
        let figures = classification_metrics(probabilities.select(Axis(0), rows).view(), &some, &plain, "given");
        figures.iter().find(|figure| figure.name == "auroc").map(|figure| figure.value)
    };
    let intervals = stats::bootstrap_each(&units, plan.resamples, plan.seed, |rows| {
        let areas: Vec<Option<f64>> = read.iter().map(|probabilities| area(probabilities, rows)).collect();
        let first = areas[0];
        let differences = areas[1..].iter().map(|area| Some((*area)? - first?));
        areas.iter().copied().chain(differences).collect()
    });
    let names: Vec<String> = arguments.probes.iter().map(|path| path.display().to_string()).collect();
    let differences = names[1..].iter().map(|name| format!("{name} − {}", names[0]));
    let figures: Vec<Metric> = names
        .iter()
        .map(|name| format!("{name} auroc"))
        .chain(differences)
        .zip(intervals)
        .filter_map(|(name, interval)| Some(Metric::new(name, interval?, rows.len(), "given")))
        .collect();
    match arguments.json {
        true => print(serde_json::to_string_pretty(&figures)?)?,
        false => print(Table::of_figures("", &figures).to_text()?)?,
    }
    Ok(Outcome::Done)
}

pub fn cosines(paths: &[PathBuf], out: Option<&Path>, json: bool) -> anyhow::Result<Outcome> {
    let mut names = Vec::new();
    let mut directions = Vec::new();
    for path in paths {
        let probe = Probe::load(path)?;
        // One direction of two classes, and of levels; one a head of others.
        let count = if probe.link == Link::Ordinal { 1 } else { probe.heads().len() };
        for (head, weight) in probe.heads().iter().zip(probe.weight.rows()).take(count) {
            let width = directions.first().map_or(weight.len(), Vec::len);
            if weight.len() != width {
                let found = format!("weights of width {}", weight.len());
                return Err(Error::input(
                    path.display(),
                    found,
                    format!("width {width}, as the first probe's"),
                )
                .into());
            }
            let concept = &probe.source.label;
            let name = if count == 1 { concept.clone() } else { format!("{concept}/{head}") };
            names.push(format!("{name} at {}", probe.source.site));
            directions.push(weight.iter().map(|&w| f64::from(w)).collect::<Vec<f64>>());
        }
    }
    let cosine = |a: &Vec<f64>, b: &Vec<f64>| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let matrix: Vec<Vec<f64>> =
        directions.iter().map(|a| directions.iter().map(|b| cosine(a, b)).collect()).collect();
    if let Some(folder) = out {
        let drawn = Cosines { names: names.clone(), cosines: matrix.clone() };
        let chart = serde_json::to_vec(&cosines::chart(&drawn))?;
        artifact::write_atomic(&folder.join("cosines.chart.json"), |file| file.write_all(&chart))?;
        report::draw_all(folder)?;
    }
    if json {
        print(serde_json::to_string_pretty(&json!({"directions": names, "cosines": matrix}))?)?;
        return Ok(Outcome::Done);
    }
    let mut columns = vec![Column::text("direction")];
    columns.extend((1..=names.len()).map(|number| Column::numbers(&number.to_string())));
    let rows = names.iter().zip(&matrix).enumerate().map(|(number, (name, row))| {
        let cells = row.iter().map(|value| format!("{value:.2}"));
        std::iter::once(format!("{} {name}", number + 1)).chain(cells).collect()
    });
    print(Table { caption: String::new(), columns, rows: rows.collect() }.to_text()?)?;
    Ok(Outcome::Done)
}

/// The rows to read: all, or those of groups that every probe held out.
fn rows(
    probes: &[&Probe],
    group: &Option<String>,
    store: &Store,
    example: &[usize],
    data: &Dialogues,
    talk: &Console,
) -> anyhow::Result<Vec<usize>> {
    for probe in probes {
        if probe.source.tokens != store.manifest.tokens {
            let found = format!("activations at {}", store.manifest.tokens);
            let place = format!("probe of {}", probe.source.label);
            return Err(Error::input(
                place,
                found,
                format!("at {}, where it was fitted", probe.source.tokens),
            )
            .into());
        }
        if probe.source.model_hash.is_some() && store.header.model_hash != probe.source.model_hash {
            let place = format!("probe of {}", probe.source.label);
            return Err(Error::input(
                place,
                "activations of another model",
                "the model that it was fitted on",
            )
            .into());
        }
    }
    let Some(group) = group else {
        if probes.iter().any(|probe| probe.source.data_hash == store.header.data_hash) {
            talk.say(
                "these are the dialogues that a probe was fitted on: --group reads only what it never saw",
            );
        }
        return Ok((0..example.len()).collect());
    };
    let groups = labels(example.iter().map(|&number| &data.dialogues[number]), group)?;
    let unseen = |row: &usize| probes.iter().all(|probe| probe.held_out.contains(&groups[*row]));
    let rows: Vec<usize> = (0..example.len()).filter(unseen).collect();
    if rows.is_empty() {
        let expected = format!("rows of {}", probes[0].held_out.join(", "));
        return Err(
            Error::input(format!("--group {group}"), "no row that the probe never saw", expected).into()
        );
    }
    Ok(rows)
}

fn read(probe: &Probe, store: &Store, rows: &[usize]) -> Result<Array2<f64>, Error> {
    if !store.manifest.sites.contains(&probe.source.site) {
        let sites: Vec<String> = store.manifest.sites.iter().map(ToString::to_string).collect();
        let place = format!("probe of {} at {}", probe.source.label, probe.source.site);
        return Err(Error::input(place, format!("a store of {}", sites.join(", ")), "its site among them"));
    }
    probe.probabilities(store.at(probe.source.site)?.select(Axis(0), rows).view())
}

/// What is true of the rows, in the probe's classes.
fn truth(probe: &Probe, rows: &[usize], example: &[usize], data: &Dialogues) -> Result<Targets, Error> {
    let dialogues = || rows.iter().map(|&row| &data.dialogues[example[row]]);
    let ids: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let order: Vec<&str> = probe.classes.iter().map(String::as_str).collect();
    if probe.link == Link::MultiLabel {
        let lists = pearlpoint::analysis::layer_sweep::lists(dialogues(), &probe.source.label)?;
        return Targets::multilabel(&lists, &ids, &order);
    }
    let mut targets = Targets::new(&labels(dialogues(), &probe.source.label)?, &ids, &order)?;
    targets.link = probe.link;
    Ok(targets)
}
