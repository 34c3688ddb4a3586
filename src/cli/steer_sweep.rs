//! `pearl steer-sweep`: a grid of steering arms, sites and strengths.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::console::Console;
use super::model::ModelOptions;
use super::output::{Outcome, print, print_exact};
use pearlpoint::artifact;
use pearlpoint::config::SteeringGrid;
use pearlpoint::experiment::steering_grid::{TRIALS, run as sweep, table};

#[derive(Args)]
#[command(after_help = "Example:
  pearl steer-sweep experiments/steering.toml --out runs/steering")]
pub struct Arguments {
    /// The sweep file (TOML), such as experiments/steering.toml
    sweep: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// Folder for the results, charts and report; a run that was stopped goes on there
    #[arg(long)]
    out: PathBuf,
    /// Print results.json instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let text = artifact::read_settings(&arguments.sweep)?;
    let file = SteeringGrid::parse(&arguments.sweep.display().to_string(), &text)?;
    let model = arguments.options.load(&file.model, console)?;
    console.keeps(&arguments.out.join(TRIALS));
    let (found, results) = sweep(&file, &text, &model, &arguments.out, &mut console.stages())?;
    match arguments.json {
        true => print_exact(serde_json::to_string_pretty(&results)?)?,
        false => print(table(&file, &found).to_text()?)?,
    }
    results.doubts.iter().for_each(|doubt| console.say(format!("doubt: {doubt}")));
    let page = arguments.out.join("report.html");
    console.say(format!("{:.0} s; the report: {}", begin.elapsed().as_secs_f64(), page.display()));
    Ok(Outcome::Done)
}
