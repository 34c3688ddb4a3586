//! The command line: one file a subcommand, and the only place that prints.
//! It decides nothing: what a command computes, the rooms before this one compute.

mod boundary;
mod dialogues;
mod extract;
mod generate;
mod inspect;
mod memory;
mod model;
mod organism;
mod plot;
mod probe;
mod progress;
mod run;
mod store;
mod sweep;
mod tokens;
mod vector;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use progress::Console;

/// Read a language model's hidden states, map its risk boundary, steer its reasoning.
#[derive(Parser)]
#[command(name = "pearl", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// No progress, no remarks: only results and errors
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Read, decide, steer on the embedded model: the whole job, with a report
    Demo(run::Demo),
    /// Run an experiment file
    Run(run::Arguments),
    /// Read activations of dialogues into a store
    Extract(extract::Arguments),
    /// Put stores of activations together, or look them over
    Store(store::Arguments),
    /// Show which tokens a selector picks
    Tokens(tokens::Arguments),
    /// Fit probes on a store
    Probe(probe::Arguments),
    /// Draw the map on which a probe decides
    Boundary(Box<boundary::Arguments>),
    /// Build steering vectors
    Vector(vector::Arguments),
    /// Try ways to steer at several sites and strengths, and pick
    Sweep(sweep::Arguments),
    /// Answer prompts, steered or not
    Generate(generate::Arguments),
    /// Draw every chart of a folder again
    Plot(plot::Arguments),
    /// Say what a model is
    Inspect(inspect::Arguments),
    /// The embedded model: train it, sample its world, hold it against its world, write it out
    Organism(organism::Arguments),
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// A check that was asked for failed.
    CheckFailed,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::CheckFailed => ExitCode::from(1),
        }
    }
}

/// Runs a command.
pub fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let talk = Console::new(arguments.quiet);
    match arguments.command {
        Command::Demo(arguments) => run::demo(arguments, &talk),
        Command::Run(arguments) => run::run(arguments, &talk),
        Command::Extract(arguments) => extract::run(arguments, &talk),
        Command::Store(arguments) => store::run(arguments, &talk),
        Command::Tokens(arguments) => tokens::run(arguments, &talk),
        Command::Probe(arguments) => probe::run(arguments, &talk),
        Command::Boundary(arguments) => boundary::run(*arguments, &talk),
        Command::Vector(arguments) => vector::run(arguments, &talk),
        Command::Sweep(arguments) => sweep::run(arguments, &talk),
        Command::Generate(arguments) => generate::run(arguments, &talk),
        Command::Plot(arguments) => plot::run(arguments, &talk),
        Command::Inspect(arguments) => inspect::run(arguments, &talk),
        Command::Organism(arguments) => organism::run(arguments, &talk),
    }
}

/// What clap made of arguments that are none: help as it is, wrong use as one line.
pub fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        // Nobody may be reading; then there is nobody to tell.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    let text = error.to_string();
    let mut parts = text.split("\n\n");
    let first = parts.next().unwrap_or_default().trim_start_matches("error: ");
    let tip = parts.find(|part| part.trim_start().starts_with("tip:")).unwrap_or_default();
    let line = format!("{first} {tip}").split_whitespace().collect::<Vec<_>>().join(" ");
    eprintln!("pearl: {line}");
    ExitCode::from(2)
}

/// Whether the error is that nobody reads our output any more.
pub fn broken_pipe(error: &anyhow::Error) -> bool {
    let mut io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Data on stdout. `println!` would panic on a pipe that is closed.
fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}
