//! `pearl probe compare`: the AUROC of several probes on the same rows, and the differences.

use std::path::PathBuf;

use clap::Args;
use ndarray::{Array2, Axis};

use super::score::rows;
use crate::cli::console::Console;
use crate::cli::output::{Outcome, print, print_exact};
use crate::cli::states::StoreSource;
use pearlpoint::error::Error;
use pearlpoint::probe::{Probe, ValidationPlan, classification_metrics};
use pearlpoint::report::Table;
use pearlpoint::stats::{self, Metric};

#[derive(Args)]
#[command(after_help = "Example:
  pearl probe fit --store store --data data.jsonl --label user-type --group topic --held-out travel,music,healthcare --sites 1.resid_post --out block-1.safetensors
  pearl probe compare user-type.safetensors block-1.safetensors --store store --data data.jsonl --group topic")]
pub struct Compare {
    /// Probes of one label; the others are compared with the first
    #[arg(required = true, num_args = 2..)]
    probes: Vec<PathBuf>,
    #[command(flatten)]
    states: StoreSource,
    /// Take only rows of groups that all probes held out: the label that their groups are values of
    #[arg(long)]
    group: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Compare, console: &Console) -> anyhow::Result<Outcome> {
    let probes = arguments.probes.iter().map(|path| Probe::load(path)).collect::<Result<Vec<_>, _>>()?;
    let target = |probe: &Probe| (probe.source.label.clone(), probe.classes.clone());
    for (probe, path) in probes.iter().zip(&arguments.probes) {
        if target(probe) != target(&probes[0]) {
            let found = format!("a probe of {} ({})", probe.source.label, probe.classes.join(", "));
            let (label, classes) = target(&probes[0]);
            let expected = format!("one of {label} ({}), as the first", classes.join(", "));
            return Err(Error::input(path.display(), found, expected).into());
        }
    }
    let states = arguments.states.open(console)?;
    let all: Vec<&Probe> = probes.iter().collect();
    let rows = rows(&states, &all, arguments.group.as_deref(), console)?;
    let targets = states.truth(&probes[0], &rows)?;
    let read =
        probes.iter().map(|probe| states.probabilities(probe, &rows)).collect::<Result<Vec<_>, _>>()?;
    let plan = ValidationPlan::default();
    let auroc = |probabilities: &Array2<f64>, rows: &[usize]| {
        let plain = ValidationPlan { resamples: 0, ..plan.clone() };
        let chosen = probabilities.select(Axis(0), rows);
        let metrics = classification_metrics(chosen.view(), &targets.select(rows), &plain, "given");
        metrics.iter().find(|metric| metric.name == "auroc").map(|metric| metric.value)
    };
    // All probes share the resamples, so that the differences are paired.
    let units: Vec<Vec<usize>> = (0..rows.len()).map(|row| vec![row]).collect();
    let intervals = stats::bootstrap_each(&units, plan.resamples, plan.seed, |rows| {
        let areas: Vec<Option<f64>> = read.iter().map(|probabilities| auroc(probabilities, rows)).collect();
        let first = areas[0];
        let differences = areas[1..].iter().map(|area| Some((*area)? - first?));
        areas.iter().copied().chain(differences).collect()
    });
    let names: Vec<String> = arguments.probes.iter().map(|path| path.display().to_string()).collect();
    let own = names.iter().map(|name| format!("{name} auroc"));
    let differences = names[1..].iter().map(|name| format!("{name} − {}", names[0]));
    let named = own.chain(differences).zip(intervals);
    let metrics: Vec<Metric> = named
        .filter_map(|(name, interval)| Some(Metric::new(name, interval?, rows.len(), "given")))
        .collect();
    match arguments.json {
        true => print_exact(serde_json::to_string_pretty(&metrics)?)?,
        false => print(Table::of_figures("", &metrics).to_text()?)?,
    }
    Ok(Outcome::Done)
}
