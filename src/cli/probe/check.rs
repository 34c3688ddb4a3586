//! `pearl probe check`: a probe on two stores of the same dialogues, with a verdict and an exit code.

use std::path::PathBuf;

use clap::Args;

use super::score::rows;
use crate::cli::console::Console;
use crate::cli::output::{Outcome, print, print_exact};
use crate::cli::states::StoreSource;
use pearlpoint::activations::{Labelled, Store};
use pearlpoint::analysis::probe_check::{self, Change, Margins, ProbeCheck, Verdict};
use pearlpoint::artifact::{self, Header};
use pearlpoint::error::Error;
use pearlpoint::probe::Probe;
use pearlpoint::report::{Table, table::Column};

#[derive(Args)]
#[command(
    after_help = "The exit code is 0 where the probe holds, 1 for every other verdict, and 2 for wrong input.

Example:
  pearl extract --data data.jsonl --sites *.resid_post --tokens assistant.start --dtype bf16 --out store-bf16
  pearl probe check user-type.safetensors --store store --other store-bf16 --data data.jsonl --group topic --rate-margin 1 --calibration-margin 1"
)]
pub struct Check {
    /// A probe, made by `pearl probe fit`
    probe: PathBuf,
    #[command(flatten)]
    states: StoreSource,
    /// The store to compare with it: the same dialogues, read by another precision, engine or fine-tune of the model
    #[arg(long, value_name = "FOLDER")]
    other: PathBuf,
    /// Take only rows of groups that the probe held out: the label that its groups are values of
    #[arg(long)]
    group: Option<String>,
    /// AUROC that may be lost
    #[arg(long, default_value_t = Margins::default().auroc)]
    auroc_margin: f64,
    /// Change that the share of misses and of false alarms at a threshold may have
    #[arg(long, default_value_t = Margins::default().rate)]
    rate_margin: f64,
    /// Rise that the expected calibration error may have
    #[arg(long, default_value_t = Margins::default().calibration)]
    calibration_margin: f64,
    /// Write the result as JSON too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Check, console: &Console) -> anyhow::Result<Outcome> {
    let Check { auroc_margin, rate_margin, calibration_margin, .. } = arguments;
    for (flag, margin) in [
        ("--auroc-margin", auroc_margin),
        ("--rate-margin", rate_margin),
        ("--calibration-margin", calibration_margin),
    ] {
        if !(0.0..=1.0).contains(&margin) {
            return Err(Error::input(flag, margin, "a number from 0 to 1").into());
        }
    }
    let margins = Margins { auroc: auroc_margin, rate: rate_margin, calibration: calibration_margin };
    let probe = Probe::load(&arguments.probe)?;
    Store::open(&arguments.other)?;
    // Other weights are what is checked, and are told for each store.
    let taken = console.other_weights(true);
    let first = arguments.states.open(console)?.with_other_weights(taken.clone());
    let second = Labelled::open(&arguments.other, arguments.states.source.read(console)?)?;
    let second = second.with_other_weights(taken);
    let chosen = rows(&first, &[&probe], arguments.group.as_deref(), console)?;
    let group = arguments.group.as_deref();
    let check = probe_check::check(&probe, [&first, &second], &chosen, group, margins)?;
    if let Some(out) = &arguments.out {
        let header = Header { kind: "probe-check".into(), version: 1, ..second.header().clone() };
        artifact::write_json(out, &header, &check)?;
    }
    match arguments.json {
        true => print_exact(serde_json::to_string_pretty(&check)?)?,
        false => {
            print(table(&check).to_text()?)?;
            print(format!("verdict: {}", check.verdict.in_words()))?;
            check.reasons.iter().try_for_each(|reason| print(format!("  {reason}")))?;
        }
    }
    if check.unpaired > 0 {
        console.say(format!("{} rows have no partner in the other store and were left out", check.unpaired));
    }
    Ok(match check.verdict {
        Verdict::Holds => Outcome::Done,
        _ => Outcome::CheckFailed,
    })
}

fn table(check: &ProbeCheck) -> Table {
    let line = |name: String, change: &Option<Change>| {
        let change = (*change)?;
        let [first, second] = change.values;
        let interval = change.change;
        Some(vec![
            name,
            format!("{first:.3}"),
            format!("{second:.3}"),
            format!("{:+.3} [{:+.3}, {:+.3}]", interval.value, interval.low, interval.high).replace('-', "−"),
        ])
    };
    let mut rows =
        vec![line("AUROC".into(), &check.auroc), line("calibration error".into(), &check.calibration)];
    rows.push(line("errors".into(), &check.errors));
    for own in &check.thresholds {
        let at = format!("{} at {:.3}", own.class, own.threshold);
        rows.push(line(format!("misses of {at}"), &own.misses));
        rows.push(line(format!("false alarms of {at}"), &own.false_alarms));
    }
    let readings = &check.readings;
    Table {
        caption: format!(
            "{} rows, {} units; probabilities move by {:.4} on average and {:.4} at most; {:.1} % of decisions change",
            check.rows,
            check.units,
            readings.mean_change,
            readings.largest_change,
            100.0 * readings.flips
        ),
        columns: vec![
            Column::text(""),
            Column::numbers("first"),
            Column::numbers("other"),
            Column::text("change, 95 %"),
        ],
        rows: rows.into_iter().flatten().collect(),
    }
}
