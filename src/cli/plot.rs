//! `pearl plot`: every chart and token strip of a folder, drawn again from its table.

use std::path::PathBuf;

use clap::Args;

use super::progress::Console;
use super::{Outcome, print};
use pearlpoint::report;

#[derive(Args)]
pub struct Arguments {
    /// A folder with NAME.chart.json (and NAME.strip.json) files, such as a run's
    folder: PathBuf,
}

pub fn run(arguments: Arguments, _: &Console) -> anyhow::Result<Outcome> {
    for drawn in report::draw_all(&arguments.folder)? {
        print(drawn.display())?;
    }
    Ok(Outcome::Done)
}
