//! `pearl boundary`: the plane on which a probe decides, as a table and as a picture.

use std::path::PathBuf;

use clap::Args;

use super::dialogues::Source;
use super::progress::Talk;
use super::{Outcome, print};
use crate::activations;
use crate::artifact;
use crate::experiment::{charts, map_of, probing::label};
use crate::probe::Probe;
use crate::report;

#[derive(Args)]
pub struct Arguments {
    /// A store that `pearl extract` made
    #[arg(long)]
    store: PathBuf,
    #[command(flatten)]
    source: Source,
    /// A probe that `pearl probe fit` made
    #[arg(long)]
    probe: PathBuf,
    /// The first axis runs from this class …
    #[arg(long)]
    from: String,
    /// … to this one
    #[arg(long)]
    to: String,
    /// Folder for the map's tables (map.json, map.chart.json) and pictures (map.svg, map.png)
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: Arguments, _: &Talk) -> anyhow::Result<Outcome> {
    let (header, _, activations) = activations::load(&arguments.store)?;
    let data = arguments.source.read()?;
    let activations = activations::of_dialogues(&arguments.store, &header, activations, &data)?;
    let probe = Probe::load(&arguments.probe)?;
    let labels =
        activations.example.iter().map(|&example| label(&data.dialogues[example], &probe.source.label));
    let labels = labels.collect::<Result<Vec<_>, _>>()?;
    let points = activations.at(probe.source.site)?;
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let map = map_of(&probe, points.view(), &labels, &arguments.from, &arguments.to)?;
    artifact::write_json(
        &arguments.out.join("map.json"),
        &artifact::Header { kind: "map".into(), ..header },
        &map,
    )?;
    let chart = serde_json::to_vec(&charts::risk_map(&map))?;
    artifact::write_whole(&arguments.out.join("map.chart.json"), |file| file.write_all(&chart))?;
    report::draw_all(&arguments.out)?;
    print(arguments.out.join("map.svg").display())?;
    Ok(Outcome::Done)
}
