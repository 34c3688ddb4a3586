//! `pearl boundary learn`: what labels near the boundary are worth beside random ones.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, save_chart};
use crate::cli::dialogues::Source;
use crate::cli::print;
use crate::cli::progress::Console;
use pearlpoint::activations;
use pearlpoint::analysis::dataset::label;
use pearlpoint::artifact;
use pearlpoint::boundary::{ActiveLearning, Comparison, compare};
use pearlpoint::error::Error;
use pearlpoint::model::Site;
use pearlpoint::plots::active_learning::{self, LearningTable};
use pearlpoint::probe::{self, Examples, Logistic, Split, Targets};
use pearlpoint::report;

#[derive(Args)]
pub struct Arguments {
    /// A store that `pearl extract` made
    #[arg(long)]
    store: PathBuf,
    #[command(flatten)]
    source: Source,
    /// The label to read
    #[arg(long)]
    label: String,
    /// The site of the store to read it at
    #[arg(long)]
    site: Site,
    /// The label to group by
    #[arg(long)]
    group: String,
    /// Groups to test on, of which no label is bought
    #[arg(long, value_delimiter = ',', required = true)]
    held_out: Vec<String>,
    /// Labels at the beginning, drawn at random
    #[arg(long, default_value_t = ActiveLearning::default().start)]
    start: usize,
    /// Labels bought at a time
    #[arg(long, default_value_t = ActiveLearning::default().batch)]
    batch: usize,
    /// How often labels are bought
    #[arg(long, default_value_t = ActiveLearning::default().rounds)]
    rounds: usize,
    /// Repeats from other beginnings
    #[arg(long, default_value_t = ActiveLearning::default().repeats)]
    repeats: usize,
    /// Inverse penalty of every fit
    #[arg(long, default_value_t = ActiveLearning::default().strength)]
    strength: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the table and the picture
    #[arg(long)]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    let (header, manifest, activations) = activations::load(&arguments.store)?;
    let data = arguments.source.read()?;
    let activations = activations::of_dialogues(&arguments.store, &header, activations, &data)?;
    let values = |name: &str| -> Result<Vec<String>, Error> {
        activations.example.iter().map(|&example| label(&data.dialogues[example], name)).collect()
    };
    let targets = Targets::new(&values(&arguments.label)?, &values(&arguments.group)?, &[])?;
    let held_out: Vec<&str> = arguments.held_out.iter().map(String::as_str).collect();
    let split = Split::hold_out(&targets, &held_out)?;
    let source = probe::Provenance {
        site: arguments.site,
        tokens: manifest.tokens.clone(),
        label: arguments.label.clone(),
        model: header.model.clone(),
        model_hash: header.model_hash.clone(),
        data_hash: header.data_hash.clone(),
    };
    let examples = Examples::new(source, activations.at(arguments.site)?.clone(), targets)?;
    let campaign = ActiveLearning {
        start: arguments.start,
        batch: arguments.batch,
        rounds: arguments.rounds,
        repeats: arguments.repeats,
        strength: arguments.strength,
        seed: arguments.seed,
    };
    let found = compare(&Logistic::default(), &examples, &split, &campaign)?;
    artifact::write_json(
        &arguments.out.join("gain.json"),
        &artifact::Header { kind: "gain".into(), ..header },
        &found,
    )?;
    let site = arguments.site.to_string();
    let drawn = LearningTable { label: arguments.label.clone(), site, gain: found };
    save_chart(&arguments.out, "gain", &active_learning::chart(&drawn))?;
    let found = drawn.gain;
    report::draw_all(&arguments.out)?;
    let accuracy = found.accuracy();
    let same = found.labels_for_the_same();
    if arguments.json {
        let value = serde_json::json!({
            "gain": accuracy.map(|i| [i.value, i.low, i.high]),
            "labels_nearest": same.map(|same| same.0), "labels_random": same.map(|same| same.1),
        });
        print(value)?;
    } else {
        show(&found)?;
    }
    talk.say(format!("the curves: {}", arguments.out.join("gain.svg").display()));
    Ok(Outcome::Done)
}

fn show(found: &Comparison) -> anyhow::Result<()> {
    if let Some(better) = found.accuracy() {
        print(format!(
            "accuracy of labels nearest to the boundary less that of random ones: {:+.4} [{:+.4}, {:+.4}], mean over {} to \
             {} labels and {} repeats ({} dialogues held out)",
            better.value,
            better.low,
            better.high,
            found.labels.get(1).copied().unwrap_or(0),
            found.labels.last().copied().unwrap_or(0),
            found.settings.repeats,
            found.test
        ))?;
    }
    match found.labels_for_the_same() {
        Some((near, random)) => {
            print(format!("what {random} random labels reach, {near} near the boundary reach"))
        }
        None => print("what all random labels reach, those near the boundary do not"),
    }
}
