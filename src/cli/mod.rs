//! The command line: one file a subcommand, and the only place that prints.
//! It decides nothing: what a command computes, the rooms before this one compute.

mod organism;
mod progress;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::model::Model;

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
    let talk = progress::Talk::new(arguments.quiet);
    match arguments.command {
        Command::Organism(arguments) => organism::run(arguments, &talk),
    }
}

/// Whether the error is that nobody reads our output any more.
pub fn broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// `organism`, or a checkpoint folder.
fn open_model(name: &Path) -> anyhow::Result<Model> {
    Ok(match name == Path::new("organism") {
        true => crate::organism::model()?,
        false => Model::open(name)?,
    })
}
