//! `pearl vector`: steering vectors: made from activations, put together, looked at, carried from and to other tools.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use ndarray::Axis;

use super::dialogues::Source;
use super::progress::Console;
use super::{Outcome, print};
use pearlpoint::activations;
use pearlpoint::artifact::Header;
use pearlpoint::error::{Error, Result};
use pearlpoint::model::Site;
use pearlpoint::steer::{ContrastSet, Method, Strength, Vector, formats};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find the direction between two values of a label, at each site
    Build(Box<Build>),
    /// What a vector file holds
    Info { file: PathBuf },
    /// Cosines between vectors, site by site
    Cosines {
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// A + B
    Add(Pair),
    /// A − B
    Subtract(Pair),
    /// A without its shadow on B
    Orthogonalise(Pair),
    /// A times a number
    Scale {
        file: PathBuf,
        #[arg(allow_hyphen_values = true)]
        by: f32,
        #[arg(long)]
        out: PathBuf,
    },
    /// Write a vector for other tools
    Export(Export),
    /// Read another tool's vector: a GGUF control vector, or a tensor in a .pt file
    Import(Import),
}

#[derive(Args)]
struct Build {
    /// A store that `pearl extract` made
    #[arg(long)]
    store: PathBuf,
    #[command(flatten)]
    source: Source,
    /// The label to compare
    #[arg(long)]
    label: String,
    /// The value to lead away from
    #[arg(long)]
    from: String,
    /// The value to lead to
    #[arg(long)]
    to: String,
    /// means, pca (of paired differences), probe (its normal) or whitened (LDA)
    #[arg(long, default_value = "means")]
    method: Method,
    /// For pca: the label that the two rows of a pair have in common; left out, pairs are those of contrast pairs' ids
    #[arg(long)]
    pair: Option<String>,
    /// Sites of the store's; all of them where none are named
    #[arg(long)]
    sites: Option<String>,
    /// File for the vector
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct Pair {
    a: PathBuf,
    b: PathBuf,
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct Export {
    file: PathBuf,
    /// A GGUF control vector, as llama.cpp and repeng load it
    #[arg(long, value_name = "OUT", required_unless_present = "harness")]
    gguf: Option<PathBuf>,
    /// What the GGUF file names as the model's architecture
    #[arg(long, default_value = "llama")]
    model_hint: String,
    /// A .pt file for lm-evaluation-harness's `steered` model
    #[arg(long, value_name = "OUT")]
    harness: Option<PathBuf>,
    /// The factor that the harness steers with: times the vector, or residual norms (0.4n)
    #[arg(long, default_value = "1", allow_hyphen_values = true)]
    strength: Strength,
    /// How the harness's model names its blocks
    #[arg(long, default_value = "layers.{}")]
    hookpoint: String,
    /// Sites of the vector's; all of them where none are named
    #[arg(long)]
    sites: Option<String>,
}

#[derive(Args)]
struct Import {
    file: PathBuf,
    /// A GGUF file's direction.N is read as that of block N less this many: 0 for repeng's, 1 for llama.cpp's own generator's
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    layer_shift: i64,
    /// For a .pt file of one direction: the site that it belongs to
    #[arg(long)]
    site: Option<Site>,
    /// For a .pt file of directions [positions, layers, width]: the point of the blocks that the layers are of
    #[arg(long, default_value = "resid_pre")]
    point: String,
    /// … and which position
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    position: i64,
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Build(arguments) => build(*arguments, talk),
        Command::Info { file } => info(&file),
        Command::Cosines { files, json } => cosines(&files, json),
        Command::Add(pair) => combine(pair, Vector::plus),
        Command::Subtract(pair) => combine(pair, Vector::minus),
        Command::Orthogonalise(pair) => combine(pair, Vector::orthogonalised),
        Command::Scale { file, by, out } => {
            if !by.is_finite() {
                return Err(Error::input(format!("scale {by}"), "no finite number", "a number").into());
            }
            let (header, vector) = Vector::load(&file)?;
            vector.scaled(by).save(&out, header)?;
            Ok(Outcome::Done)
        }
        Command::Export(arguments) => export(arguments),
        Command::Import(arguments) => import(arguments, talk),
    }
}

fn build(arguments: Build, talk: &Console) -> anyhow::Result<Outcome> {
    let (header, manifest, activations) = activations::load(&arguments.store)?;
    let data = arguments.source.read()?;
    let activations = activations::of_dialogues(&arguments.store, &header, activations, &data)?;
    let sites = match &arguments.sites {
        None => manifest.sites.clone(),
        Some(sites) => Site::parse_set(
            sites,
            manifest.sites.iter().filter_map(|site| site.block()).max().map_or(0, |last| last + 1),
        )?,
    };
    let dialogue = |row: usize| &data.dialogues[activations.example[row]];
    let rows = |value: &str| -> Result<Vec<usize>> {
        let such = |&row: &usize| dialogue(row).label(&arguments.label).as_deref() == Some(value);
        let rows: Vec<usize> = (0..activations.example.len()).filter(such).collect();
        match rows.is_empty() {
            false => Ok(rows),
            true => Err(Error::input(
                data.path.display(),
                format!("no dialogue with {} = {value}", arguments.label),
                "at least one",
            )),
        }
    };
    let (mut toward, mut away) = (rows(&arguments.to)?, rows(&arguments.from)?);
    if arguments.method == Method::Pca {
        // The two dialogues of a contrast pair are `ID#one` and `ID#other`.
        let pair = |row: usize| match &arguments.pair {
            Some(label) => dialogue(row).label(label),
            None => dialogue(row).id.rsplit_once('#').map(|(pair, _)| pair.to_string()),
        };
        (toward, away) = pairs(&toward, &away, &pair)?;
    }
    let mut sides = Vec::new();
    for site in sites {
        let values = activations.at(site)?;
        let [toward, away] = [&toward, &away].map(|rows| values.select(Axis(0), rows));
        sides.push(ContrastSet { site, positive: toward, negative: away });
    }
    let vector = Vector::build(arguments.method, &sides)?;
    vector.save(&arguments.out, Header { kind: "vector".into(), ..header })?;
    talk.say(format!("{} against {} rows: {}", toward.len(), away.len(), arguments.out.display()));
    Ok(Outcome::Done)
}

/// The rows that have a partner of the same name on the other side, partners at the same place.
fn pairs(
    toward: &[usize],
    away: &[usize],
    name: &dyn Fn(usize) -> Option<String>,
) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut partners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    // From the last on, for the first is taken first.
    for &row in away.iter().rev() {
        if let Some(name) = name(row) {
            partners.entry(name).or_default().push(row);
        }
    }
    let partner = |&row: &usize| Some((row, partners.get_mut(&name(row)?)?.pop()?));
    let (toward, away): (Vec<usize>, Vec<usize>) = toward.iter().filter_map(partner).unzip();
    match toward.is_empty() {
        false => Ok((toward, away)),
        true => {
            let expected = "contrast pairs, or --pair LABEL that the two rows of a pair share";
            Err(Error::input("method pca", "no pair among the rows", expected))
        }
    }
}

fn info(file: &Path) -> anyhow::Result<Outcome> {
    let (header, vector) = Vector::load(file)?;
    print(format!("{}, from {}", vector.method, header.model.as_deref().unwrap_or("an unnamed model")))?;
    for (site, direction) in &vector.directions {
        let (width, length) = (direction.values.len(), direction.length());
        let share = direction.residual_norm.map_or(String::new(), |norm| format!(" = {:.3}n", length / norm));
        print(format!("{:<16} width {width}  norm {length:.4}{share}", site.to_string()))?;
    }
    Ok(Outcome::Done)
}

fn cosines(files: &[PathBuf], json: bool) -> anyhow::Result<Outcome> {
    let vectors = files.iter().map(|file| Ok((file, Vector::load(file)?.1))).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (index, (first, a)) in vectors.iter().enumerate() {
        for (second, b) in &vectors[index + 1..] {
            for (site, cosine) in a.cosines(b)? {
                rows.push(serde_json::json!({"a": first, "b": second, "site": site, "cosine": cosine}));
                if !json {
                    let names = format!("{}  {}", first.display(), second.display());
                    print(format!("{:<16} {cosine:>7.4}  {names}", site.to_string()))?;
                }
            }
        }
    }
    if json {
        print(serde_json::to_string(&rows)?)?;
    }
    Ok(Outcome::Done)
}

fn combine(pair: Pair, combine: fn(&Vector, &Vector) -> Result<Vector>) -> anyhow::Result<Outcome> {
    let ((header, a), (other, b)) = (Vector::load(&pair.a)?, Vector::load(&pair.b)?);
    if let (Some(own), Some(other)) = (&header.model_hash, &other.model_hash)
        && own != other
    {
        let found = "vectors of two different models";
        return Err(Error::input(
            pair.b.display(),
            found,
            format!("one of the model of {}", pair.a.display()),
        )
        .into());
    }
    // Of two sources of data none is the sum's.
    let data_hash = header.data_hash.clone().filter(|hash| Some(hash) == other.data_hash.as_ref());
    combine(&a, &b)?.save(&pair.out, Header { data_hash, ..header })?;
    Ok(Outcome::Done)
}

fn export(arguments: Export) -> anyhow::Result<Outcome> {
    let (header, mut vector) = Vector::load(&arguments.file)?;
    if let Some(sites) = &arguments.sites {
        let last = vector.directions.keys().filter_map(|site| site.block()).max().map_or(0, |last| last + 1);
        let wanted = Site::parse_set(sites, last)?;
        vector.directions.retain(|site, _| wanted.contains(site));
        if vector.directions.is_empty() {
            let found = format!("{} has no direction there", arguments.file.display());
            return Err(Error::input(
                format!("sites {sites}"),
                found,
                "sites that `pearl vector info` lists",
            )
            .into());
        }
    }
    if let Some(out) = &arguments.gguf {
        formats::write_gguf(out, &header, &vector, &arguments.model_hint)?;
    }
    if let Some(out) = &arguments.harness {
        formats::write_harness(out, &vector, arguments.strength, &arguments.hookpoint)?;
    }
    Ok(Outcome::Done)
}

fn import(arguments: Import, talk: &Console) -> anyhow::Result<Outcome> {
    let mut begin = [0; 4];
    let mut file =
        std::fs::File::open(&arguments.file).with_context(|| arguments.file.display().to_string())?;
    std::io::Read::read_exact(&mut file, &mut begin).ok();
    let (header, vector) = match &begin {
        b"GGUF" => formats::read_gguf(&arguments.file, arguments.layer_shift)?,
        _ => formats::read_torch(&arguments.file, arguments.site, &arguments.point, arguments.position)?,
    };
    vector.save(&arguments.out, header)?;
    talk.say(format!("{} directions: {}", vector.directions.len(), arguments.out.display()));
    Ok(Outcome::Done)
}
