//! `pearl probe score`: a probe's probabilities on a store's rows.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::console::Console;
use crate::cli::output::{Outcome, print, print_exact};
use crate::cli::states::StoreSource;
use pearlpoint::activations::Labelled;
use pearlpoint::pipeline::unseen_rows;
use pearlpoint::probe::{Probe, ValidationPlan, classification_metrics};
use pearlpoint::report::{Table, table::Column};

#[derive(Args)]
#[command(after_help = "Example:
  pearl probe score user-type.safetensors --store store --data data.jsonl --group topic")]
pub struct Score {
    /// A probe, made by `pearl probe fit`
    probe: PathBuf,
    #[command(flatten)]
    states: StoreSource,
    /// Take only rows of groups that the probe held out: the label that its groups are values of
    #[arg(long)]
    group: Option<String>,
    /// Print one line of JSON a row: its dialogue, and the probability of every class
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Score, console: &Console) -> anyhow::Result<Outcome> {
    let probe = Probe::load(&arguments.probe)?;
    let states = arguments.states.open(console)?;
    let rows = rows(&states, &[&probe], arguments.group.as_deref(), console)?;
    let probabilities = states.probabilities(&probe, &rows)?;
    if arguments.json {
        for (&row, values) in rows.iter().zip(probabilities.rows()) {
            let classes: serde_json::Map<String, serde_json::Value> =
                probe.classes.iter().cloned().zip(values.iter().map(|&p| json!(p))).collect();
            print_exact(json!({"id": states.dialogue(row).id, "row": row, "probabilities": classes}))?;
        }
        return Ok(Outcome::Done);
    }
    let targets = states.truth_by_group(&probe, &rows, arguments.group.as_deref())?;
    let metrics = classification_metrics(probabilities.view(), &targets, &ValidationPlan::default(), "given");
    let mut table = Table::of_figures("", &metrics);
    table.columns[0] = Column::text(&format!("{} at {}", probe.source.label, probe.source.site));
    print(table.to_text()?)?;
    Ok(Outcome::Done)
}

/// The rows that are read: all, or those of groups that every probe held out.
pub fn rows(
    states: &Labelled,
    probes: &[&Probe],
    group: Option<&str>,
    console: &Console,
) -> anyhow::Result<Vec<usize>> {
    probes.iter().try_for_each(|probe| states.check_probe(probe))?;
    if let Some(group) = group {
        return Ok(unseen_rows(states, probes, group)?);
    }
    if probes.iter().any(|probe| probe.source.data_hash == states.header().data_hash) {
        console.say("a probe was fitted on these dialogues: --group takes only those that it held out");
    }
    Ok((0..states.rows()).collect())
}
