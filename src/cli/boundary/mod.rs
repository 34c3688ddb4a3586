//! `pearl boundary`: a probe's decision boundary, the model's own, readings token by token and round by round, and what to
//! label next.

mod active_learning;
mod interpolate;
mod map;
mod token_map;
mod trajectory;

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::console::Console;
use super::{Outcome, print};
use pearlpoint::artifact::{self, Header};
use pearlpoint::model::Model;
use pearlpoint::report::{self, Chart};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Map a probe's boundary over a store: risk map, margins, calibration, thresholds with a guarantee
    Map(map::Arguments),
    /// Interpolate between the states of contrast pairs: where the probe flips, and where the model's answer does
    #[command(alias = "cross")]
    Interpolate(interpolate::Arguments),
    /// Read a class at every token of one dialogue, block by block
    #[command(alias = "tokens")]
    TokenMap(token_map::Arguments),
    /// Follow dialogues over the risk map, round by round
    #[command(alias = "drift")]
    Trajectory(trajectory::Arguments),
    /// Compare labels near the boundary with random ones: accuracy by number of labels
    #[command(alias = "learn")]
    ActiveLearning(active_learning::Arguments),
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Map(arguments) => map::run(arguments, console),
        Command::Interpolate(arguments) => interpolate::run(arguments, console),
        Command::TokenMap(arguments) => token_map::run(arguments, console),
        Command::Trajectory(arguments) => trajectory::run(arguments, console),
        Command::ActiveLearning(arguments) => active_learning::run(arguments, console),
    }
}

/// Provenance of what a model gave.
fn header(kind: &str, model: &Model) -> Header {
    let (name, hash) = (Some(model.name.clone()), Some(model.hash.clone()));
    Header { model: name, model_hash: hash, ..Header::new(kind, 1) }
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

/// Draws a folder's charts and prints their names.
fn draw_and_print(folder: &Path) -> anyhow::Result<Outcome> {
    report::draw_all(folder)?.iter().try_for_each(|drawn| print(drawn.display()))?;
    Ok(Outcome::Done)
}
