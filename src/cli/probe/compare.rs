//! `pearl probe compare`: the AUROC of several probes on the same rows, and the differences.

use std::path::PathBuf;

use clap::Args;

use super::score::rows;
use crate::cli::console::Console;
use crate::cli::output::{Outcome, print, print_exact};
use crate::cli::states::StoreSource;
use pearlpoint::error::Error;
use pearlpoint::probe::{Probe, ValidationPlan, linearised_auroc, units};
use pearlpoint::report::Table;
use pearlpoint::stats::Metric;

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
    let targets = states.truth_by_group(&probes[0], &rows, arguments.group.as_deref())?;
    let read =
        probes.iter().map(|probe| states.probabilities(probe, &rows)).collect::<Result<Vec<_>, _>>()?;
    let units = units(&targets, &ValidationPlan::default());
    // All probes on the same rows, so that the differences are paired.
    let areas = read.iter().map(|probabilities| linearised_auroc(probabilities.view(), &targets, &[]));
    let one_class = || Error::input("probe compare", "rows of one class", "rows of two or more");
    let areas = areas.map(|area| area.ok_or_else(one_class)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = arguments.probes.iter().map(|path| path.display().to_string()).collect();
    let metric = |name: String, interval| Metric::new(name, interval, rows.len(), "given");
    let own =
        names.iter().zip(&areas).map(|(name, area)| metric(format!("{name} auroc"), area.interval(&units)));
    let differences = names[1..]
        .iter()
        .zip(&areas[1..])
        .map(|(name, area)| metric(format!("{name} − {}", names[0]), area.minus(&areas[0], &units)));
    let metrics: Vec<Metric> = own.chain(differences).collect();
    match arguments.json {
        true => print_exact(serde_json::to_string_pretty(&metrics)?)?,
        false => print(Table::of_figures("", &metrics).to_text()?)?,
    }
    Ok(Outcome::Done)
}
