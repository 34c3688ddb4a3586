//! `pearl reasoning`: safety chains, parsed and refined.

mod chain_records;
mod chain_refinement;
mod node_attribution;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::console::Console;
use super::output::{Outcome, print, print_exact};
use chain_records::{Format, expected_chain};
use chain_refinement::Refine;
use node_attribution::Attribute;
use pearlpoint::Error;
use pearlpoint::dialogue::records;
use pearlpoint::reasoning::{Chain, Node};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Attribute the decision behind a thinking part to its nodes: readings, activation patching, gradients
    Attribute(Box<Attribute>),
    /// Parse thinking parts into chains: needs, risk and intent, guidelines, strategies
    Parse(Parse),
    /// Refine failing answers by edits of their chains (Lingo-BP): the embedded model's, or those to your dialogues
    Refine(Box<Refine>),
}

#[derive(Args)]
#[command(after_help = "Examples:
  pearl reasoning parse answers.jsonl --format organism
  pearl reasoning parse oyster.csv --format oyster --column Safety_chain --json")]
struct Parse {
    /// Records with a chain: JSON Lines, CSV, TSV
    file: PathBuf,
    /// How chains are written
    #[arg(long, value_enum)]
    format: Format,
    /// The column of chains [default: Safety_chain, Initial_think, thinking, think, completion, response or text]
    #[arg(long)]
    column: Option<String>,
    /// Print each chain as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Attribute(arguments) => node_attribution::run(*arguments, console),
        Command::Parse(arguments) => parse(&arguments, console),
        Command::Refine(arguments) => chain_refinement::run(*arguments, console),
    }
}

fn parse(arguments: &Parse, console: &Console) -> anyhow::Result<Outcome> {
    let mut chains: Vec<(String, Chain)> = Vec::new();
    for item in records(&arguments.file)? {
        let (place, record) = item?;
        let text = expected_chain(&place, &record, arguments.column.as_deref())?;
        let chain = arguments.format.parse(&place, &text)?;
        let id =
            record.get("id").and_then(Value::as_str).map_or_else(|| chains.len().to_string(), str::to_owned);
        chains.push((id, chain));
    }
    if chains.is_empty() {
        return Err(Error::input(arguments.file.display(), "no record", "at least one chain").into());
    }
    for (id, chain) in &chains {
        if arguments.json {
            print_exact(json!({ "id": id, "chain": chain }))?;
            continue;
        }
        print(format_args!("{id}"))?;
        for node in Node::ALL {
            print(format_args!("  {:<12} {}", node.name(), chain.text(node)))?;
        }
    }
    let calm = chains.iter().filter(|(_, chain)| chain.has_no_risk()).count();
    console.say(format!("{} chains, {calm} of them without risk", chains.len()));
    Ok(Outcome::Done)
}
