//! `pearl merge`: JSON Lines of the parts of a run, joined into those of the whole.

use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use super::output::{Outcome, write_stdout};
use pearlpoint::artifact;

#[derive(Args)]
#[command(after_help = "Examples:
  pearl merge answers-1.jsonl answers-2.jsonl --out answers.jsonl
  pearl merge verdicts-2.jsonl verdicts-1.jsonl")]
pub struct Arguments {
    /// Files that `pearl generate --json --shard I/N` or `pearl judge --json --shard I/N` wrote, in any order
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// File for the lines of the whole run [default: stdout]
    #[arg(long)]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let (text, rows) = artifact::join_lines(&arguments.parts)?;
    match &arguments.out {
        Some(out) => artifact::write_text(out, &text)?,
        None => write_stdout(format_args!("{text}"))?,
    }
    console.say(format!("{rows} rows of {} files", arguments.parts.len()));
    Ok(Outcome::Done)
}
