//! `pearl boundary cross`: the representational and the behavioural boundary between twins, a site at a time.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, save_chart};
use crate::cli::dialogues::Source;
use crate::cli::model::Choice;
use crate::cli::print;
use crate::cli::progress::Console;
use pearlpoint::analysis::interpolation::{self, Summary, interpolate, twins};
use pearlpoint::artifact::{self, Header};
use pearlpoint::boundary::Search;
use pearlpoint::judge;
use pearlpoint::plots;
use pearlpoint::plots::interpolation::InterpolationTable;
use pearlpoint::probe::Probe;
use pearlpoint::report::{self, Table, table::Column};
use pearlpoint::stats::Interval;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: Choice,
    #[command(flatten)]
    source: Source,
    /// The label whose value two twins share: the first of them in the file is where the way begins
    #[arg(long, default_value = "pair")]
    pair: String,
    /// Probes of one label, each at the site that it was fitted at; all of a sweep with --probe again and again
    #[arg(long = "probe", required = true)]
    probes: Vec<PathBuf>,
    /// A phrase of the model's refusals, again and again for several: an answer with one of them refuses, any other answers. Left out,
    /// the organism's own judge judges the embedded model, and common phrases of refusals any other
    #[arg(long = "refusal", value_name = "TEXT")]
    refusals: Vec<String>,
    /// Parts of the way that are looked at before the first change is halved
    #[arg(long, default_value_t = Search::default().parts)]
    parts: usize,
    /// Halvings
    #[arg(long, default_value_t = Search::default().halvings)]
    halvings: usize,
    #[arg(long, default_value_t = 60)]
    max_tokens: usize,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the tables and pictures
    #[arg(long)]
    out: PathBuf,
    /// Print the sites' summaries as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    let data = arguments.source.read()?;
    let pairs = twins(&data.dialogues, &arguments.pair, &data.path.display().to_string())?;
    let probes = arguments.probes.iter().map(|path| Probe::load(path)).collect::<Result<Vec<_>, _>>()?;
    let model = arguments.model.open(talk)?;
    let options = judge::Options { refusals: arguments.refusals.clone() };
    let judge = judge::of_file(None, &options, &model.name)?;
    let options = interpolation::Options {
        search: Search { parts: arguments.parts, halvings: arguments.halvings },
        max_tokens: arguments.max_tokens,
        thinking: arguments.no_think.then_some(false),
        seed: arguments.seed,
    };
    let bar = talk.bar(1, "answering");
    let found = interpolate(&model, judge.as_ref(), &pairs, &probes, &options, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.stage);
        talk.should_continue()
    })?;
    bar.finish_and_clear();
    let summaries = found.summaries(arguments.seed);
    let header = Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        data_hash: Some(data.hash),
        seed: Some(arguments.seed),
        ..Header::new("crossing", 1)
    };
    artifact::write_json(&arguments.out.join("crossing.json"), &header, &found)?;
    let drawn = InterpolationTable { found, summaries };
    if drawn.has_flips() {
        save_chart(&arguments.out, "crossing", &plots::interpolation::chart(&drawn))?;
    }
    save_chart(&arguments.out, "crossing-shares", &plots::interpolation::shares(&drawn))?;
    let InterpolationTable { found, summaries } = drawn;
    report::draw_all(&arguments.out)?;
    if arguments.json {
        print(serde_json::to_string_pretty(&summaries)?)?;
    } else {
        print(table(&found.label, found.pairs, found.given, &summaries).to_text()?)?;
    }
    Ok(Outcome::Done)
}

fn table(label: &str, pairs: usize, given: usize, summaries: &[Summary]) -> Table {
    let interval = |interval: Option<Interval>| {
        interval.map_or(String::new(), |i| {
            format!("{:.3} [{:.3}, {:.3}]", i.value, i.low, i.high).replace('-', "−")
        })
    };
    let row = |summary: &Summary| {
        vec![
            summary.site.to_string(),
            format!("{}", summary.probe_flips),
            interval(summary.probe_at),
            format!("{}", summary.model_flips),
            format!("{}", summary.model_breaks),
            format!("{}", summary.control_flips),
            interval(summary.model_at),
            interval(summary.gap),
            interval(summary.gap_units),
        ]
    };
    Table {
        caption: format!("{label}: {pairs} of {given} pairs are answered by different strategies"),
        columns: vec![
            Column::text("site"),
            Column::numbers("probe flips"),
            Column::text("at"),
            Column::numbers("answer flips"),
            Column::numbers("breaks"),
            Column::numbers("at random"),
            Column::text("at"),
            Column::text("gap (share)"),
            Column::text("gap (units)"),
        ],
        rows: summaries.iter().map(row).collect(),
    }
}
