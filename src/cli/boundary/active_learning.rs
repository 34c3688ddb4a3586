//! `pearl boundary active-learning`: the worth of labels near the boundary, beside random ones.

use std::path::PathBuf;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::output::{Outcome, print, print_exact, save_chart};
use crate::cli::states::StoreSource;
use pearlpoint::artifact::{self, FolderLock, Header};
use pearlpoint::boundary::{ActiveLearning, Comparison, compare};
use pearlpoint::model::Site;
use pearlpoint::plots::active_learning::{self, LearningTable};
use pearlpoint::probe::{self, Examples, Logistic, Split, Targets};
use pearlpoint::report;

#[derive(Args)]
#[command(after_help = "Example:
  pearl boundary active-learning --store store --data data.jsonl --label user-type --site 3.resid_post --group topic --held-out travel,music,healthcare --rounds 3 --repeats 2 --out active-learning")]
pub struct Arguments {
    #[command(flatten)]
    states: StoreSource,
    /// The label to predict
    #[arg(long)]
    label: String,
    /// The site of the store to fit at
    #[arg(long)]
    site: Site,
    /// The label to group by
    #[arg(long)]
    group: String,
    /// Groups to test on; never queried for labels
    #[arg(long, value_delimiter = ',', required = true)]
    held_out: Vec<String>,
    /// Labels at the start, drawn at random
    #[arg(long, default_value_t = ActiveLearning::default().start)]
    start: usize,
    /// Labels queried in a round
    #[arg(long, default_value_t = ActiveLearning::default().batch)]
    batch: usize,
    /// Rounds of queries
    #[arg(long, default_value_t = ActiveLearning::default().rounds)]
    rounds: usize,
    /// Repeats, each from another random start
    #[arg(long, default_value_t = ActiveLearning::default().repeats)]
    repeats: usize,
    /// Inverse penalty C of every fit
    #[arg(long, value_name = "C", default_value_t = ActiveLearning::default().strength)]
    strength: f64,
    /// Seed of the starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the table and the chart
    #[arg(long)]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let states = arguments.states.open(console)?;
    let targets = Targets::new(&states.labels(&arguments.label)?, &states.labels(&arguments.group)?, &[])?;
    let held_out: Vec<&str> = arguments.held_out.iter().map(String::as_str).collect();
    let split = Split::hold_out(&targets, &held_out)?;
    let header = states.header().clone();
    let source = probe::Provenance {
        site: arguments.site,
        tokens: states.tokens().clone(),
        label: arguments.label.clone(),
        model: header.model.clone(),
        model_hash: header.model_hash.clone(),
        model_form: header.model_form.clone(),
        data_hash: header.data_hash.clone(),
    };
    let examples = Examples::new(source, states.at(arguments.site)?.into_owned(), targets)?;
    let options = ActiveLearning {
        start: arguments.start,
        batch: arguments.batch,
        rounds: arguments.rounds,
        repeats: arguments.repeats,
        strength: arguments.strength,
        seed: arguments.seed,
    };
    let found = compare(&Logistic::default(), &examples, &split, &options)?;
    let header = Header { kind: "gain".into(), ..header };
    artifact::write_json(&arguments.out.join("gain.json"), &header, &found)?;
    let site = arguments.site.to_string();
    let drawn = LearningTable { label: arguments.label.clone(), site, gain: found };
    save_chart(&arguments.out, "gain", &active_learning::chart(&drawn))?;
    let found = drawn.gain;
    report::draw_all(&arguments.out)?;
    if arguments.json {
        let same = found.labels_for_the_same();
        print_exact(serde_json::json!({
            "gain": found.accuracy().map(|i| [i.value, i.low, i.high]),
            "labels_nearest": same.map(|same| same.0), "labels_random": same.map(|same| same.1),
        }))?;
    } else {
        show(&found)?;
    }
    console.say(format!("the learning curves: {}", arguments.out.join("gain.svg").display()));
    Ok(Outcome::Done)
}

fn show(found: &Comparison) -> anyhow::Result<()> {
    if let Some(gain) = found.accuracy() {
        print(format!(
            "accuracy with labels nearest to the boundary, less that with random ones: {:+.4} [{:+.4}, {:+.4}], mean over {} \
             to {} labels and {} repeats ({} dialogues held out)",
            gain.value,
            gain.low,
            gain.high,
            found.labels.get(1).copied().unwrap_or(0),
            found.labels.last().copied().unwrap_or(0),
            found.settings.repeats,
            found.test
        ))?;
    }
    match found.labels_for_the_same() {
        Some((nearest, random)) => {
            print(format!("{nearest} labels near the boundary reach the accuracy of {random} random ones"))
        }
        None => print("labels near the boundary do not reach the accuracy of all random ones"),
    }
}
