//! `pearl probe grid`: AUROC by site and selector, from a store a selector.

use std::path::PathBuf;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::dialogues::Source;
use crate::cli::output::{Outcome, draw_and_print, print, print_exact, save_chart};
use pearlpoint::activations::{Labelled, Store};
use pearlpoint::analysis::auroc_grid::AurocGrid;
use pearlpoint::artifact::{self, FolderLock, Header};
use pearlpoint::plots;
use pearlpoint::probe::{ValidationPlan, defaults, method_names};
use pearlpoint::report::{Table, table::Column};

#[derive(Args)]
#[command(after_help = "Example:
  pearl extract --data data.jsonl --tokens assistant.start --out at-start
  pearl extract --data data.jsonl --tokens \"mean(user)\" --out over-user
  pearl probe grid --store at-start --store over-user --data data.jsonl --label user-type --group topic --out grid")]
pub struct Grid {
    /// Stores of the same dialogues, one a selector; may be repeated
    #[arg(long = "store", value_name = "FOLDER", required = true)]
    stores: Vec<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// The label to predict
    #[arg(long)]
    label: String,
    /// The label to group by: no group is on both sides of a split [default: each dialogue is a group]
    #[arg(long)]
    group: Option<String>,
    /// Groups to test on; never fitted or chosen on [default: scores are out of fold]
    #[arg(long, value_delimiter = ',', requires = "group")]
    held_out: Vec<String>,
    /// Sites to fit at [default: all of each store]
    #[arg(long)]
    sites: Option<String>,
    #[arg(long, default_value = defaults::METHOD, help = method_names())]
    method: String,
    /// Seed of folds, intervals and controls
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for grid.json and the heat map
    #[arg(long)]
    out: PathBuf,
    /// Print grid.json
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Grid, console: &Console) -> anyhow::Result<Outcome> {
    arguments.stores.iter().try_for_each(|folder| Store::open(folder).map(drop))?;
    let _lock = FolderLock::take(&arguments.out)?;
    let data = arguments.source.read(console)?;
    let bar = console.bar(1, "fitting");
    let (mut sweeps, mut header) = (Vec::new(), None);
    for folder in &arguments.stores {
        let states = Labelled::open(folder, data.clone())?;
        header = header.or_else(|| Some(states.header().clone()));
        let tokens = states.tokens().clone();
        let plan = ValidationPlan { seed: arguments.seed, ..ValidationPlan::default() };
        let mut builder = states
            .into_probe(&arguments.label)
            .hold_out(arguments.held_out.clone())
            .method(&arguments.method, &[])?
            .plan(plan)
            .on_progress(|progress| bar.show(progress));
        if let Some(group) = &arguments.group {
            builder = builder.group(group);
        }
        if let Some(sites) = &arguments.sites {
            builder = builder.sites(sites);
        }
        sweeps.push((tokens, builder.fit()?.as_sweep().table()?));
    }
    drop(bar);
    let grid = AurocGrid::new(sweeps)?;
    let header = header.unwrap_or_else(|| Header::new("auroc-grid", 1));
    let header = Header { kind: "auroc-grid".into(), version: 1, ..header };
    artifact::write_json(&arguments.out.join("grid.json"), &header, &grid)?;
    save_chart(&arguments.out, "grid", &plots::auroc_grid::chart(&grid))?;
    if arguments.json {
        print_exact(serde_json::to_string(&grid)?)?;
        pearlpoint::report::draw_all(&arguments.out)?;
        return Ok(Outcome::Done);
    }
    print(table(&grid).to_text()?)?;
    draw_and_print(&arguments.out)
}

/// AUROC by selector, a column a site.
fn table(grid: &AurocGrid) -> Table {
    let mut columns = vec![Column::text("tokens")];
    columns.extend(grid.sites.iter().map(|site| Column::numbers(&site.to_string())));
    columns.push(Column::numbers("ngram"));
    let rows = grid.rows.iter().map(|row| {
        let cell = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.3}"));
        let values = row.auroc.iter().map(|auroc| cell(auroc.as_ref().map(|auroc| auroc.value)));
        std::iter::once(row.tokens.to_string()).chain(values).chain([cell(Some(row.ngram))]).collect()
    });
    let caption = format!("AUROC of {} ({})", grid.label, grid.split);
    Table { caption, columns, rows: rows.collect() }
}
