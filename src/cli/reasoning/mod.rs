//! `pearl reasoning`: safety chains, parsed and refined.

mod chain_refinement;
mod node_attribution;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::console::Console;
use super::output::{Outcome, print, print_exact};
use chain_refinement::Refine;
use node_attribution::Attribute;
use pearlpoint::Error;
use pearlpoint::dialogue::{self, Dialogue, ReadOptions, Role, records};
use pearlpoint::reasoning::{Chain, ChainForm, Node, organism, oyster, sentences};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Attribute the decision behind a thinking part to its nodes: readings, activation patching, gradients
    Attribute(Attribute),
    /// Parse thinking parts into chains: needs, risk and intent, guidelines, strategies
    Parse(Parse),
    /// Refine failing answers by edits of their chains (Lingo-BP): the embedded model's, or those to your dialogues
    Refine(Box<Refine>),
}

/// How chains are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
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

/// Columns that may hold a chain, in order of preference.
const COLUMNS: [&str; 7] =
    ["Safety_chain", "Initial_think", "thinking", "think", "completion", "response", "text"];

impl Format {
    /// The chain of a text.
    pub fn parse(self, place: &str, text: &str) -> pearlpoint::Result<Chain> {
        match self {
            Format::Organism => organism::parse(place, text),
            Format::Oyster => oyster::parse(place, text),
            Format::Text => {
                let sentences = sentences::sentences(text);
                let labelled: Vec<_> =
                    sentences.into_iter().map(|sentence| (sentence, sentences::by_cues(sentence))).collect();
                sentences::chain(place, &labelled)
            }
        }
    }
}

/// [`chain_text`] of a record that has to have one.
pub fn expected_chain(
    place: &str,
    record: &Map<String, Value>,
    column: Option<&str>,
) -> pearlpoint::Result<String> {
    chain_text(record, column).ok_or_else(|| {
        let known: Vec<&str> = record.keys().map(String::as_str).take(12).collect();
        let expected = match column {
            Some(name) => format!("a column {name} with a chain"),
            None => format!("a column of {} with a chain", COLUMNS.join(", ")),
        };
        Error::input(place, format!("no chain among {}", known.join(", ")), expected)
    })
}

impl From<Format> for ChainForm {
    fn from(format: Format) -> ChainForm {
        match format {
            Format::Organism => ChainForm::Organism,
            Format::Oyster => ChainForm::Oyster,
            Format::Text => ChainForm::Text,
        }
    }
}

/// The dialogues of a file up to their last answer, each with the place and the columns of its record.
pub fn with_records(
    path: &Path,
    limit: Option<usize>,
) -> pearlpoint::Result<Vec<(Dialogue, String, Map<String, Value>)>> {
    let read = dialogue::read(path, &ReadOptions::default().limit(limit))?;
    let columns = records(path)?.take(read.dialogues.len()).collect::<pearlpoint::Result<Vec<_>>>()?;
    if columns.len() < read.dialogues.len() || (limit.is_none() && records(path)?.count() > columns.len()) {
        let found = format!("{} dialogues of another number of records", read.dialogues.len());
        return Err(Error::input(path.display(), found, "one dialogue a record"));
    }
    let mut joined = Vec::with_capacity(columns.len());
    for (mut dialogue, (place, columns)) in read.dialogues.into_iter().zip(columns) {
        while dialogue.messages.len() > 1
            && dialogue.messages.last().is_some_and(|last| last.role == Role::Assistant)
        {
            dialogue.messages.pop();
        }
        joined.push((dialogue, place, columns));
    }
    Ok(joined)
}

/// The text of a record's chain: in the column named, or in the first of the usual ones.
pub fn chain_text(record: &Map<String, Value>, column: Option<&str>) -> Option<String> {
    let names = column.map_or(COLUMNS.to_vec(), |name| vec![name]);
    names.iter().find_map(|name| match record.get(*name)? {
        Value::String(text) => Some(text.clone()),
        object @ Value::Object(_) => Some(object.to_string()),
        _ => None,
    })
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Attribute(arguments) => node_attribution::run(arguments, console),
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
