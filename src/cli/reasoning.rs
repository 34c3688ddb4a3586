//! `pearl reasoning`: safety chains, parsed and refined.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::console::Console;
use super::model::ModelChoice;
use super::output::{Outcome, print, print_exact};
use pearlpoint::Error;
use pearlpoint::analysis::chain_refinement::{RefinementOptions, refine_failing};
use pearlpoint::artifact;
use pearlpoint::dialogue::records;
use pearlpoint::reasoning::{Chain, Node, Refinement, organism, oyster, sentences};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Parse thinking parts into chains: needs, risk and intent, guidelines, strategies
    Parse(Parse),
    /// Refine the embedded model's failing answers by edits of their chains, beside random edits of the same budget
    Refine(Refine),
}

/// How chains are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The embedded model's grammar.
    Organism,
    /// Oyster-I's JSON of four nodes.
    Oyster,
    /// Free text, each sentence by its cue words (English).
    Text,
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

#[derive(Args)]
#[command(after_help = "Example:
  pearl reasoning refine --users 3000 --out refined.jsonl")]
struct Refine {
    #[command(flatten)]
    model: ModelChoice,
    /// Users drawn from the world; those of held-out topics are refined, the others fit the value probes
    #[arg(long, default_value_t = RefinementOptions::default().users)]
    users: usize,
    /// Steps, at most
    #[arg(long, default_value_t = Refinement::default().steps)]
    steps: usize,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write every history: chains, edits and losses, as JSON Lines
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Columns that may hold a chain, in order of preference.
const COLUMNS: [&str; 7] =
    ["Safety_chain", "Initial_think", "thinking", "think", "completion", "response", "text"];

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Parse(arguments) => parse(&arguments, console),
        Command::Refine(arguments) => refine(arguments, console),
    }
}

fn parse(arguments: &Parse, console: &Console) -> anyhow::Result<Outcome> {
    let mut chains: Vec<(String, Chain)> = Vec::new();
    for item in records(&arguments.file)? {
        let (place, record) = item?;
        let names: Vec<&str> = match &arguments.column {
            Some(name) => vec![name],
            None => COLUMNS.to_vec(),
        };
        let text = names.iter().find_map(|name| match record.get(*name)? {
            Value::String(text) => Some(text.clone()),
            object @ Value::Object(_) => Some(object.to_string()),
            _ => None,
        });
        let text = text.ok_or_else(|| {
            let known: Vec<&str> = record.keys().map(String::as_str).take(12).collect();
            let expected = format!("a column of {} with a chain", names.join(", "));
            Error::input(&place, format!("no chain among {}", known.join(", ")), expected)
        })?;
        let chain = match arguments.format {
            Format::Organism => organism::parse(&place, &text)?,
            Format::Oyster => oyster::parse(&place, &text)?,
            Format::Text => {
                let sentences = sentences::sentences(&text);
                let labelled: Vec<_> =
                    sentences.into_iter().map(|sentence| (sentence, sentences::by_cues(sentence))).collect();
                sentences::chain(&place, &labelled)?
            }
        };
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

fn refine(arguments: Refine, console: &Console) -> anyhow::Result<Outcome> {
    if !(1..=100).contains(&arguments.steps) {
        return Err(Error::input("--steps", arguments.steps, "1 to 100").into());
    }
    let refinement = Refinement { steps: arguments.steps, ..Refinement::default() };
    let options = RefinementOptions { users: arguments.users, refinement, seed: arguments.seed };
    let model = arguments.model.load(console)?;
    let (table, refined) = refine_failing(&model, &options, &mut console.stages())?;
    if let Some(path) = &arguments.out {
        let mut lines = String::new();
        for one in &refined {
            lines += &serde_json::to_string(one)?;
            lines.push('\n');
        }
        artifact::write_text(path, &lines)?;
    }
    if arguments.json {
        let mut body = serde_json::to_value(&table)?;
        (body["kind"], body["version"]) = (json!("chain-refinement"), json!(1));
        print_exact(body)?;
        return Ok(Outcome::Done);
    }
    print(format_args!(
        "{} of {} answers fail a loss; {} of them have no chain",
        table.failing, table.answers, table.without_chain
    ))?;
    print(format_args!(
        "value probes at {}: right about {:.1} % of answers after strategies drawn at random\n",
        table.site,
        100.0 * table.accuracy
    ))?;
    print(format_args!(
        "{:<8} {:>24}  {:<22} {:>6} {:>8} {:>13}",
        "engine", "both losses met", "by step", "steps", "safety", "satisfaction"
    ))?;
    for engine in &table.engines {
        let by_step: Vec<String> = engine.met_by_step.iter().map(|share| format!("{share:.3}")).collect();
        print(format_args!(
            "{:<8} {:>24}  {:<22} {:>6.2} {:>8.3} {:>13.3}",
            engine.engine,
            format!("{:.3} [{:.3}, {:.3}]", engine.met.value, engine.met.low, engine.met.high),
            by_step.join(", "),
            engine.steps,
            engine.losses[0],
            engine.losses[1]
        ))?;
    }
    console.say("losses are means at the end; 95 % intervals over topics");
    Ok(Outcome::Done)
}
