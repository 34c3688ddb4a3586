//! `pearl probe`: probes from a store of activations or from a concept's folder, and what they read.

mod fit;
mod held;
mod read;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Outcome;
use super::progress::Console;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fit a probe at every site, test it on groups held out beside its controls, keep the best: of a concept's folder
    /// (probes/NAME with its probe.toml), or of a store
    Fit(Box<fit::Fit>),
    /// What a probe says of a store's rows, and how right it is where they are labelled
    Score(read::Score),
    /// Several probes on the same rows, and whether they differ
    Compare(read::Compare),
    /// The cosines between the directions of probes
    Cosines(Cosines),
}

#[derive(Args)]
struct Cosines {
    /// Probe files, of one model and width
    #[arg(required = true)]
    probes: Vec<PathBuf>,
    /// Folder for a heat map of them
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Fit(arguments) => fit::run(*arguments, talk),
        Command::Score(arguments) => read::score(arguments, talk),
        Command::Compare(arguments) => read::compare(arguments, talk),
        Command::Cosines(arguments) => {
            read::cosines(&arguments.probes, arguments.out.as_deref(), arguments.json)
        }
    }
}
