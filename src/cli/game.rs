//! `pearl game`: the game between the model and its user, solved for a belief and explained.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::console::Console;
use super::output::{Outcome, print, print_exact};
use pearlpoint::Error;
use pearlpoint::game::{Equilibrium, Game, changes, leader_sensitivity, solve};

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
    Explain(Solve),
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
    let (arguments, is_explained) = match arguments.command {
        Command::Solve(arguments) => (arguments, false),
        Command::Explain(arguments) => (arguments, true),
    };
    let game = Game::load(&arguments.game)?;
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
