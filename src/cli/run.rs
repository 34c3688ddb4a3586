//! `pearl demo` and `pearl run`: an experiment from a file to a folder.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::model::Options;
use super::progress::Console;
use super::{Outcome, print};
use pearlpoint::error::Error;
use pearlpoint::experiment::{self, DEMO, Experiment, Progress, headline};
use pearlpoint::report::Table;
use pearlpoint::stats::Metric;

#[derive(Args)]
pub struct Demo {
    #[command(flatten)]
    options: Options,
    /// Folder of the run
    #[arg(long, default_value = "runs/demo")]
    out: PathBuf,
    /// Print results.json instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Arguments {
    /// The experiment, as in experiments/demo.toml
    experiment: PathBuf,
    #[command(flatten)]
    options: Options,
    /// A model instead of the experiment's
    #[arg(long)]
    model: Option<PathBuf>,
    /// A file of dialogues instead of the experiment's
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder of the run
    #[arg(long)]
    out: PathBuf,
    /// Run it again, although experiment, model and data are those that the folder's results were made from
    #[arg(long)]
    again: bool,
    /// Print results.json instead of a table
    #[arg(long)]
    json: bool,
}

pub fn demo(arguments: Demo, talk: &Console) -> anyhow::Result<Outcome> {
    let experiment = Experiment::parse("experiments/demo.toml", DEMO)?;
    execute((&experiment, DEMO), &arguments.options, (arguments.out, true), arguments.json, talk)
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    let text = std::fs::read_to_string(&arguments.experiment).map_err(Error::file(&arguments.experiment))?;
    let mut experiment = Experiment::parse(&arguments.experiment.display().to_string(), &text)?;
    if let Some(model) = arguments.model {
        experiment.model = model;
    }
    if let Some(data) = arguments.data {
        (experiment.data.file, experiment.data.sample) = (Some(data), None);
    }
    execute((&experiment, &text), &arguments.options, (arguments.out, arguments.again), arguments.json, talk)
}

fn execute(
    (experiment, text): (&Experiment, &str),
    options: &Options,
    (out, again): (PathBuf, bool),
    json: bool,
    talk: &Console,
) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let model = options.open(&experiment.model, talk)?;
    let bar = talk.bar(1, "");
    let mut heard = stages(talk, &bar);
    let before = if again { None } else { experiment::fresh(experiment, &model, &out)? };
    let is_fresh = before.is_some();
    let results = match before {
        Some(results) => results,
        None => experiment::run(experiment, text, &model, &out, &mut heard)?,
    };
    bar.finish_and_clear();
    match json {
        true => print(serde_json::to_string_pretty(&results)?)?,
        false => {
            let shown: Vec<Metric> =
                results.figures.iter().filter(|figure| headline(figure)).cloned().collect();
            print(Table::of_figures("", &shown).to_text()?)?;
        }
    }
    let page = out.join("report.html");
    if is_fresh {
        talk.say("nothing has changed since these results were made; --again makes them again");
    }
    talk.say(format!("{:.0} s; the report: {}", begin.elapsed().as_secs_f64(), page.display()));
    Ok(Outcome::Done)
}

/// Shows how far each stage has come, or, where nobody sees a bar, that it has begun.
pub fn stages(talk: &Console, bar: &indicatif::ProgressBar) -> impl FnMut(Progress) -> bool {
    let (begin, mut stage) = (Instant::now(), "");
    move |progress| {
        if bar.is_hidden() && progress.stage != stage {
            talk.say(format!("{:6.1} s  {}", begin.elapsed().as_secs_f64(), progress.stage));
        }
        stage = progress.stage;
        bar.set_prefix(progress.stage);
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        talk.should_continue()
    }
}
