//! `pearl game`: the game between the model and its user, measured, solved for a belief and explained.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::console::Console;
use super::dialogues::label_values;
use super::model::ModelChoice;
use super::output::{Outcome, print, print_exact};
use pearlpoint::Error;
use pearlpoint::analysis::game_estimate::{self, EstimateOptions};
use pearlpoint::game::{Equilibrium, Game, Weights, belief_map, changes, leader_sensitivity, solve};
use pearlpoint::stats::Interval;
use pearlpoint::{artifact, plots, report};

/// Steps of the belief simplex along an edge: 861 beliefs, as many as the picture shows apart.
const SIMPLEX_STEPS: usize = 40;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The leader's best mixture of actions for a belief, and the users' reactions
    Solve(Solve),
    /// The same with what each payoff is worth, and the beliefs at which the best action changes
    Explain(Explain),
    /// Measure the payoffs on the embedded model with simulated users of its world, as a file for `game solve`
    Estimate(Estimate),
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl game explain experiments/game.toml --plot simplex")]
struct Explain {
    #[command(flatten)]
    solve: Solve,
    /// Draw the beliefs over three types, coloured by the best action, to NAME.svg and NAME.png, beside NAME.chart.json
    #[arg(long, value_name = "NAME")]
    plot: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl game estimate --users 60 --out game.toml")]
struct Estimate {
    #[command(flatten)]
    model: ModelChoice,
    /// Simulated users of each type
    #[arg(long, default_value_t = EstimateOptions::default().users)]
    users: usize,
    /// A label and value whose users are left out; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    exclude: Vec<String>,
    /// Weights of retention, risk and cost in the model's payoff
    #[arg(long, value_name = "ALPHA,BETA,GAMMA", value_delimiter = ',', default_values_t = [1.0, 2.0, 0.2])]
    weights: Vec<f64>,
    /// Seed of users and answers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the game (TOML)
    #[arg(long)]
    out: PathBuf,
    /// Print the cells with their intervals as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:
  pearl game solve experiments/game.toml --belief benign=0.5,sensitive=0.3,malicious=0.2
  pearl game explain experiments/game.toml")]
struct Solve {
    /// The payoffs (docs/formats.md)
    game: PathBuf,
    /// The probability of each type, NAME=P,…; by default the file's priors
    #[arg(long)]
    belief: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let (arguments, is_explained, plot) = match arguments.command {
        Command::Solve(arguments) => (arguments, false, None),
        Command::Explain(arguments) => (arguments.solve, true, arguments.plot),
        Command::Estimate(arguments) => return estimate(arguments, console),
    };
    let game = Game::load(&arguments.game)?;
    if let Some(name) = plot {
        let chart = plots::belief_simplex::chart(&belief_map(&game, SIMPLEX_STEPS)?);
        let file = |ending: &str| PathBuf::from(format!("{}.{ending}", name.display()));
        artifact::write_text(&file("chart.json"), &serde_json::to_string(&chart)?)?;
        report::draw(&chart, &file("svg"), &file("png"))?;
    }
    let belief = match &arguments.belief {
        Some(text) => parse_belief(text, &game)?,
        None => game.priors(),
    };
    let equilibrium = solve(&game, &belief)?;
    let changes = if is_explained { changes(&game)? } else { Vec::new() };
    if arguments.json {
        let reactions: Vec<&String> =
            equilibrium.reactions.iter().map(|&reaction| &game.reactions[reaction]).collect();
        let mut body = json!({
            "belief": belief, "actions": game.actions, "mixture": equilibrium.mixture, "reactions": reactions,
            "value": equilibrium.value, "value_by_type": equilibrium.by_type,
        });
        if is_explained {
            body["sensitivity"] = json!(leader_sensitivity(&belief, &equilibrium));
            body["changes"] = json!(changes);
        }
        print_exact(body)?;
        return Ok(Outcome::Done);
    }
    print_equilibrium(&game, &belief, &equilibrium)?;
    if !is_explained {
        console.say("`pearl game explain` shows where the best action changes");
        return Ok(Outcome::Done);
    }
    print("\nusers' payoffs under this mixture, by reaction (* is taken)")?;
    for (user, (kind, &taken)) in game.types.iter().zip(&equilibrium.reactions).enumerate() {
        let payoff = |reaction| -> f64 {
            equilibrium
                .mixture
                .iter()
                .enumerate()
                .map(|(action, p)| p * game.follower(user, action, reaction))
                .sum()
        };
        let cells: Vec<String> = (0..game.reactions.len())
            .map(|reaction| {
                format!(
                    "{} {:.3}{}",
                    game.reactions[reaction],
                    payoff(reaction),
                    if reaction == taken { "*" } else { "" }
                )
            })
            .collect();
        print(format_args!("  {:<12} {}", kind.name, cells.join("  ")))?;
    }
    print("\nchange of the value for one more of the leader's payoff, by type and action")?;
    for (kind, row) in game.types.iter().zip(leader_sensitivity(&belief, &equilibrium)) {
        let cells: Vec<String> =
            game.actions.iter().zip(row).map(|(action, share)| format!("{action} {share:.3}")).collect();
        print(format_args!("  {:<12} {}", kind.name, cells.join("  ")))?;
    }
    print("\nwhere the likeliest action changes as the belief moves from one type to another")?;
    if changes.is_empty() {
        print("  nowhere")?;
    }
    for change in &changes {
        print(format_args!(
            "  {} → {}: {} until p({}) = {:.3}, then {}",
            game.types[change.from].name,
            game.types[change.to].name,
            game.actions[change.before],
            game.types[change.to].name,
            change.at,
            game.actions[change.after],
        ))?;
    }
    Ok(Outcome::Done)
}

fn estimate(arguments: Estimate, console: &Console) -> anyhow::Result<Outcome> {
    let &[alpha, beta, gamma] = arguments.weights.as_slice() else {
        let found = format!("{} numbers", arguments.weights.len());
        return Err(Error::input("--weights", found, "three: ALPHA,BETA,GAMMA").into());
    };
    let weights = Weights { alpha, beta, gamma };
    if [alpha, beta, gamma].iter().any(|weight| !weight.is_finite() || *weight < 0.0) {
        return Err(Error::input("--weights", format!("{weights:?}"), "finite numbers, 0 or more").into());
    }
    let options = EstimateOptions {
        users: arguments.users,
        exclude: label_values("--exclude", &arguments.exclude)?,
        weights,
        seed: arguments.seed,
    };
    let model = arguments.model.load(console)?;
    let bar = console.bar(arguments.users * 27, "answering simulated users");
    let found = game_estimate::estimate(&model, &options, &mut |progress| bar.done(progress.done))?;
    let broken: usize = found.cells.iter().map(|cell| cell.broken).sum();
    let comment = format!(
        "Payoffs of the game, measured on {} by `pearl game estimate`: {} simulated users of each type, seed {}.\n\
         Of {} second answers {broken} are broken. Definitions: docs/formats-constructive.md.",
        pearlpoint::printable::one_line(&model.name, 200),
        options.users,
        options.seed,
        options.users * 27,
    );
    artifact::write_text(&arguments.out, &found.game.to_toml(&comment)?)?;
    if arguments.json {
        let mut body = serde_json::to_value(&found)?;
        (body["kind"], body["version"]) = (json!("game-estimate"), json!(1));
        print_exact(body)?;
        return Ok(Outcome::Done);
    }
    print(format_args!(
        "{:<10} {:<7} {:<9} {:>22} {:>22} {:>22}",
        "user", "action", "reaction", "retention", "risk", "own payoff"
    ))?;
    let of = |value: &Interval| format!("{:.3} [{:.3}, {:.3}]", value.value, value.low, value.high);
    for cell in &found.cells {
        print(format_args!(
            "{:<10} {:<7} {:<9} {:>22} {:>22} {:>22}",
            cell.user,
            cell.action,
            cell.reaction,
            of(&cell.retention),
            of(&cell.risk),
            of(&cell.payoff)
        ))?;
    }
    console.say(format!(
        "{broken} of {} second answers are broken; {} written",
        options.users * 27,
        arguments.out.display()
    ));
    Ok(Outcome::Done)
}

fn print_equilibrium(game: &Game, belief: &[f64], equilibrium: &Equilibrium) -> anyhow::Result<()> {
    let mixture: Vec<String> =
        game.actions.iter().zip(&equilibrium.mixture).map(|(action, p)| format!("{action} {p:.3}")).collect();
    print(format_args!("mixture  {}", mixture.join("  ")))?;
    print(format_args!("value    {:.4}", equilibrium.value))?;
    print(format_args!("\n{:<14} {:>8}  {:<12} {:>8}", "type", "belief", "reaction", "value"))?;
    for (user, kind) in game.types.iter().enumerate() {
        let reaction = &game.reactions[equilibrium.reactions[user]];
        print(format_args!(
            "{:<14} {:>8.3}  {reaction:<12} {:>8.4}",
            kind.name, belief[user], equilibrium.by_type[user]
        ))?;
    }
    Ok(())
}

/// A belief written as `NAME=P,…`, in the order of the game's types; a type that isn't named has probability 0.
fn parse_belief(text: &str, game: &Game) -> anyhow::Result<Vec<f64>> {
    let names: Vec<&str> = game.types.iter().map(|kind| kind.name.as_str()).collect();
    let wrong = |part: &str| {
        let expected = format!("TYPE=PROBABILITY, of {}", names.join(", "));
        Error::input("--belief", format!("{part:?}"), expected)
    };
    let mut belief = vec![0.0; names.len()];
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
        let user = names.iter().position(|other| *other == name.trim()).ok_or_else(|| wrong(part))?;
        belief[user] = value.trim().parse().map_err(|_| wrong(part))?;
    }
    Ok(belief)
}
