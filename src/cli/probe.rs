//! `pearl probe`: probes from a store of activations.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::dialogues::Source;
use super::progress::Talk;
use super::{Outcome, print};
use crate::activations;
use crate::experiment::probing::{self, Question};
use crate::report::{Table, table::Column};
use crate::stats::Figure;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fit a probe at every site of a store, test it on groups held out, keep the best
    Fit(Fit),
}

#[derive(Args)]
struct Fit {
    /// A store that `pearl extract` made
    #[arg(long)]
    store: PathBuf,
    #[command(flatten)]
    source: Source,
    /// The label to read
    #[arg(long)]
    label: String,
    /// The classes in order, where the order of their names is not right
    #[arg(long, value_delimiter = ',')]
    order: Vec<String>,
    /// The label to group by
    #[arg(long)]
    group: String,
    /// Groups to test on, which nothing is fitted or chosen on
    #[arg(long, value_delimiter = ',', required = true)]
    held_out: Vec<String>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the probe
    #[arg(long)]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Talk) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Fit(arguments) => fit(arguments, talk),
    }
}

fn fit(arguments: Fit, talk: &Talk) -> anyhow::Result<Outcome> {
    let (header, manifest, activations) = activations::load(&arguments.store)?;
    let data = arguments.source.read()?;
    let activations = activations::of_dialogues(&arguments.store, &header, activations, &data)?;
    let question = Question {
        label: &arguments.label,
        order: &arguments.order,
        group: &arguments.group,
        held_out: &arguments.held_out,
        seed: arguments.seed,
    };
    let rows: Vec<usize> = (0..activations.example.len()).collect();
    let sweep = probing::sweep(&question, &activations, &rows, &data.dialogues, &header, &manifest.tokens)?;
    let (site, best) = sweep.best();
    best.probe.save(&arguments.out)?;
    let mut figures: Vec<Figure> = Vec::new();
    for (site, validated) in &sweep.sites {
        let figure = probing::figure(validated, "auroc", "test")?;
        figures.push(Figure { name: format!("{site}/auroc"), ..figure.clone() });
    }
    figures.push(Figure { name: "ngram/auroc".into(), ..sweep.ngram.clone() });
    figures.push(Figure { name: "shuffled/auroc".into(), ..sweep.shuffled.clone() });
    if arguments.json {
        print(serde_json::to_string_pretty(&figures)?)?;
    } else {
        let mut table = Table::of_figures("", &figures);
        table.columns[0] = Column::text(&format!("{} ({})", sweep.label, sweep.split));
        print(table.to_text()?)?;
    }
    talk.say(format!("the probe at {site}: {}", arguments.out.display()));
    Ok(Outcome::Done)
}
