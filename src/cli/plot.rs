//! `pearl plot`: the charts and token strips of a folder, drawn again from their tables.

use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use super::output::{Outcome, print_line};
use pearlpoint::report;

#[derive(Args)]
#[command(after_help = "Example:
  pearl plot boundary")]
pub struct Arguments {
    /// A folder with NAME.chart.json or NAME.strip.json files, such as a run's
    folder: PathBuf,
}

pub fn run(arguments: Arguments, _: &Console) -> anyhow::Result<Outcome> {
    report::draw_all(&arguments.folder)?.iter().try_for_each(|drawn| print_line(drawn.display()))?;
    Ok(Outcome::Done)
}
