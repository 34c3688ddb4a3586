//! `pearl organism`: the embedded model and its world.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::console::Console;
use super::memory::set_purge_delay;
use super::model::ModelChoice;
use super::output::{Outcome, print, print_exact};
use pearlpoint::analysis::organism_check;
use pearlpoint::artifact::FolderLock;
use pearlpoint::dialogue::{self, Dialogue, Label, Message, Role};
use pearlpoint::organism::contrast::{self, Contrast};
use pearlpoint::organism::training::{self, Recipe};
use pearlpoint::organism::{self, Split};
use pearlpoint::report::{Table, table::Column};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the organism from a seed, into a checkpoint folder
    Train(Train),
    /// Draw labelled dialogues from the organism's world
    Sample(Sample),
    /// Draw contrast pairs: two dialogues that differ in one respect and share the label `pair`
    Pairs(Pairs),
    /// Compare a model's answers with the world: rates of the strategies, share of answers that parse
    Check(Check),
    /// Write the embedded model as a checkpoint folder that other tools can open
    Export(Export),
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl organism export --out organism-checkpoint")]
struct Export {
    /// Folder for the checkpoint
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl organism train --steps 200 --out trained")]
struct Train {
    /// Folder for the checkpoint, and for the state that a stopped training resumes from
    #[arg(long)]
    out: PathBuf,
    /// Seed of the weights and the dialogues
    #[arg(long, default_value_t = Recipe::default().seed)]
    seed: u64,
    /// Optimiser steps
    #[arg(long, default_value_t = Recipe::default().steps)]
    steps: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wording {
    /// The wordings of the training
    Train,
    /// Pairs of cue words that training left out
    HeldOut,
}

impl From<Wording> for Split {
    fn from(wording: Wording) -> Split {
        match wording {
            Wording::Train => Split::Train,
            Wording::HeldOut => Split::HeldOutWording,
        }
    }
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl organism sample --count 600 --out data.jsonl")]
struct Sample {
    /// Number of dialogues
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Which wordings the dialogues use
    #[arg(long, value_enum, default_value = "held-out")]
    wording: Wording,
    /// Add the world's own answers
    #[arg(long)]
    answers: bool,
    /// Seed of the draw
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the dialogues (JSON Lines) [default: stdout]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What the two dialogues of a pair differ in.
#[derive(Clone, Copy, ValueEnum)]
enum Differ {
    /// The deed's effect: a benign and a malicious user
    Deed,
    /// The user's trust in the report: a benign and a sensitive user
    Trust,
    /// Signs of openness to advice: two sensitive users, closed and open
    Openness,
}

impl From<Differ> for Contrast {
    fn from(differ: Differ) -> Contrast {
        match differ {
            Differ::Deed => Contrast::Deed,
            Differ::Trust => Contrast::Trust,
            Differ::Openness => Contrast::Openness,
        }
    }
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl organism pairs --contrast deed --count 20 --out pairs.jsonl")]
struct Pairs {
    /// Number of pairs
    #[arg(long, default_value_t = 60)]
    count: usize,
    /// What the two dialogues of a pair differ in
    #[arg(long, value_enum)]
    contrast: Differ,
    /// Seed of the draw
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the dialogues (JSON Lines) [default: stdout]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl organism check --count 2000")]
struct Check {
    #[command(flatten)]
    model: ModelChoice,
    /// Number of dialogues to answer
    #[arg(long, default_value_t = 6000)]
    count: usize,
    /// Seed of the dialogues and the answers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Train(arguments) => train(arguments, console),
        Command::Sample(arguments) => sample(arguments, console),
        Command::Pairs(arguments) => {
            organism::check_count("--count", arguments.count)?;
            let drawn = contrast::pairs(arguments.count, arguments.contrast.into(), arguments.seed);
            let dialogues: Vec<Dialogue> =
                drawn.into_iter().flatten().map(|(_, dialogue)| dialogue).collect();
            write(&dialogues, arguments.out, console)
        }
        Command::Check(arguments) => run_check(arguments, console),
        Command::Export(Export { out }) => {
            organism::export(&out)?;
            console.say(format!("wrote {}", out.display()));
            Ok(Outcome::Done)
        }
    }
}

fn train(arguments: Train, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let recipe = Recipe { seed: arguments.seed, steps: arguments.steps, ..Recipe::default() };
    let bar = console.bar(recipe.steps, "training");
    // Every step allocates as much as the one before it.
    set_purge_delay(10_000);
    let (mut tokens, mut smooth, begin) = (0, 0.0f32, std::time::Instant::now());
    let tensors = training::train(recipe, &arguments.out.join("training.safetensors"), &mut |progress| {
        tokens += progress.tokens;
        smooth += (progress.loss - smooth) * if smooth == 0.0 { 1.0 } else { 0.02 };
        bar.bar.set_message(format!("loss {smooth:.3}"));
        if progress.step % 100 == 0 && bar.bar.is_hidden() {
            let rate = tokens as f64 / begin.elapsed().as_secs_f64();
            console.say(format!("step {}, loss {smooth:.4}, {rate:.0} tokens/s", progress.step));
        }
        bar.done(progress.step)
    })?;
    drop(bar);
    organism::write(&arguments.out, &tensors)?;
    console.say(format!("wrote {} after {:.0} s", arguments.out.display(), begin.elapsed().as_secs_f64()));
    Ok(Outcome::Done)
}

fn sample(arguments: Sample, console: &Console) -> anyhow::Result<Outcome> {
    organism::check_count("--count", arguments.count)?;
    let drawn = organism::sample(arguments.count, arguments.wording.into(), arguments.seed);
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    let dialogues: Vec<Dialogue> = drawn
        .into_iter()
        .map(|(situation, mut dialogue)| {
            if arguments.answers {
                let (strategy, text) = organism::answer(&mut rng, &situation, true);
                dialogue.messages.push(Message::new(Role::Assistant, text));
                dialogue.labels.insert("strategy".into(), Label::Text(strategy.name().into()));
            }
            dialogue
        })
        .collect();
    write(&dialogues, arguments.out, console)
}

/// Writes dialogues into a file, or to stdout.
fn write(dialogues: &[Dialogue], out: Option<PathBuf>, console: &Console) -> anyhow::Result<Outcome> {
    match out {
        Some(path) => {
            dialogue::write_jsonl(&path, dialogues)?;
            console.say(format!("{} dialogues in {}", dialogues.len(), path.display()));
        }
        None => {
            for dialogue in dialogues {
                print_exact(serde_json::to_string(dialogue)?)?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn run_check(arguments: Check, console: &Console) -> anyhow::Result<Outcome> {
    organism::check_count("--count", arguments.count)?;
    let model = arguments.model.load(console)?;
    let bar = console.bar(arguments.count, "answering");
    let thinking = arguments.model.thinking().unwrap_or(true);
    let report =
        organism_check::check(&model, arguments.count, arguments.seed, thinking, &mut |done| bar.done(done))?;
    drop(bar);
    if arguments.json {
        print_exact(serde_json::to_string_pretty(&report)?)?;
    } else {
        let columns = ["n", "world %", "model %", "difference"].map(Column::numbers);
        let row = |row: &organism_check::Row| {
            let percent = |share: f64| format!("{:.1}", 100.0 * share);
            vec![
                row.name.clone(),
                row.count.to_string(),
                percent(row.world),
                percent(row.model),
                percent(row.model - row.world),
            ]
        };
        let table = Table {
            caption: String::new(),
            columns: [Column::text("answers")].into_iter().chain(columns).collect(),
            rows: report.rows.iter().map(row).collect(),
        };
        print(table.to_text()?)?;
        print(format!("answers that parse: {:.2} %", 100.0 * report.parsed))?;
    }
    Ok(if report.holds() { Outcome::Done } else { Outcome::CheckFailed })
}
