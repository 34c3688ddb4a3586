//! `pearl store`: stores of activations, merged and checked.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::console::Console;
use super::output::{Outcome, print};
use pearlpoint::activations::{self, Store};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join the parts of an extraction that was split with `--shard`
    Merge(Merge),
    /// Check a store: hashes, counts, NaN, duplicate rows
    Check(Check),
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl extract --data data.jsonl --shard 1/2 --out part-1
  pearl extract --data data.jsonl --shard 2/2 --out part-2
  pearl store merge part-1 part-2 --out whole")]
struct Merge {
    /// Folders of all parts
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Folder for the whole store
    #[arg(long)]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl store check store")]
struct Check {
    /// Folder of the store
    store: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Merge(arguments) => merge(arguments, console),
        Command::Check(arguments) => check(arguments, console),
    }
}

fn merge(arguments: Merge, console: &Console) -> anyhow::Result<Outcome> {
    let bar = console.bar(0, "copying");
    let manifest = activations::merge(&arguments.parts, &arguments.out, &mut |done| bar.done(done))?;
    let (rows, shards, out) = (manifest.rows, manifest.shards.len(), arguments.out.display());
    console.say(format!("{rows} rows in {shards} shards in {out}"));
    if arguments.json {
        print(json!({"rows": rows, "shards": shards}))?;
    }
    Ok(Outcome::Done)
}

fn check(arguments: Check, console: &Console) -> anyhow::Result<Outcome> {
    let shards = Store::open(&arguments.store).map_or(0, |store| store.manifest.shards.len());
    let bar = console.bar(shards, "checking");
    let faults = activations::check(&arguments.store, &mut |done| bar.done(done))?;
    match arguments.json {
        true => print(json!({"whole": faults.is_empty(), "wrong": faults}))?,
        false => faults.iter().try_for_each(print)?,
    }
    if !faults.is_empty() {
        return Ok(Outcome::CheckFailed);
    }
    console.say(format!("{} is whole", arguments.store.display()));
    Ok(Outcome::Done)
}
