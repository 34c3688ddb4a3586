//! `pearl boundary tokens` and `pearl boundary drift`: a dialogue under a probe's eye.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, save, save_chart};
use crate::cli::dialogues::{Prompts, Source};
use crate::cli::model::Choice;
use crate::cli::print;
use crate::cli::progress::Console;
use pearlpoint::analysis::token_readout;
use pearlpoint::artifact::{self, Header};
use pearlpoint::boundary::RiskMap;
use pearlpoint::error::Error;
use pearlpoint::model::Model;
use pearlpoint::plots::token_map;
use pearlpoint::plots::trajectory::{self, Trajectories};
use pearlpoint::probe::Probe;
use pearlpoint::report;

#[derive(Args)]
pub struct Tokens {
    #[command(flatten)]
    model: Choice,
    #[command(flatten)]
    prompts: Prompts,
    /// The dialogue's id, where the file holds several; the first where none is named
    #[arg(long)]
    id: Option<String>,
    /// Probes of one label, each at the site that it was fitted at: a row of the heat map each, the last one's for the strip
    #[arg(long = "probe", required = true)]
    probes: Vec<PathBuf>,
    /// The class whose probability is shown
    #[arg(long)]
    class: String,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
    /// Folder for tokens.json, the heat map and the strip
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
pub struct Drift {
    #[command(flatten)]
    model: Choice,
    #[command(flatten)]
    source: Source,
    /// The probe that the map was drawn for
    #[arg(long)]
    probe: PathBuf,
    /// A map that `pearl boundary` made (map.json)
    #[arg(long)]
    risk_map: PathBuf,
    /// Ids of the dialogues to follow; the one of most rounds where none is named
    #[arg(long, value_delimiter = ',')]
    ids: Vec<String>,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
    /// Folder for drift.json and its picture
    #[arg(long)]
    out: PathBuf,
}

/// Dialogues that are followed where none is named.
const FOLLOWED: usize = 1;

pub fn tokens(arguments: Tokens, talk: &Console) -> anyhow::Result<Outcome> {
    let dialogues = arguments.prompts.read()?;
    let wanted = |id: &String| dialogues.iter().find(|dialogue| dialogue.id == *id);
    let dialogue = match &arguments.id {
        Some(id) => wanted(id)
            .ok_or_else(|| Error::input("--id", format!("no dialogue {id}"), "one of the file's"))?,
        None => dialogues.first().ok_or_else(|| Error::input("--data", "no dialogue", "one or more"))?,
    };
    let mut probes = arguments.probes.iter().map(|path| Probe::load(path)).collect::<Result<Vec<_>, _>>()?;
    probes.sort_by_key(|probe| probe.source.site);
    let model = arguments.model.open(talk)?;
    let thinking = arguments.no_think.then_some(false);
    let watched = token_readout::read_tokens(&model, dialogue, &probes, &arguments.class, thinking)?;
    artifact::write_json(&arguments.out.join("tokens.json"), &header("tokens", &model), &watched)?;
    let threshold = probes.last().and_then(|probe| probe.threshold.get(&arguments.class).copied());
    save_chart(&arguments.out, "tokens", &token_map::chart(&watched))?;
    save(&arguments.out.join("tokens.strip.json"), &token_map::strip(&watched, threshold))?;
    for drawn in report::draw_all(&arguments.out)? {
        print(drawn.display())?;
    }
    Ok(Outcome::Done)
}

pub fn drift(arguments: Drift, talk: &Console) -> anyhow::Result<Outcome> {
    let data = arguments.source.read()?;
    let probe = Probe::load(&arguments.probe)?;
    let (_, map): (Header, RiskMap) = artifact::read_json(&arguments.risk_map, "map", 1)?;
    if map.label != probe.source.label || map.site != probe.source.site.to_string() {
        let found = format!("a map of {} at {}", map.label, map.site);
        let expected = format!("one of the probe's, {} at {}", probe.source.label, probe.source.site);
        return Err(Error::input(arguments.risk_map.display(), found, expected).into());
    }
    let dialogues = match arguments.ids.as_slice() {
        [] => {
            let mut longest: Vec<_> = data.dialogues.iter().collect();
            longest.sort_by_key(|dialogue| std::cmp::Reverse(dialogue.messages.len()));
            longest.into_iter().take(FOLLOWED).cloned().collect()
        }
        ids => {
            let find = |id: &String| {
                let found = data.dialogues.iter().find(|dialogue| dialogue.id == *id).cloned();
                found.ok_or_else(|| Error::input("--ids", format!("no dialogue {id}"), "ids of the file's"))
            };
            ids.iter().map(find).collect::<Result<Vec<_>, _>>()?
        }
    };
    let model = arguments.model.open(talk)?;
    let thinking = arguments.no_think.then_some(false);
    let drifts = token_readout::trajectories(&model, &dialogues, &probe, &map.plane, thinking)?;
    artifact::write_json(
        &arguments.out.join("drift.json"),
        &header("drift", &model),
        &token_readout::Trajectories { drifts: &drifts },
    )?;
    save_chart(&arguments.out, "drift", &trajectory::chart(&Trajectories { map, drifts }))?;
    for drawn in report::draw_all(&arguments.out)? {
        print(drawn.display())?;
    }
    Ok(Outcome::Done)
}

fn header(kind: &str, model: &Model) -> Header {
    let (name, hash) = (Some(model.name.clone()), Some(model.hash.clone()));
    Header { model: name, model_hash: hash, ..Header::new(kind, 1) }
}
