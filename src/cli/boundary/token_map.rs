//! `pearl boundary token-map`: a class's probability at every token of one dialogue, at several sites.

use std::path::PathBuf;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::dialogues::{Prompts, by_id};
use crate::cli::model::ModelChoice;
use crate::cli::output::{Outcome, draw_and_print, header, save, save_chart};
use pearlpoint::analysis::token_readout;
use pearlpoint::artifact::{self, FolderLock};
use pearlpoint::error::Error;
use pearlpoint::plots::token_map;
use pearlpoint::probe::Probe;

#[derive(Args)]
#[command(after_help = "Example:
  pearl boundary token-map --data data.jsonl --limit 1 --probe user-type.safetensors --class malicious --out token-map")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    prompts: Prompts,
    /// The dialogue's id [default: the file's first]
    #[arg(long)]
    id: Option<String>,
    /// A probe, read at the site that it was fitted at; repeat it for a row of the heat map each
    #[arg(long = "probe", value_name = "FILE", required = true)]
    probes: Vec<PathBuf>,
    /// The class whose probability is shown
    #[arg(long)]
    class: String,
    /// Folder for tokens.json, the heat map and the token strip (of the last site)
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let dialogues = arguments.prompts.read(console)?;
    let dialogue = match &arguments.id {
        Some(id) => by_id(&dialogues, "--id", id)?,
        None => dialogues.first().ok_or_else(|| Error::input("--data", "no dialogue", "one or more"))?,
    };
    let mut probes = arguments.probes.iter().map(|path| Probe::load(path)).collect::<Result<Vec<_>, _>>()?;
    probes.sort_by_key(|probe| probe.source.site);
    // A wrong class is said before the model is loaded.
    probes.iter().try_for_each(|probe| probe.class(&arguments.class).map(drop))?;
    let model = arguments.model.load(console)?;
    let thinking = arguments.model.thinking();
    let readout = token_readout::read_tokens(&model, dialogue, &probes, &arguments.class, thinking)?;
    artifact::write_json(&arguments.out.join("tokens.json"), &header("tokens", &model), &readout)?;
    let threshold = probes.last().and_then(|probe| probe.threshold.get(&arguments.class).copied());
    save_chart(&arguments.out, "tokens", &token_map::chart(&readout))?;
    save(&arguments.out.join("tokens.strip.json"), &token_map::strip(&readout, threshold))?;
    draw_and_print(&arguments.out)
}
