//! `pearl organism`: the embedded model and its world.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::memory::pages_go_back_after;
use super::model::Choice;
use super::progress::Console;
use super::{Outcome, print};
use pearlpoint::analysis::organism_check;
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
    /// Draw contrast pairs: twins that are the same but for one thing, both with the label `pair`
    Pairs(Pairs),
    /// Hold a model against the world: how often each strategy answers, and whether answers parse
    Check(Check),
    /// Write the embedded model as a checkpoint folder, which other tools open too
    Export {
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Args)]
struct Train {
    /// Folder for the checkpoint; the state of a training that was stopped stays there too
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = Recipe::default().seed)]
    seed: u64,
    #[arg(long, default_value_t = Recipe::default().steps)]
    steps: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wording {
    /// As in training
    Train,
    /// Pairs of words that training never had
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
struct Sample {
    #[arg(long, default_value_t = 100)]
    count: usize,
    #[arg(long, value_enum, default_value = "held-out")]
    wording: Wording,
    /// With the world's own answers
    #[arg(long)]
    answers: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the dialogues (JSON Lines); stdout where none is named
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What twins differ in.
#[derive(Clone, Copy, ValueEnum)]
enum Differ {
    /// What the deed does: a benign and a malicious user
    Deed,
    /// What the user thinks of the report: a benign and a sensitive user
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
struct Pairs {
    #[arg(long, default_value_t = 60)]
    count: usize,
    /// What the twins differ in
    #[arg(long, value_enum)]
    contrast: Differ,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the dialogues (JSON Lines); stdout where none is named
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct Check {
    #[command(flatten)]
    model: Choice,
    #[arg(long, default_value_t = 6000)]
    count: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The plain mode
    #[arg(long)]
    no_think: bool,
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Train(arguments) => train(arguments, talk),
        Command::Sample(arguments) => sample(arguments, talk),
        Command::Pairs(arguments) => {
            let drawn = contrast::pairs(arguments.count, arguments.contrast.into(), arguments.seed);
            let dialogues: Vec<Dialogue> =
                drawn.into_iter().flatten().map(|(_, dialogue)| dialogue).collect();
            write(&dialogues, arguments.out, talk)
        }
        Command::Check(arguments) => run_check(arguments, talk),
        Command::Export { out } => {
            organism::export(&out)?;
            talk.say(format!("wrote {}", out.display()));
            Ok(Outcome::Done)
        }
    }
}

fn train(arguments: Train, talk: &Console) -> anyhow::Result<Outcome> {
    let recipe = Recipe { seed: arguments.seed, steps: arguments.steps, ..Recipe::default() };
    let bar = talk.bar(recipe.steps, "training");
    // Every step needs what the one before it did.
    pages_go_back_after(10_000);
    let (mut tokens, mut smooth, begin) = (0, 0.0f32, std::time::Instant::now());
    let tensors = training::train(recipe, &arguments.out.join("training.safetensors"), &mut |progress| {
        tokens += progress.tokens;
        smooth += (progress.loss - smooth) * if smooth == 0.0 { 1.0 } else { 0.02 };
        bar.set_position(progress.step as u64);
        bar.set_message(format!("loss {smooth:.3}"));
        if progress.step % 100 == 0 && bar.is_hidden() {
            let rate = tokens as f64 / begin.elapsed().as_secs_f64();
            talk.say(format!("step {}, loss {smooth:.4}, {rate:.0} tokens/s", progress.step));
        }
        talk.should_continue()
    })?;
    bar.finish();
    organism::write(&arguments.out, &tensors)?;
    talk.say(format!("wrote {} after {:.0} s", arguments.out.display(), begin.elapsed().as_secs_f64()));
    Ok(Outcome::Done)
}

fn sample(arguments: Sample, talk: &Console) -> anyhow::Result<Outcome> {
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
    write(&dialogues, arguments.out, talk)
}

/// Dialogues into a file, or to stdout where none is named.
fn write(dialogues: &[Dialogue], out: Option<PathBuf>, talk: &Console) -> anyhow::Result<Outcome> {
    match out {
        Some(path) => {
            dialogue::write_jsonl(&path, dialogues)?;
            talk.say(format!("{} dialogues in {}", dialogues.len(), path.display()));
        }
        None => {
            for dialogue in dialogues {
                print(serde_json::to_string(dialogue)?)?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn run_check(arguments: Check, talk: &Console) -> anyhow::Result<Outcome> {
    let model = arguments.model.open(talk)?;
    let bar = talk.bar(arguments.count, "answering");
    let report =
        organism_check::check(&model, arguments.count, arguments.seed, !arguments.no_think, &mut |done| {
            bar.set_position(done as u64);
            talk.should_continue()
        })?;
    bar.finish_and_clear();
    if arguments.json {
        print(serde_json::to_string_pretty(&report)?)?;
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
