//! `pearl store`: stores of activations, described, merged, checked and exported.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::console::Console;
use super::output::{Outcome, print, print_exact, print_line};
use pearlpoint::activations::{self, ExportFormat, Store};
use pearlpoint::artifact::{self, FolderLock};
use pearlpoint::model::Site;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a store holds: model, data, sites, tokens, rows
    Info(Info),
    /// Join the parts of an extraction that was split with `--shard`
    Merge(Merge),
    /// Check a store: hashes, counts, NaN, duplicate rows
    Check(Check),
    /// Write a store's activations as numpy arrays, CSV or Parquet: a file a site
    Export(Export),
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl store info store")]
struct Info {
    /// Folder of the store
    store: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
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

#[derive(Args)]
#[command(after_help = "Examples:
  pearl store export store --npy --out arrays
  pearl store export store --csv --sites 3.resid_post --out tables")]
#[command(group = clap::ArgGroup::new("format").required(true))]
struct Export {
    /// Folder of the store
    store: PathBuf,
    /// Numpy arrays: SITE.npy [rows, width] in f32, example.npy and position.npy
    #[arg(long, group = "format")]
    npy: bool,
    /// CSV: SITE.csv with columns example, position, and one a dimension
    #[arg(long, group = "format")]
    csv: bool,
    /// Parquet: the columns of --csv; in a build with the feature `parquet`
    #[arg(long, group = "format")]
    parquet: bool,
    /// Sites to write [default: all of the store]
    #[arg(long)]
    sites: Option<String>,
    /// Folder for the files
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Info(arguments) => info(&arguments),
        Command::Merge(arguments) => merge(arguments, console),
        Command::Check(arguments) => check(arguments, console),
        Command::Export(arguments) => export(&arguments, console),
    }
}

fn info(arguments: &Info) -> anyhow::Result<Outcome> {
    let store = Store::open(&arguments.store)?;
    let (header, manifest) = (&store.header, &store.manifest);
    let dialogues: BTreeSet<usize> = store.example()?.into_iter().collect();
    let joined = match store.fingerprints()?.is_some() {
        true => "by their messages: labels may change",
        false => "by the file's hash: made in memory or by an older version",
    };
    if arguments.json {
        let mut body = serde_json::to_value(header)?;
        if let (Some(body), serde_json::Value::Object(manifest)) =
            (body.as_object_mut(), serde_json::to_value(manifest)?)
        {
            body.extend(manifest);
            body.insert("dialogues".into(), dialogues.len().into());
        }
        print_exact(body)?;
        return Ok(Outcome::Done);
    }
    let short = |hash: &Option<String>| hash.as_deref().map_or("unknown", artifact::short).to_owned();
    let model = header.model.as_deref().unwrap_or("unknown");
    let sites: Vec<String> = manifest.sites.iter().map(ToString::to_string).collect();
    let weights = manifest.weights.as_deref().unwrap_or("unknown");
    let mut rows = vec![
        (
            "model",
            format!("{model} ({}, weights {weights}, hash {})", manifest.family, short(&header.model_hash)),
        ),
        ("data", format!("{} (hash {})", manifest.dataset, short(&header.data_hash))),
        ("dialogues", format!("{}, joined with labels {joined}", dialogues.len())),
        (
            "rows",
            format!("{} in {} shards, stored as {}", manifest.rows, manifest.shards.len(), manifest.dtype),
        ),
        ("tokens", manifest.tokens.to_string()),
        ("sites", sites.join(" ")),
    ];
    if manifest.refused > 0 {
        rows.push((
            "left out",
            format!("{} dialogues that the template or the model refused", manifest.refused),
        ));
    }
    if let Some(plan) = &manifest.plan {
        rows.push(("steered by", format!("a plan (hash {})", artifact::short(plan))));
    }
    if let Some(part) = manifest.part {
        rows.push(("part", part.to_string()));
    }
    rows.iter().try_for_each(|(name, value)| print_line(format_args!("{name:<10} {value}")))?;
    Ok(Outcome::Done)
}

fn merge(arguments: Merge, console: &Console) -> anyhow::Result<Outcome> {
    let bar = console.bar(0, "copying");
    let manifest = activations::merge(&arguments.parts, &arguments.out, &mut |done| bar.done(done))?;
    let (rows, shards, out) = (manifest.rows, manifest.shards.len(), arguments.out.display());
    console.say(format!("{rows} rows in {shards} shards in {out}"));
    if arguments.json {
        print_exact(json!({"rows": rows, "shards": shards}))?;
    }
    Ok(Outcome::Done)
}

fn check(arguments: Check, console: &Console) -> anyhow::Result<Outcome> {
    let shards = Store::open(&arguments.store).map_or(0, |store| store.manifest.shards.len());
    let bar = console.bar(shards, "checking");
    let faults = activations::check(&arguments.store, &mut |done| bar.done(done))?;
    match arguments.json {
        true => print_exact(json!({"whole": faults.is_empty(), "wrong": faults}))?,
        false => faults.iter().try_for_each(print)?,
    }
    if !faults.is_empty() {
        return Ok(Outcome::CheckFailed);
    }
    console.say(format!("{} is whole", arguments.store.display()));
    Ok(Outcome::Done)
}

fn export(arguments: &Export, console: &Console) -> anyhow::Result<Outcome> {
    let store = Store::open(&arguments.store)?;
    let format = match (arguments.npy, arguments.csv) {
        (true, _) => ExportFormat::Npy,
        (_, true) => ExportFormat::Csv,
        _ => ExportFormat::Parquet,
    };
    let own = &store.manifest.sites;
    let sites = match &arguments.sites {
        None => own.clone(),
        Some(text) => {
            let blocks = own.iter().filter_map(|site| site.block()).max().map_or(0, |last| last + 1);
            Site::parse_set(text, blocks)?
        }
    };
    let _lock = FolderLock::take(&arguments.out)?;
    let bar = console.bar(sites.len(), "writing");
    let written = activations::export(&store, &sites, format, &arguments.out, &mut |done| bar.done(done))?;
    drop(bar);
    written.iter().try_for_each(|path| print_line(path.display()))?;
    Ok(Outcome::Done)
}
