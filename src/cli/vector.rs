//! `pearl vector`: steering vectors from a store of activations.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ndarray::Axis;

use super::dialogues::Source;
use super::progress::Talk;
use super::{Outcome, print};
use crate::activations;
use crate::artifact::Header;
use crate::error::Error;
use crate::model::Site;
use crate::steer::Vector;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Difference of means between two values of a label
    Build(Box<Build>),
    /// What a vector file holds
    Info { file: PathBuf },
}

#[derive(Args)]
struct Build {
    /// A store that `pearl extract` made
    #[arg(long)]
    store: PathBuf,
    #[command(flatten)]
    source: Source,
    /// The label to compare
    #[arg(long)]
    label: String,
    /// The value to lead away from
    #[arg(long)]
    from: String,
    /// The value to lead to
    #[arg(long)]
    to: String,
    /// Sites of the store's; all of them where none are named
    #[arg(long)]
    sites: Option<String>,
    /// File for the vector
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: Arguments, talk: &Talk) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Build(arguments) => build(*arguments, talk),
        Command::Info { file } => info(file),
    }
}

fn build(arguments: Build, talk: &Talk) -> anyhow::Result<Outcome> {
    let (header, manifest, activations) = activations::load(&arguments.store)?;
    let data = arguments.source.read()?;
    let activations = activations::of_dialogues(&arguments.store, &header, activations, &data)?;
    let sites = match &arguments.sites {
        None => manifest.sites.clone(),
        Some(sites) => Site::parse_set(
            sites,
            manifest.sites.iter().filter_map(|site| site.block()).max().map_or(0, |last| last + 1),
        )?,
    };
    let rows = |value: &str| -> Result<Vec<usize>, Error> {
        let such = |&row: &usize| {
            data.dialogues[activations.example[row]].label(&arguments.label).as_deref() == Some(value)
        };
        let rows: Vec<usize> = (0..activations.example.len()).filter(such).collect();
        match rows.is_empty() {
            false => Ok(rows),
            true => Err(Error::input(
                data.path.display(),
                format!("no dialogue with {} = {value}", arguments.label),
                "at least one",
            )),
        }
    };
    let (toward, away) = (rows(&arguments.to)?, rows(&arguments.from)?);
    let mut sides = Vec::new();
    for site in sites {
        let values = activations.at(site)?;
        sides.push((site, values.select(Axis(0), &toward), values.select(Axis(0), &away)));
    }
    let vector = Vector::difference_of_means(&sides)?;
    vector.save(&arguments.out, Header { kind: "vector".into(), ..header })?;
    talk.say(format!("{} against {} dialogues: {}", toward.len(), away.len(), arguments.out.display()));
    Ok(Outcome::Done)
}

fn info(file: PathBuf) -> anyhow::Result<Outcome> {
    let (header, vector) = Vector::load(&file)?;
    print(format!("{}, from {}", vector.method, header.model.as_deref().unwrap_or("an unnamed model")))?;
    for (site, direction) in &vector.directions {
        let norm = direction.values.dot(&direction.values).sqrt();
        let share = norm / direction.residual_norm;
        print(format!("{site:<16} width {}  norm {norm:.4} = {share:.3}n", direction.values.len()))?;
    }
    Ok(Outcome::Done)
}
