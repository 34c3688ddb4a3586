//! `pearl sweep`: ways to steer, sites and strengths, tried side by side.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::model::Options;
use super::progress::Console;
use super::run::stages;
use super::{Outcome, print};
use pearlpoint::config::SteeringGrid;
use pearlpoint::error::Error;
use pearlpoint::experiment::steering_grid::{run as sweep, table};

#[derive(Args)]
pub struct Arguments {
    /// The sweep, as in experiments/steering.toml
    sweep: PathBuf,
    #[command(flatten)]
    options: Options,
    /// Folder of the run
    #[arg(long)]
    out: PathBuf,
    /// Print results.json instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let text = std::fs::read_to_string(&arguments.sweep).map_err(Error::file(&arguments.sweep))?;
    let file = SteeringGrid::parse(&arguments.sweep.display().to_string(), &text)?;
    let model = arguments.options.open(&file.model, talk)?;
    let bar = talk.bar(1, "");
    let (found, results) = sweep(&file, &text, &model, &arguments.out, &mut stages(talk, &bar))?;
    bar.finish_and_clear();
    match arguments.json {
        true => print(serde_json::to_string_pretty(&results)?)?,
        false => print(table(&file, &found).to_text()?)?,
    }
    let page = arguments.out.join("report.html");
    talk.say(format!("{:.0} s; the report: {}", begin.elapsed().as_secs_f64(), page.display()));
    Ok(Outcome::Done)
}
