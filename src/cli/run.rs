//! `pearl demo` and `pearl run`: an experiment from a file into a folder.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::console::Console;
use super::model::ModelOptions;
use super::output::{Outcome, print, print_exact};
use pearlpoint::artifact;
use pearlpoint::experiment::{self, DEMO, Experiment, headline};
use pearlpoint::report::Table;
use pearlpoint::stats::Metric;

#[derive(Args)]
#[command(after_help = "Example:
  pearl demo --out runs/demo")]
pub struct Demo {
    #[command(flatten)]
    options: ModelOptions,
    /// Folder for the results, charts and report
    #[arg(long, default_value = "runs/demo")]
    out: PathBuf,
    /// Print results.json instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl run experiments/demo.toml --out runs/demo")]
pub struct Arguments {
    /// The experiment file (TOML), such as experiments/demo.toml
    experiment: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// Replaces the experiment's model
    #[arg(long)]
    model: Option<PathBuf>,
    /// Replaces the experiment's dialogues
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Folder for the results, charts and report
    #[arg(long)]
    out: PathBuf,
    /// Run again even if experiment, model and data are those of the folder's results
    #[arg(long, alias = "again")]
    force: bool,
    /// Print results.json instead of a table
    #[arg(long)]
    json: bool,
}

pub fn demo(arguments: Demo, console: &Console) -> anyhow::Result<Outcome> {
    let experiment = Experiment::parse("experiments/demo.toml", DEMO)?;
    execute((&experiment, DEMO), &arguments.options, (arguments.out, true), arguments.json, console)
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let text = artifact::read_settings(&arguments.experiment)?;
    let mut experiment = Experiment::parse(&arguments.experiment.display().to_string(), &text)?;
    if let Some(model) = arguments.model {
        experiment.model = model;
    }
    if let Some(data) = arguments.data {
        (experiment.data.file, experiment.data.sample) = (Some(data), None);
    }
    let (options, out) = (&arguments.options, (arguments.out, arguments.force));
    execute((&experiment, &text), options, out, arguments.json, console)
}

fn execute(
    (experiment, text): (&Experiment, &str),
    options: &ModelOptions,
    (out, force): (PathBuf, bool),
    json: bool,
    console: &Console,
) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let model = options.load(&experiment.model, console)?;
    console.keeps(&out.join("activations"));
    let kept = if force { None } else { experiment::fresh(experiment, &model, &out)? };
    let is_kept = kept.is_some();
    let results = match kept {
        Some(results) => results,
        None => experiment::run(experiment, text, &model, &out, &mut console.stages())?,
    };
    if json {
        print_exact(serde_json::to_string_pretty(&results)?)?;
    } else {
        let shown: Vec<Metric> = results.figures.iter().filter(|metric| headline(metric)).cloned().collect();
        print(Table::of_figures("", &shown).to_text()?)?;
    }
    results.doubts.iter().for_each(|doubt| console.say(format!("doubt: {doubt}")));
    if is_kept {
        console.say("nothing has changed since these results were made; --force runs it again");
    }
    let page = out.join("report.html");
    console.say(format!("{:.0} s; the report: {}", begin.elapsed().as_secs_f64(), page.display()));
    Ok(Outcome::Done)
}
