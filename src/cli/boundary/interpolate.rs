//! `pearl boundary interpolate`: the representational and the behavioural boundary between contrast pairs, site by site.

use std::path::PathBuf;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::dialogues::Source;
use crate::cli::judge_choice::JudgeChoice;
use crate::cli::model::ModelChoice;
use crate::cli::output::{Outcome, header, print, print_exact, save_chart};
use pearlpoint::analysis::interpolation::{self, Interpolations, Summary, interpolate, twins};
use pearlpoint::artifact::{self, FolderLock, Header};
use pearlpoint::boundary::Search;
use pearlpoint::judge;
use pearlpoint::plots;
use pearlpoint::plots::interpolation::InterpolationTable;
use pearlpoint::probe::Probe;
use pearlpoint::report::{self, Table, table::Column};
use pearlpoint::stats::Interval;

#[derive(Args)]
#[command(after_help = "Example:
  pearl organism pairs --contrast deed --count 20 --out pairs.jsonl
  pearl boundary interpolate --data pairs.jsonl --probe user-type.safetensors --out interpolation")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    source: Source,
    /// The label whose value the two dialogues of a pair share; the first in the file is where the path begins
    #[arg(long, default_value = "pair")]
    pair: String,
    /// A probe, at the site that it was fitted at; repeat it for several sites
    #[arg(long = "probe", value_name = "FILE", required = true)]
    probes: Vec<PathBuf>,
    #[command(flatten)]
    judge: JudgeChoice,
    /// Steps of the path that are looked at before the first change is bisected
    #[arg(long, default_value_t = Search::default().parts)]
    parts: usize,
    /// Bisections of the first change
    #[arg(long, default_value_t = Search::default().halvings)]
    halvings: usize,
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = interpolation::Options::default().max_tokens)]
    max_tokens: usize,
    /// Seed of the random control and the intervals
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the tables and charts
    #[arg(long)]
    out: PathBuf,
    /// Print the sites' summaries as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let _lock = FolderLock::take(&arguments.out)?;
    let data = arguments.source.read(console)?;
    let pairs = twins(&data.dialogues, &arguments.pair, &data.path.display().to_string())?;
    let probes = arguments.probes.iter().map(|path| Probe::load(path)).collect::<Result<Vec<_>, _>>()?;
    arguments.judge.check()?;
    let model = arguments.model.load(console)?;
    let judge = arguments.judge.of(&model)?;
    judge::check_dialogues(judge.as_ref(), &data.dialogues)?;
    let options = interpolation::Options {
        search: Search { parts: arguments.parts, halvings: arguments.halvings },
        max_tokens: arguments.max_tokens,
        thinking: arguments.model.thinking(),
        seed: arguments.seed,
    };
    let bar = console.bar(1, "answering");
    let found =
        interpolate(&model, judge.as_ref(), &pairs, &probes, &options, &mut |progress| bar.show(progress))?;
    drop(bar);
    let summaries = found.summaries(arguments.seed);
    let header =
        Header { data_hash: Some(data.hash), seed: Some(arguments.seed), ..header("crossing", &model) };
    artifact::write_json(&arguments.out.join("crossing.json"), &header, &found)?;
    let drawn = InterpolationTable { found, summaries };
    if drawn.has_flips() {
        save_chart(&arguments.out, "crossing", &plots::interpolation::chart(&drawn))?;
    }
    save_chart(&arguments.out, "crossing-shares", &plots::interpolation::shares(&drawn))?;
    let InterpolationTable { found, summaries } = drawn;
    report::draw_all(&arguments.out)?;
    match arguments.json {
        true => print_exact(serde_json::to_string_pretty(&summaries)?)?,
        false => print(table(&found, &summaries).to_text()?)?,
    }
    Ok(Outcome::Done)
}

fn table(found: &Interpolations, summaries: &[Summary]) -> Table {
    let interval = |interval: Option<Interval>| {
        interval.map_or(String::new(), |i| {
            format!("{:.3} [{:.3}, {:.3}]", i.value, i.low, i.high).replace('-', "−")
        })
    };
    let row = |summary: &Summary| {
        vec![
            summary.site.to_string(),
            summary.probe_flips.to_string(),
            summary.probe_others.to_string(),
            interval(summary.probe_at),
            summary.model_flips.to_string(),
            summary.model_others.to_string(),
            summary.model_breaks.to_string(),
            summary.control_flips.to_string(),
            interval(summary.model_at),
            interval(summary.gap),
            interval(summary.gap_units),
        ]
    };
    Table {
        caption: match found.pairs {
            0 => format!("{}: {}", found.label, found.searched()),
            pairs => format!(
                "{}: {pairs} of {} pairs are answered by different strategies",
                found.label, found.given
            ),
        },
        columns: vec![
            Column::text("site"),
            Column::numbers("probe flips"),
            Column::numbers("other changes"),
            Column::text("at"),
            Column::numbers("answer flips"),
            Column::numbers("other changes"),
            Column::numbers("breaks"),
            Column::numbers("at random"),
            Column::text("at"),
            Column::text("gap (share)"),
            Column::text("gap (units)"),
        ],
        rows: summaries.iter().map(row).collect(),
    }
}
