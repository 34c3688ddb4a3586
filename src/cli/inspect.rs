//! `pearl inspect`: a model's architecture, sizes and sites, from its config and the headers of its weights.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use clap::Args;
use serde_json::json;

use super::console::Console;
use super::model::ModelOptions;
use super::output::{Outcome, print_exact, print_line};
use pearlpoint::model::compute::backend::Backend;
use pearlpoint::model::{Architecture, Chat, Checkpoint, Dtype, Site, TensorRef};

#[derive(Args)]
#[command(after_help = "Example:
  pearl inspect organism")]
pub struct Arguments {
    /// The model: `organism` (embedded), a checkpoint folder, a GGUF file, ORG/NAME or ORG/NAME@REVISION of the hub
    #[arg(required_unless_present = "named", conflicts_with = "named")]
    model: Option<PathBuf>,
    /// The same, as other commands take it
    #[arg(long = "model", value_name = "MODEL")]
    named: Option<PathBuf>,
    #[command(flatten)]
    options: ModelOptions,
    /// Print the hash of the weights too, which reads all of them
    #[arg(long)]
    hash: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is said of a model.
struct Facts {
    name: String,
    hash: Option<String>,
    architecture: Architecture,
    chat: Chat,
    /// Number of tensors of each stored type.
    stored: BTreeMap<String, usize>,
    /// How matrices in safetensors are quantised.
    quantisation: Option<String>,
    places: Vec<TensorRef>,
    /// The type that most matrices would be kept in when loaded.
    dtype: String,
}

impl Facts {
    fn read(arguments: Arguments, console: &Console) -> anyhow::Result<Facts> {
        // The parser requires one of the two.
        let named = arguments.model.or(arguments.named).unwrap_or_default();
        let checkpoint = arguments.options.checkpoint(&named, console)?;
        let dtype = checkpoint.would_keep(arguments.options.dtype);
        let Checkpoint { name, architecture, chat, weights } = checkpoint;
        let mut stored = BTreeMap::new();
        for name in weights.names() {
            let kind = weights.stored_type(&name).unwrap_or_default();
            *stored.entry(kind).or_default() += 1;
        }
        let places = architecture.tensors()?;
        let quantisation = weights.quantisation().map(String::from);
        let hash = arguments.hash.then(|| weights.hash(&AtomicBool::new(false)));
        Ok(Facts { name, hash, architecture, chat, stored, quantisation, places, dtype })
    }

    /// Number of weights, embeddings counted once where they are tied.
    fn parameters(&self) -> usize {
        self.places.iter().map(numbers).sum()
    }

    /// Bytes of the weights with matrices in this type; vectors stay f32.
    fn memory(&self, dtype: Dtype) -> usize {
        let size = |place: &TensorRef| {
            numbers(place) * if place.is_vector() { Dtype::F32.size() } else { dtype.size() }
        };
        self.places.iter().map(size).sum()
    }

    /// Bytes of one token's keys and values in f32; none for a bidirectional model, which has no cache.
    fn cache(&self) -> Option<usize> {
        let a = &self.architecture;
        a.causal.then_some(2 * a.blocks.len() * a.kv_heads * a.head_width * 4)
    }
}

fn numbers(place: &TensorRef) -> usize {
    place.part_shape().iter().product()
}

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let as_json = arguments.json;
    let facts = Facts::read(arguments, console)?;
    let a = &facts.architecture;
    let sites = a.sites();
    if as_json {
        let widths: serde_json::Map<_, _> =
            sites.iter().map(|site| (site.to_string(), json!(a.site_width(*site)))).collect();
        let memory: serde_json::Map<_, _> =
            DTYPES.into_iter().map(|dtype| (dtype.to_string(), json!(facts.memory(dtype)))).collect();
        print_exact(serde_json::to_string_pretty(&json!({
            "model": facts.name, "hash": facts.hash, "family": a.family, "blocks": a.blocks.len(), "width": a.width,
            "heads": a.heads, "kv_heads": a.kv_heads, "head_width": a.head_width, "hidden": a.hidden,
            "vocabulary": a.vocabulary, "context": a.context, "parameters": facts.parameters(),
            "stored": facts.stored, "quantisation": facts.quantisation, "dtype": facts.dtype, "backend": Backend::chosen()?.name(), "memory": memory,
            "cache_per_token": facts.cache(), "template": facts.chat.template_place(),
            "tokenizer_class": facts.chat.tokenizer_class(),
            "ends": ends(&facts.chat), "ends_from": facts.chat.eos_place(), "sites": widths,
        }))?)?;
        return Ok(Outcome::Done);
    }
    let stored: Vec<String> = match facts.stored.len() {
        1 => facts.stored.keys().cloned().collect(),
        _ => facts.stored.iter().map(|(kind, count)| format!("{count} tensors {kind}")).collect(),
    };
    let kept = match &facts.quantisation {
        Some(method) => format!("{}, dequantised from {method}, when it is loaded", facts.dtype),
        None => facts.dtype.clone(),
    };
    let memory = DTYPES.map(|dtype| format!("{} in {dtype}", readable(facts.memory(dtype))));
    // Before the chat template.
    const TOKENIZER_LINE: usize = 9;
    let mut lines = vec![
        ("model", facts.name.clone()),
        ("family", a.family.clone()),
        ("parameters", grouped(facts.parameters())),
        ("blocks", a.blocks.len().to_string()),
        ("width", a.width.to_string()),
        ("heads", format!("{} of width {}, {} for keys and values", a.heads, a.head_width, a.kv_heads)),
        ("MLP width", a.hidden.to_string()),
        ("vocabulary", a.vocabulary.to_string()),
        ("context", format!("{} tokens", a.context)),
        ("chat template", facts.chat.template_place().unwrap_or("none").into()),
        ("ends", shown_ends(&facts.chat)),
        ("stored as", stored.join(", ")),
        ("kept in", kept),
        ("multiplied by", Backend::explained()?),
        ("weights take", memory.join(", ")),
        (
            "cache takes",
            facts.cache().map_or("nothing".into(), |bytes| format!("{} a token", readable(bytes))),
        ),
        ("sites", format!("{}:", sites.len())),
    ];
    if let Some(class) = facts.chat.tokenizer_class() {
        let shown = format!("{class}, whose own normalizer and pre-tokenizer count, as in transformers");
        lines.insert(TOKENIZER_LINE, ("tokenizer", shown));
    }
    lines.extend(shown_sites(a, &sites).into_iter().map(|line| ("", line)));
    lines.extend(facts.hash.clone().map(|hash| ("weights' hash", hash)));
    lines.into_iter().try_for_each(|(name, value)| print_line(format!("{name:<14} {value}")))?;
    Ok(Outcome::Done)
}

/// The end-of-sequence tokens, with their ids.
fn ends(chat: &Chat) -> Vec<serde_json::Value> {
    let token = |id: &u32| json!({"id": id, "text": chat.decode(&[*id], false).unwrap_or_default()});
    chat.eos().iter().map(token).collect()
}

/// The end-of-sequence tokens on one line, with the file that names them.
fn shown_ends(chat: &Chat) -> String {
    let token = |id: &u32| format!("{} ({id})", chat.decode(&[*id], false).unwrap_or_default());
    match chat.eos() {
        [] => "none".into(),
        ids => format!("{}, by {}", ids.iter().map(token).collect::<Vec<_>>().join(", "), chat.eos_place()),
    }
}

/// The sites with their widths, one line for a point of all blocks.
fn shown_sites(a: &Architecture, sites: &[Site]) -> Vec<String> {
    let mut lines: Vec<(String, usize, usize)> = Vec::new();
    for site in sites {
        let (name, width) = match site {
            Site::Block(_, point) => (format!("*.{}", point.name()), a.site_width(*site)),
            other => (other.to_string(), a.site_width(*other)),
        };
        match lines.iter_mut().find(|line| line.0 == name && line.1 == width) {
            Some((.., count)) => *count += 1,
            None => lines.push((name, width, 1)),
        }
    }
    let many = |count| if count > 1 { format!(", in {count} blocks") } else { String::new() };
    lines.into_iter().map(|(name, width, count)| format!("{name} of width {width}{}", many(count))).collect()
}

/// A number with its digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let groups = Some(head.to_owned()).filter(|head| !head.is_empty()).into_iter().chain(groups);
    groups.collect::<Vec<_>>().join(",")
}

/// Bytes in the largest unit that fits.
fn readable(bytes: usize) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}
