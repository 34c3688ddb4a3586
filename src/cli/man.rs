//! `pearl man`: man pages, from the arguments themselves.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::generate_to;

use super::console::Console;
use super::output::Outcome;
use pearlpoint::artifact::FolderLock;
use pearlpoint::error::Error;

#[derive(Args)]
#[command(after_help = "Example:
  pearl man --out man")]
pub struct Arguments {
    /// Folder for the pages, such as ~/.local/share/man/man1
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: &Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let out = &arguments.out;
    let _lock = FolderLock::take(out)?;
    let command = super::Arguments::command().disable_help_subcommand(true);
    generate_to(command, out).map_err(Error::file(out))?;
    console.say(format!("`man {}` shows the first", out.join("pearl.1").display()));
    Ok(Outcome::Done)
}
