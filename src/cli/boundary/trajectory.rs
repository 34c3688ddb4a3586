//! `pearl boundary trajectory`: the path of a dialogue over the risk map, a point a round.

use std::cmp::Reverse;
use std::path::PathBuf;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::dialogues::{Source, by_id};
use crate::cli::model::ModelChoice;
use crate::cli::output::{Outcome, draw_and_print, header, save_chart};
use pearlpoint::analysis::token_readout;
use pearlpoint::artifact::{self, FolderLock, Header};
use pearlpoint::boundary::RiskMap;
use pearlpoint::error::Error;
use pearlpoint::plots::trajectory::{self, Trajectories};
use pearlpoint::probe::Probe;

#[derive(Args)]
#[command(after_help = "Example:
  pearl boundary trajectory --data data.jsonl --probe user-type.safetensors --risk-map boundary/map.json --out trajectory")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    source: Source,
    /// The probe that the risk map is of
    #[arg(long, value_name = "FILE")]
    probe: PathBuf,
    /// A risk map, made by `pearl boundary map` (map.json)
    #[arg(long, value_name = "FILE")]
    risk_map: PathBuf,
    /// Ids of the dialogues to follow [default: the one with the most rounds]
    #[arg(long, value_delimiter = ',')]
    ids: Vec<String>,
    /// Folder for drift.json and its chart
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let data = arguments.source.read(console)?;
    let probe = Probe::load(&arguments.probe)?;
    let (_, map): (Header, RiskMap) = artifact::read_json(&arguments.risk_map, "map", 1)?;
    if map.label != probe.source.label || map.site != probe.source.site.to_string() {
        let found = format!("a map of {} at {}", map.label, map.site);
        let expected = format!("one of the probe's, {} at {}", probe.source.label, probe.source.site);
        return Err(Error::input(arguments.risk_map.display(), found, expected).into());
    }
    let dialogues = match arguments.ids.as_slice() {
        // Of equals the first.
        [] => {
            data.dialogues.iter().min_by_key(|one| Reverse(one.messages.len())).into_iter().cloned().collect()
        }
        ids => ids
            .iter()
            .map(|id| by_id(&data.dialogues, "--ids", id).cloned())
            .collect::<Result<Vec<_>, _>>()?,
    };
    let model = arguments.model.load(console)?;
    let thinking = arguments.model.thinking();
    let drifts = token_readout::trajectories(&model, &dialogues, &probe, &map.plane, thinking)?;
    let table = token_readout::Trajectories { drifts: &drifts };
    artifact::write_json(&arguments.out.join("drift.json"), &header("drift", &model), &table)?;
    save_chart(&arguments.out, "drift", &trajectory::chart(&Trajectories { map, drifts }))?;
    draw_and_print(&arguments.out)
}
