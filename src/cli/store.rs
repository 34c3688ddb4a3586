//! `pearl store`: stores of activations, put together and looked over.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::progress::Console;
use super::{Outcome, print};
use pearlpoint::activations::{self, Store};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the parts of a run (`extract --shard I/N`) together
    Merge(Merge),
    /// Look whether a store is whole: hashes, counts, NaN, rows that are there twice
    Check(Check),
}

#[derive(Args)]
struct Merge {
    /// Folders of all parts
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Folder of the whole store
    #[arg(long)]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Check {
    /// Folder of the store
    store: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Merge(arguments) => merge(arguments, talk),
        Command::Check(arguments) => check(arguments, talk),
    }
}

fn merge(arguments: Merge, talk: &Console) -> anyhow::Result<Outcome> {
    let bar = talk.bar(0, "copying");
    let merged = activations::merge(&arguments.parts, &arguments.out, &mut |done| {
        bar.set_position(done as u64);
        talk.should_continue()
    });
    bar.finish_and_clear();
    let manifest = merged?;
    talk.say(format!(
        "{} rows in {} shards in {}",
        manifest.rows,
        manifest.shards.len(),
        arguments.out.display()
    ));
    if arguments.json {
        print(json!({"rows": manifest.rows, "shards": manifest.shards.len()}))?;
    }
    Ok(Outcome::Done)
}

fn check(arguments: Check, talk: &Console) -> anyhow::Result<Outcome> {
    let shards = Store::open(&arguments.store).map_or(0, |store| store.manifest.shards.len());
    let bar = talk.bar(shards, "checking");
    let wrong = activations::check(&arguments.store, &mut |done| {
        bar.set_position(done as u64);
        talk.should_continue()
    });
    bar.finish_and_clear();
    let wrong = wrong?;
    match arguments.json {
        true => print(json!({"whole": wrong.is_empty(), "wrong": wrong}))?,
        false => wrong.iter().try_for_each(print)?,
    }
    if wrong.is_empty() {
        talk.say(format!("{} is whole", arguments.store.display()));
        return Ok(Outcome::Done);
    }
    Ok(Outcome::CheckFailed)
}
