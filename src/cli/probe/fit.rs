//! `pearl probe fit`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::console::Console;
use crate::cli::dialogues::{Filter, Source};
use crate::cli::memory::{disable_huge_pages, set_purge_delay};
use crate::cli::model::ModelOptions;
use crate::cli::output::{Outcome, print, print_exact, save_chart};
use crate::cli::states::StoreSource;
use pearlpoint::analysis::layer_sweep::{self, Sweep};
use pearlpoint::config::ProbeFile;
use pearlpoint::error::Error;
use pearlpoint::experiment::probe_card;
use pearlpoint::plots;
use pearlpoint::probe::{CalibrationChoice, TargetKind, ValidationPlan, defaults, method_names};
use pearlpoint::report::{self, Table, table::Column};
use pearlpoint::stats::Metric;

#[derive(Args)]
#[command(after_help = "Example:
  pearl probe fit --store store --data data.jsonl --label user-type --group topic --held-out travel,music,healthcare --out user-type.safetensors
  pearl probe fit probes/user-type")]
pub struct Fit {
    /// A concept's folder: its probe.toml replaces all other options, and the results are written beside it
    #[arg(required_unless_present = "store", conflicts_with = "store")]
    concept: Option<PathBuf>,
    #[command(flatten)]
    options: ModelOptions,
    /// A store of activations, made by `pearl extract`
    #[arg(long, value_name = "FOLDER", requires_all = ["data", "label", "out"])]
    store: Option<PathBuf>,
    /// Dialogues that the store was made from
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// The label to predict
    #[arg(long)]
    label: Option<String>,
    /// Target type: multiclass (one of several), ordinal (levels in order) or multilabel (any number of several)
    #[arg(long, default_value_t = TargetKind::default())]
    kind: TargetKind,
    /// The classes in order [default: by name; ordinal levels that are numbers ascend, and other levels need it]
    #[arg(long, value_delimiter = ',')]
    order: Vec<String>,
    /// The label to group by: no group is on both sides of a split [default: each dialogue is a group]
    #[arg(long)]
    group: Option<String>,
    /// Groups to test on; never fitted or chosen on [default: scores are out of fold]
    #[arg(long, value_delimiter = ',', requires = "group")]
    held_out: Vec<String>,
    /// Sites to fit at [default: all of the store]
    #[arg(long)]
    sites: Option<String>,
    #[arg(long, default_value = defaults::METHOD, help = method_names())]
    method: String,
    /// Values of C to choose among, ascending: the inverse penalty of logistic and ridge, the covariance's share of lda
    #[arg(long, alias = "strengths", value_delimiter = ',')]
    c_grid: Vec<f64>,
    /// Folds, by group, that C and the calibration are chosen on
    #[arg(long, default_value_t = ValidationPlan::default().folds)]
    folds: usize,
    /// The calibration: auto, temperature, platt, isotonic or none; closed loops and projections need a straight line (all but isotonic)
    #[arg(long, default_value_t = CalibrationChoice::default())]
    calibration: CalibrationChoice,
    /// Intervals over whole groups: the default, and always so where there is a --group
    #[arg(long, hide = true)]
    by_group: bool,
    /// Seed of folds, intervals and controls
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the best site's probe
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Fit, console: &Console) -> anyhow::Result<Outcome> {
    let bar = console.bar(1, "fitting");
    if let Some(folder) = &arguments.concept {
        let concept = ProbeFile::load(folder)?;
        let model = arguments.options.load(&concept.model, console)?;
        let sweep = probe_card::fit(&concept, folder, &model, &mut |progress| bar.show(progress))?;
        drop(bar);
        return show(&sweep, folder.join(probe_card::WEIGHTS), arguments.json, console);
    }
    // The parser requires these beside --store.
    let missing = |option: &'static str| move || Error::input(option, "left out", "it beside --store");
    let store = arguments.store.ok_or_else(missing("--store"))?;
    let data = arguments.data.ok_or_else(missing("--data"))?;
    let label = arguments.label.ok_or_else(missing("--label"))?;
    let out = arguments.out.ok_or_else(missing("--out"))?;
    // One site's matrix replaces the one before it; none of a fit's memory should be kept beside it.
    set_purge_delay(0);
    disable_huge_pages();
    let states = StoreSource::new(store, Source { data, filter: arguments.filter }).open(console)?;
    let mut builder = states
        .into_probe(label)
        .kind(arguments.kind)
        .order(arguments.order)
        .hold_out(arguments.held_out)
        .method(&arguments.method, &arguments.c_grid)?
        .on_progress(|progress| bar.show(progress));
    let mut plan = ValidationPlan::default();
    (plan.folds, plan.seed) = (arguments.folds, arguments.seed);
    plan.calibration = arguments.calibration;
    builder = builder.plan(plan);
    if let Some(group) = arguments.group {
        builder = builder.group(group);
    }
    if let Some(sites) = arguments.sites {
        builder = builder.sites(sites);
    }
    let sweep = builder.fit()?;
    drop(bar);
    sweep.best().save(&out)?;
    let charts = draw(sweep.as_sweep(), &out)?;
    let done = show(sweep.as_sweep(), out, arguments.json, console)?;
    console.say(format!("AUROC by site{}: {}", charts.1, charts.0.display()));
    Ok(done)
}

/// Draws the sweep, and the probe on the rows that were held out, in a folder beside the probe. Gives the folder, and what is there
/// beside the sweep.
fn draw(sweep: &Sweep, probe: &Path) -> anyhow::Result<(PathBuf, &'static str)> {
    let folder = probe.with_extension("charts");
    save_chart(&folder, "auroc", &plots::layer_sweep::chart(&sweep.table()?))?;
    if let Some(held_out) = &sweep.held_out {
        save_chart(&folder, "map", &plots::risk_map::chart(&held_out.map))?;
        save_chart(&folder, "roc", &plots::roc::chart(&held_out.roc))?;
    }
    report::draw_all(&folder)?;
    Ok((folder, if sweep.held_out.is_some() { ", risk map and ROC curve of the rows held out" } else { "" }))
}

fn show(sweep: &Sweep, out: PathBuf, json: bool, console: &Console) -> anyhow::Result<Outcome> {
    let (best, _) = sweep.best();
    let mut metrics: Vec<Metric> = Vec::new();
    for (site, fitted) in &sweep.sites {
        let auroc = layer_sweep::figure(fitted, "auroc", sweep.on)?;
        metrics.push(Metric { name: format!("{site}/auroc"), ..auroc.clone() });
    }
    metrics.extend(sweep.best_figures());
    metrics.extend(sweep.controls().into_iter().chain(&sweep.differences).cloned());
    if json {
        print_exact(serde_json::to_string_pretty(&metrics)?)?;
    } else {
        let mut table = Table::of_figures("", &metrics);
        table.columns[0] = Column::text(&format!("{} ({})", sweep.label, sweep.split));
        print(table.to_text()?)?;
    }
    sweep.left_out.iter().for_each(|line| console.say(format!("left out: {line}")));
    sweep.doubts()?.iter().for_each(|line| console.say(format!("doubt: {line}")));
    console.say(format!("the probe at {best}: {}", out.display()));
    Ok(Outcome::Done)
}
