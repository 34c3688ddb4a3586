//! `pearl constructive`: fits a policy that reads the user, plays the game and steers the answer.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::console::Console;
use super::dialogues::label_values;
use super::model::{ModelChoice, ModelOptions};
use super::output::{Outcome, print, print_exact};
use super::score_table::print_table;
use pearlpoint::Error;
use pearlpoint::analysis::game_estimate::EstimateOptions;
use pearlpoint::artifact;
use pearlpoint::config::{ConstructiveFile, PromptContrast, StrategySpec};
use pearlpoint::constructive::{DoseOptions, FitOptions, evaluate, fit};
use pearlpoint::dialogue::{self, Dialogues, ReadOptions};
use pearlpoint::game::Game;
use pearlpoint::judge;
use pearlpoint::model::Model;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment: fit a policy, and score it on users that nothing was fitted on, beside the model alone and other arms
    Evaluate(Evaluate),
    /// Fit a policy into a folder: belief and risk probes, game, directions with their doses, risk faces, and a card
    Fit(Box<Fit>),
}

#[derive(Args)]
#[command(after_help = "Examples:
  pearl constructive fit --data data.jsonl --out policy
  pearl generate --data data.jsonl --constructive policy")]
struct Fit {
    #[command(flatten)]
    model: ModelChoice,
    /// Labelled dialogues without answers
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Folder for the policy
    #[arg(long)]
    out: PathBuf,
    /// The judge of the model's own answers: organism, rules: LABEL=VALUE, rules, refusals or words
    #[arg(long, default_value = "organism")]
    judge: String,
    /// The label of the user's type
    #[arg(long)]
    label: Option<String>,
    /// The type that attacks
    #[arg(long)]
    attack: Option<String>,
    /// The label to group by
    #[arg(long)]
    group: Option<String>,
    /// A label and value that nothing is fitted on; may be repeated [default: the organism's held-out topics]
    #[arg(long = "held-out", value_name = "NAME=VALUE")]
    held_out: Vec<String>,
    /// A value of the group label that doses and thresholds come from; may be repeated
    #[arg(long = "validation", value_name = "VALUE")]
    validation: Vec<String>,
    /// Sites that the user's type is read at
    #[arg(long)]
    read_sites: Option<String>,
    /// Sites that are steered
    #[arg(long)]
    sites: Option<String>,
    /// Tokens that are steered, such as `generated` [default: assistant.start, the first of the answer]
    #[arg(long)]
    tokens: Option<String>,
    /// A strategy that is steered, as ACTION=CLASS:FROM:TO: its direction leads, among users of the class, from answers of one
    /// outcome to answers of another; may be repeated
    #[arg(long = "strategy", value_name = "ACTION=CLASS:FROM:TO")]
    strategies: Vec<String>,
    /// The prompts that the direction of a strategy is found on, instead of the model's own answers: it leads from prompts of one value of
    /// the label to those of the other; may be repeated
    #[arg(long = "contrast", value_name = "ACTION=LABEL:FROM:TO")]
    contrasts: Vec<String>,
    /// The game (TOML); measured with simulated users of the organism's world by default
    #[arg(long, value_name = "FILE")]
    game: Option<PathBuf>,
    /// Simulated users of each type, of a measured game
    #[arg(long, conflicts_with = "game")]
    users: Option<usize>,
    /// Greatest strength tried, in residual norms
    #[arg(long)]
    max_strength: Option<f64>,
    /// Answers that a dose rests on
    #[arg(long)]
    dose_answers: Option<usize>,
    /// Tokens of an answer, at most
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl constructive evaluate experiments/constructive.toml --out runs/constructive")]
struct Evaluate {
    /// The experiment file (TOML), such as experiments/constructive.toml
    experiment: PathBuf,
    #[command(flatten)]
    options: ModelOptions,
    /// Folder for the policy, answers and scores
    #[arg(long)]
    out: PathBuf,
    /// Print scores.json instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Evaluate(arguments) => evaluate_file(arguments, console),
        Command::Fit(arguments) => fit_policy(*arguments, console),
    }
}

fn evaluate_file(arguments: Evaluate, console: &Console) -> anyhow::Result<Outcome> {
    let text = artifact::read_settings(&arguments.experiment)?;
    let file = ConstructiveFile::parse(&arguments.experiment.display().to_string(), &text)?;
    let model = arguments.options.load(&file.model, console)?;
    let table = evaluate(&file, &text, &model, &arguments.out, &mut console.stages())?;
    match arguments.json {
        true => print_exact(artifact::read_text(&arguments.out.join("scores.json"))?.trim_end())?,
        false => print_table(&table)?,
    }
    console.say(format!("policy, answers and scores in {}", arguments.out.display()));
    Ok(Outcome::Done)
}

fn fit_policy(arguments: Fit, console: &Console) -> anyhow::Result<Outcome> {
    let default = FitOptions::default();
    let or = |given: Vec<String>, default: Vec<String>| if given.is_empty() { default } else { given };
    let dose = DoseOptions {
        max_strength: arguments.max_strength.unwrap_or(default.dose.max_strength),
        answers: arguments.dose_answers.unwrap_or(default.dose.answers),
        ..default.dose
    };
    if !dose.max_strength.is_finite() || dose.max_strength <= 0.0 || !(3..=100_000).contains(&dose.answers) {
        let found = format!("strength {} and {} answers", dose.max_strength, dose.answers);
        return Err(Error::input("dose", found, "a finite strength above 0, and 3 to 100,000 answers").into());
    }
    let specs: Vec<StrategySpec> =
        arguments.strategies.iter().map(|text| StrategySpec::parse(text)).collect::<Result<_, _>>()?;
    let mut strategies = if specs.is_empty() { default.strategies } else { specs };
    for text in &arguments.contrasts {
        let (action, contrast) = PromptContrast::parse(text)?;
        let known: Vec<String> = strategies.iter().map(|spec| spec.action.clone()).collect();
        let spec = strategies.iter_mut().find(|spec| spec.action == action).ok_or_else(|| {
            Error::input("--contrast", format!("no strategy {action:?}"), known.join(" or "))
        })?;
        spec.contrast = Some(contrast);
    }
    let options = FitOptions {
        label: arguments.label.unwrap_or(default.label),
        attack: arguments.attack.unwrap_or(default.attack),
        group: arguments.group.unwrap_or(default.group),
        held_out: match arguments.held_out.as_slice() {
            [] => default.held_out,
            given => label_values("--held-out", given)?,
        },
        validation: or(arguments.validation, default.validation),
        read_sites: arguments.read_sites.unwrap_or(default.read_sites),
        sites: arguments.sites.unwrap_or(default.sites),
        tokens: arguments.tokens.unwrap_or(default.tokens),
        strategies,
        game: arguments.game.as_deref().map(Game::load).transpose()?,
        estimate: EstimateOptions {
            users: arguments.users.unwrap_or(default.estimate.users),
            ..default.estimate
        },
        dose,
        thinking: arguments.model.thinking(),
        max_tokens: arguments.max_tokens.unwrap_or(default.max_tokens),
        seed: arguments.seed,
        ..default
    };
    let judge = judge::of_file(Some(&arguments.judge), &judge::Options::default(), "")?;
    let data: Dialogues = dialogue::read(&arguments.data, &ReadOptions::default())?;
    let model: Model = arguments.model.load(console)?;
    let bar = console.bar(data.dialogues.len(), "fitting the policy");
    let policy = fit(&model, &data, judge.as_ref(), &options, &mut |progress| bar.done(progress.done))?;
    policy.save(&arguments.out)?;
    print(artifact::read_text(&arguments.out.join("card.md"))?.trim_end())?;
    console.say(format!("policy in {}", arguments.out.display()));
    Ok(Outcome::Done)
}
