//! `pearl boundary`: where a probe's boundary runs and what may be promised of it; where the model's own runs; what it
//! reads token by token and round by round; and what to label next.

mod cross;
mod learn;
mod map;
mod watch;

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Outcome;
use super::progress::Console;
use pearlpoint::artifact;
use pearlpoint::report::Chart;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    map: map::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Search the way between the states of twins: where the probe flips, and where the model's answer does
    Cross(cross::Arguments),
    /// Read a class at every token of a dialogue, block by block
    Tokens(watch::Tokens),
    /// Follow dialogues over the map, round by round
    Drift(watch::Drift),
    /// Measure what labels near the boundary are worth beside random ones
    Learn(learn::Arguments),
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Some(Command::Cross(arguments)) => cross::run(arguments, talk),
        Some(Command::Tokens(arguments)) => watch::tokens(arguments, talk),
        Some(Command::Drift(arguments)) => watch::drift(arguments, talk),
        Some(Command::Learn(arguments)) => learn::run(arguments, talk),
        None => map::run(arguments.map, talk),
    }
}

/// Saves a chart's table as NAME.chart.json.
fn save_chart(folder: &Path, name: &str, chart: &Chart) -> anyhow::Result<()> {
    save(&folder.join(format!("{name}.chart.json")), chart)
}

/// Saves a table that has no header of its own.
fn save(path: &Path, table: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_vec(table)?;
    artifact::write_atomic(path, |file| file.write_all(&text))?;
    Ok(())
}
