//! `pearl probe`: probes fitted on a store of activations or by a concept's folder, scored and compared.

mod check;
mod compare;
mod cosines;
mod fit;
mod grid;
mod scatter;
mod score;

use clap::{Args, Subcommand};

use super::console::Console;
use crate::cli::output::Outcome;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fit a probe at every site, score it on held-out groups beside its controls, and save the best
    Fit(Box<fit::Fit>),
    /// Apply a probe to a store's rows, and score it where they are labelled
    Score(score::Score),
    /// Compare probes of one label on the same rows, with intervals for the differences
    Compare(compare::Compare),
    /// Check a probe on a second store: another precision, engine or fine-tune of its model
    Check(Box<check::Check>),
    /// Cosines between the directions of probes
    Cosines(cosines::Cosines),
    /// Scatter of a store's rows on their first two principal components, coloured by a label
    Scatter(scatter::Scatter),
    /// AUROC by site and selector, from a store a selector
    Grid(Box<grid::Grid>),
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Fit(arguments) => fit::run(*arguments, console),
        Command::Score(arguments) => score::run(arguments, console),
        Command::Compare(arguments) => compare::run(arguments, console),
        Command::Check(arguments) => check::run(*arguments, console),
        Command::Cosines(arguments) => cosines::run(arguments),
        Command::Scatter(arguments) => scatter::run(&arguments, console),
        Command::Grid(arguments) => grid::run(*arguments, console),
    }
}
