//! `pearl boundary`: a probe's decision boundary, the model's own, readings token by token and round by round, and what to
//! label next.

mod active_learning;
mod interpolate;
mod map;
mod token_map;
mod trajectory;

use clap::{Args, Subcommand};

use crate::cli::console::Console;
use crate::cli::output::Outcome;

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
