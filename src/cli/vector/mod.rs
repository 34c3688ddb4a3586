//! `pearl vector`: steering vectors, computed from activations, combined, inspected, imported and exported.

mod select;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use self::select::{Arguments as Select, run as select};
use crate::cli::console::Console;
use crate::cli::output::{Outcome, print, print_exact, print_line};
use crate::cli::states::StoreSource;
use pearlpoint::artifact::Header;
use pearlpoint::error::{Error, Result};
use pearlpoint::model::Site;
use pearlpoint::pipeline::HeldOutEffect;
use pearlpoint::steer::{Method, Null, Strength, Vector, formats};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compute the direction from one value of a label to another, at every site
    Build(Box<Build>),
    /// Choose a direction over sites × token positions by what it does to answers
    Select(Box<Select>),
    /// Describe a vector file: sites, widths, norms
    Info(Info),
    /// Cosines between vectors, site by site
    Cosines(Cosines),
    /// Add two vectors: A + B
    #[command(after_help = "Example:
  pearl vector add trust.safetensors double.safetensors --out sum.safetensors")]
    Add(Operands),
    /// Subtract a vector: A − B
    #[command(after_help = "Example:
  pearl vector subtract double.safetensors trust.safetensors --out difference.safetensors")]
    Subtract(Operands),
    /// Remove from A its projection on B
    #[command(after_help = "Example:
  pearl vector orthogonalise trust.safetensors whitened.safetensors --out rest.safetensors")]
    Orthogonalise(Operands),
    /// Multiply a vector by a number
    Scale(Scale),
    /// Write a vector for other tools
    Export(Export),
    /// Read another tool's vector: a GGUF control vector, an array (.pt, .npy, .npz, .pkl, .safetensors), or a .svec file
    Import(Import),
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl vector build --store store --data data.jsonl --label user-type --from malicious --to sensitive --out trust.safetensors
  pearl vector build --store store --data data.jsonl --label user-type --from malicious --to sensitive --method whitened --out whitened.safetensors
  pearl vector build --store store --data data.jsonl --label user-type --from malicious --to sensitive --group topic --held-out travel,music --out tested.safetensors")]
struct Build {
    #[command(flatten)]
    states: StoreSource,
    /// The label to contrast
    #[arg(long)]
    label: String,
    /// The value that the vector leads away from
    #[arg(long, value_name = "VALUE")]
    from: String,
    /// The value that the vector leads to
    #[arg(long, value_name = "VALUE")]
    to: String,
    /// Method: means, pca (of paired differences), probe (its normal) or whitened (LDA)
    #[arg(long, default_value = "means")]
    method: Method,
    /// For pca: the label that the two rows of a pair share [default: the ids of contrast pairs]
    #[arg(long, value_name = "LABEL")]
    pair: Option<String>,
    /// Sites to compute it at [default: all of the store]
    #[arg(long)]
    sites: Option<String>,
    /// The label whose values --held-out names
    #[arg(long, value_name = "LABEL")]
    group: Option<String>,
    /// Groups that the vector is not made from; its effect on them is printed
    #[arg(long, value_name = "VALUES", value_delimiter = ',', requires = "group")]
    held_out: Vec<String>,
    /// Kinds of null directions to write beside the vector, as OUT-KIND-N: random, orthogonal, shuffled, components
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    null: Vec<Null>,
    /// Number of null directions of each kind
    #[arg(long, default_value_t = 20, requires = "null")]
    draws: usize,
    /// Seed of the null directions
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the vector
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl vector info trust.safetensors")]
struct Info {
    /// A vector file
    file: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl vector cosines trust.safetensors whitened.safetensors")]
struct Cosines {
    /// Vector files
    #[arg(required = true, num_args = 2..)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Operands {
    /// A vector file
    a: PathBuf,
    /// Another, of the same model
    b: PathBuf,
    /// Take vectors of other weights of the same model: another precision, or a fine-tune
    #[arg(long)]
    other_weights: bool,
    /// File for the result
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl vector scale trust.safetensors 2 --out double.safetensors")]
struct Scale {
    /// A vector file
    file: PathBuf,
    /// The factor
    #[arg(allow_hyphen_values = true)]
    by: f32,
    /// File for the result
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl vector export trust.safetensors --sites 1-5.resid_post --gguf trust.gguf")]
struct Export {
    /// A vector file
    file: PathBuf,
    /// Write a GGUF control vector, as llama.cpp and repeng load it
    #[arg(long, value_name = "OUT", required_unless_present = "harness")]
    gguf: Option<PathBuf>,
    /// The model's architecture as the GGUF file names it
    #[arg(long, default_value = "llama")]
    model_hint: String,
    /// Write a .pt file for lm-evaluation-harness's `steered` model
    #[arg(long, value_name = "OUT")]
    harness: Option<PathBuf>,
    /// The harness's steering strength: times the vector, or residual norms (0.4n)
    #[arg(long, default_value = "1", allow_hyphen_values = true)]
    strength: Strength,
    /// How the harness's model names its blocks
    #[arg(long, default_value = "layers.{}")]
    hookpoint: String,
    /// Sites to export [default: all of the vector]
    #[arg(long)]
    sites: Option<String>,
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl vector import trust.gguf --out imported.safetensors")]
struct Import {
    /// A GGUF control vector, an array (.pt, .npy, .npz, .pkl, .safetensors), or a .svec file
    file: PathBuf,
    /// For GGUF: direction.N belongs to block N less this; 0 for repeng's files, 1 for those of llama.cpp's generator
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    layer_shift: i64,
    /// For an array of one direction: its site
    #[arg(long)]
    site: Option<Site>,
    /// For an array of directions [layers, width] or [positions, layers, width]: the point in the block
    #[arg(long, default_value = "resid_pre")]
    point: String,
    /// For an array of directions [positions, layers, width]: the position to take
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    position: i64,
    /// File for the vector
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match arguments.command {
        Command::Build(arguments) => build(*arguments, console),
        Command::Select(arguments) => select(*arguments, console),
        Command::Info(arguments) => info(&arguments.file),
        Command::Cosines(arguments) => cosines(&arguments.files, arguments.json),
        Command::Add(operands) => combine(operands, Vector::plus, console),
        Command::Subtract(operands) => combine(operands, Vector::minus, console),
        Command::Orthogonalise(operands) => combine(operands, Vector::orthogonalised, console),
        Command::Scale(arguments) => scale(arguments),
        Command::Export(arguments) => export(arguments),
        Command::Import(arguments) => import(arguments, console),
    }
}

fn build(arguments: Build, console: &Console) -> anyhow::Result<Outcome> {
    let states = arguments.states.open(console)?;
    let mut builder =
        states.contrast(&arguments.label, &arguments.from, &arguments.to).method(arguments.method);
    if let Some(pair) = arguments.pair {
        builder = builder.pair(pair);
    }
    if let Some(sites) = arguments.sites {
        builder = builder.sites(sites);
    }
    if let Some(group) = arguments.group {
        builder = builder.group(group).hold_out(arguments.held_out);
    }
    let built = builder.build_and_test()?;
    let header = || Header { kind: "vector".into(), ..states.header().clone() };
    for null in &arguments.null {
        let stem = arguments.out.with_extension("");
        for (number, vector) in built.nulls(*null, arguments.draws, arguments.seed)?.iter().enumerate() {
            let beside = format!("{}-{}-{number}.safetensors", stem.display(), null.word());
            vector.save(Path::new(&beside), header())?;
        }
    }
    let (vector, [to, from]) = (built.vector, built.rows);
    vector.save(&arguments.out, header())?;
    for (site, effect) in &built.held_out {
        let HeldOutEffect { share, auroc, rows } = effect;
        let site = site.to_string();
        print(format!(
            "{site:<16} held out: {share:.3} of the vector's length between the class means, AUROC {:.3} [{:.3}, {:.3}], {rows} rows",
            auroc.value, auroc.low, auroc.high
        ))?;
    }
    if let Some(best) = vector.best {
        console.say(format!("best site: {best}, chosen on the groups held out and kept in the file"));
    }
    if let Some(doubt) = vector.doubt_of_unit() {
        console.say(format!("doubt: {doubt}"));
    }
    console.say(format!("{to} against {from} rows: {}", arguments.out.display()));
    Ok(Outcome::Done)
}

fn scale(arguments: Scale) -> anyhow::Result<Outcome> {
    let Scale { file, by, out } = arguments;
    if !by.is_finite() {
        return Err(Error::input(format!("scale {by}"), "no finite number", "a number").into());
    }
    let (header, vector) = Vector::load(&file)?;
    vector.scaled(by).save(&out, header)?;
    Ok(Outcome::Done)
}

fn info(file: &Path) -> anyhow::Result<Outcome> {
    let (header, vector) = Vector::load(file)?;
    print_line(format!("{}, from {}", vector.method, header.model.as_deref().unwrap_or("an unnamed model")))?;
    if let Some(best) = vector.best {
        print(format!("best site: {best}"))?;
    }
    for (site, direction) in &vector.directions {
        let (width, length) = (direction.values.len(), direction.length());
        let mut line = format!("{:<16} width {width}  norm {length:.4}", site.to_string());
        if let Some(norm) = direction.residual_norm {
            line += &format!(" = {:.3}n, n = {norm:.4}: {}", length / norm, direction.unit_in_words());
        }
        if let Some(measured) = &direction.measured {
            line += &format!("; own median norm {:.4}", measured.site_norm);
            if let Some(place) = direction.place_of_zero() {
                line += &format!("; zero lies {place:.2} of the way from one class mean to the other");
            }
        }
        print(line)?;
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
        print_exact(serde_json::to_string(&rows)?)?;
    }
    Ok(Outcome::Done)
}

fn combine(
    operands: Operands,
    combine: fn(&Vector, &Vector) -> Result<Vector>,
    console: &Console,
) -> anyhow::Result<Outcome> {
    let ((header, a), (other, b)) = (Vector::load(&operands.a)?, Vector::load(&operands.b)?);
    let others = console.other_weights(operands.other_weights);
    others.check(operands.b.display(), "a vector", other.origin(), header.origin())?;
    // The result comes from one data set only if both do.
    let data_hash = header.data_hash.clone().filter(|hash| Some(hash) == other.data_hash.as_ref());
    combine(&a, &b)?.save(&operands.out, Header { data_hash, ..header })?;
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

fn import(arguments: Import, console: &Console) -> anyhow::Result<Outcome> {
    let Import { layer_shift, site, point, position, .. } = arguments;
    let placement = formats::Placement { layer_shift, site, point, position };
    let (header, vector) = formats::read(&arguments.file, &placement)?;
    vector.save(&arguments.out, header)?;
    console.say(format!("{} directions: {}", vector.directions.len(), arguments.out.display()));
    Ok(Outcome::Done)
}
