//! `pearl probe scatter`: states on their first two principal components.

use std::path::PathBuf;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::output::{Outcome, draw_and_print, print_exact, save_chart};
use crate::cli::states::StoreSource;
use pearlpoint::analysis::pca_scatter::PcaScatter;
use pearlpoint::artifact::{self, FolderLock, Header};
use pearlpoint::model::Site;
use pearlpoint::plots;

#[derive(Args)]
#[command(after_help = "Example:
  pearl probe scatter --store store --data data.jsonl --label user-type --site 3.resid_post --out scatter")]
pub struct Scatter {
    #[command(flatten)]
    states: StoreSource,
    /// The label that colours the points
    #[arg(long)]
    label: String,
    /// The site [default: the store's last]
    #[arg(long)]
    site: Option<Site>,
    /// Folder for scatter.json and the chart
    #[arg(long)]
    out: PathBuf,
    /// Print scatter.json
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Scatter, console: &Console) -> anyhow::Result<Outcome> {
    let states = arguments.states.open(console)?;
    let _lock = FolderLock::take(&arguments.out)?;
    // A store has at least one site.
    let site = arguments.site.or(states.sites().last().copied()).unwrap_or(Site::Embed);
    let scatter = PcaScatter::of(&states, site, &arguments.label)?;
    let header = Header { kind: "pca-scatter".into(), version: 1, ..states.header().clone() };
    artifact::write_json(&arguments.out.join("scatter.json"), &header, &scatter)?;
    save_chart(&arguments.out, "scatter", &plots::pca_scatter::chart(&scatter))?;
    if arguments.json {
        print_exact(serde_json::to_string(&scatter)?)?;
        pearlpoint::report::draw_all(&arguments.out)?;
        return Ok(Outcome::Done);
    }
    draw_and_print(&arguments.out)
}
