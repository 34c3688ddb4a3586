//! `pearl probe cosines`: how the directions of probes lie to each other.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::output::{Outcome, print, print_exact};
use pearlpoint::artifact;
use pearlpoint::error::Error;
use pearlpoint::plots::cosines;
use pearlpoint::probe::{Link, Probe};
use pearlpoint::report::{self, Table, table::Column};

#[derive(Args)]
#[command(after_help = "Example:
  pearl probe cosines user-type.safetensors --out cosines")]
pub struct Cosines {
    /// Probe files, of one model and width
    #[arg(required = true)]
    probes: Vec<PathBuf>,
    /// Folder for a heat map
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Cosines) -> anyhow::Result<Outcome> {
    let (mut names, mut directions) = (Vec::new(), Vec::<Vec<f64>>::new());
    for path in &arguments.probes {
        let probe = Probe::load(path)?;
        // All heads of an ordinal probe have one direction.
        let count = if probe.link == Link::Ordinal { 1 } else { probe.heads().len() };
        for (head, weight) in probe.heads().iter().zip(probe.weight.rows()).take(count) {
            let width = directions.first().map_or(weight.len(), Vec::len);
            if weight.len() != width {
                let found = format!("weights of width {}", weight.len());
                let expected = format!("width {width}, as the first probe's");
                return Err(Error::input(path.display(), found, expected).into());
            }
            let label = &probe.source.label;
            let name = if count == 1 { label.clone() } else { format!("{label}/{head}") };
            names.push(format!("{name} at {}", probe.source.site));
            directions.push(weight.iter().map(|&w| f64::from(w)).collect());
        }
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let matrix: Vec<Vec<f64>> =
        directions.iter().map(|a| directions.iter().map(|b| cosine(a, b)).collect()).collect();
    if let Some(folder) = &arguments.out {
        let chart = serde_json::to_vec(&cosines::chart(&cosines::Cosines {
            names: names.clone(),
            cosines: matrix.clone(),
        }))?;
        artifact::write_atomic(&folder.join("cosines.chart.json"), |file| file.write_all(&chart))?;
        report::draw_all(folder)?;
    }
    if arguments.json {
        print_exact(serde_json::to_string_pretty(&json!({"directions": names, "cosines": matrix}))?)?;
        return Ok(Outcome::Done);
    }
    let mut columns = vec![Column::text("direction")];
    columns.extend((1..=names.len()).map(|number| Column::numbers(&number.to_string())));
    let rows = names.iter().zip(&matrix).enumerate().map(|(number, (name, row))| {
        let cells = row.iter().map(|value| format!("{value:.2}"));
        std::iter::once(format!("{} {name}", number + 1)).chain(cells).collect()
    });
    print(Table { caption: String::new(), columns, rows: rows.collect() }.to_text()?)?;
    Ok(Outcome::Done)
}
