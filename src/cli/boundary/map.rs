//! `pearl boundary` itself: the map, the margins, the honesty and the thresholds of one probe, over a store.

use std::path::PathBuf;

use clap::Args;
use ndarray::Axis;

use super::{Outcome, save_chart};
use crate::cli::dialogues::Filter;
use crate::cli::print;
use crate::cli::progress::Console;
use pearlpoint::activations;
use pearlpoint::analysis::boundary_report;
use pearlpoint::analysis::boundary_report::{Question, Report, Rows};
use pearlpoint::boundary::{ErrorKind, Margin, RiskBound};
use pearlpoint::error::Error;
use pearlpoint::experiment::boundary_stages;
use pearlpoint::plots::risk_map;
use pearlpoint::probe::Probe;
use pearlpoint::report::{self, Table, table::Column};

// What is required is an option here, for the subcommands beside it go without.
#[derive(Args)]
pub struct Arguments {
    /// A store that `pearl extract` made
    #[arg(long, required = true)]
    store: Option<PathBuf>,
    /// Dialogues: JSON Lines, CSV or TSV
    #[arg(long, required = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    /// A probe that `pearl probe fit` made
    #[arg(long, required = true)]
    probe: Option<PathBuf>,
    /// The map's first axis runs from this class …
    #[arg(long, required = true)]
    from: Option<String>,
    /// … to this one
    #[arg(long, required = true)]
    to: Option<String>,
    /// The label that the probe's groups are values of: only dialogues of groups that were held out are looked at
    #[arg(long)]
    group: Option<String>,
    /// The class whose region is the safe one; --from where it is not given
    #[arg(long)]
    safe: Option<String>,
    /// Choose a threshold that keeps the miss rate of a class at or below this …
    #[arg(long)]
    alpha: Option<f64>,
    /// … with confidence 1 − this
    #[arg(long, default_value_t = 0.1, requires = "alpha")]
    delta: f64,
    /// Promise the expected rate only (conformal risk control)
    #[arg(long, requires = "alpha", conflicts_with = "delta")]
    expected: bool,
    /// Keep the false alarms rare instead of the misses
    #[arg(long, requires = "alpha")]
    false_alarms: bool,
    /// The class that the threshold flags; --to where it is not given
    #[arg(long, requires = "alpha")]
    flag: Option<String>,
    /// Resamplings that the promise is tried on
    #[arg(long, default_value_t = 200, requires = "alpha")]
    resamplings: usize,
    /// List so many of the examples nearest to the boundary, to be labelled next
    #[arg(long, default_value_t = 20)]
    next: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the tables and pictures
    #[arg(long, required = true)]
    out: Option<PathBuf>,
    /// Print the card as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    let missing = |name: &'static str| move || Error::input("pearl boundary", format!("no {name}"), "one");
    let store = arguments.store.ok_or_else(missing("--store"))?;
    let out = arguments.out.ok_or_else(missing("--out"))?;
    let from = arguments.from.ok_or_else(missing("--from"))?;
    let to = arguments.to.ok_or_else(missing("--to"))?;
    let (header, _, activations) = activations::load(&store)?;
    let data = arguments.filter.read(&arguments.data.ok_or_else(missing("--data"))?)?;
    let activations = activations::of_dialogues(&store, &header, activations, &data)?;
    let mut probe = Probe::load(&arguments.probe.ok_or_else(missing("--probe"))?)?;
    let of = |row: usize| &data.dialogues[activations.example[row]];
    let all = 0..activations.example.len();
    // Rows that the probe was fitted on can promise nothing.
    let seen = header.data_hash.is_some() && header.data_hash == probe.source.data_hash;
    let (kept, split): (Vec<usize>, String) = match &arguments.group {
        Some(group) => {
            let held =
                |row: &usize| of(*row).label(group).is_some_and(|value| probe.held_out.contains(&value));
            (all.filter(held).collect(), format!("{group} held out"))
        }
        None if seen && arguments.alpha.is_some() => {
            let found = "dialogues that the probe was fitted on among the store's, which promise nothing";
            let expected =
                "--group LABEL, to take those of held-out groups alone, or a store of other dialogues";
            return Err(Error::input("--alpha", found, expected).into());
        }
        None if seen => (all.collect(), "fitted on and held out together".into()),
        None => (all.collect(), "other dialogues than it was fitted on".into()),
    };
    if kept.is_empty() {
        let found = format!("no dialogue of the groups held out ({})", probe.held_out.join(", "));
        return Err(Error::input(store.display(), found, "the label that the probe was grouped by").into());
    }
    let rows = Rows {
        states: activations.at(probe.source.site)?.select(Axis(0), &kept),
        ids: kept.iter().map(|&row| of(row).id.clone()).collect(),
        labels: kept.iter().map(|&row| boundary_report::label(of(row), &probe)).collect(),
        split,
    };
    let guarantee = if arguments.false_alarms { ErrorKind::FalseAlarm } else { ErrorKind::Miss };
    let promise = arguments.alpha.map(|alpha| match arguments.expected {
        true => RiskBound::expected(guarantee, alpha),
        false => RiskBound::confident(guarantee, alpha, arguments.delta),
    });
    let question = Question {
        safe: arguments.safe.unwrap_or_else(|| from.clone()),
        flag: arguments.flag.unwrap_or_else(|| to.clone()),
        from,
        to,
        promise,
        resamplings: arguments.resamplings,
        next: arguments.next,
        seed: arguments.seed,
    };
    let found = boundary_report::report(&probe, &rows, &question)?;
    boundary_stages::save_report(&out, &header, &found)?;
    save_chart(&out, "map", &risk_map::chart(&found.map))?;
    for (name, chart) in boundary_stages::report_charts(&probe, &found) {
        save_chart(&out, &name, &chart)?;
    }
    if let Some(flagged) = &found.card.flagged {
        // The probe with its threshold, for whoever calls it.
        probe.threshold.insert(flagged.class.clone(), flagged.threshold.value);
        probe.save(&out.join("probe.safetensors"))?;
    }
    report::draw_all(&out)?;
    if arguments.json {
        print(serde_json::to_string_pretty(&found.card)?)?;
    } else {
        show(&found)?;
    }
    talk.say(format!("map, margins and reliability as tables and pictures: {}", out.display()));
    Ok(Outcome::Done)
}

fn show(found: &Report) -> anyhow::Result<()> {
    let card = &found.card;
    print(format!(
        "{} at {}, {} ({} rows, {} with a label)",
        card.label, card.site, card.split, card.rows, card.labelled
    ))?;
    let interval = |figure: &pearlpoint::stats::Metric| match (figure.low, figure.high) {
        (Some(low), Some(high)) => format!("{:.3} [{low:.3}, {high:.3}]", figure.value),
        _ => format!("{:.3}", figure.value),
    };
    print(format!(
        "calibration error {} as fitted, {} calibrated ({})",
        interval(&card.ece_as_fitted),
        interval(&card.ece),
        card.calibration
    ))?;
    if let Some(flagged) = &card.flagged {
        let (threshold, trial) = (&flagged.threshold, &flagged.trial);
        print(format!("flag {} from P = {:.4} on: {}", flagged.class, threshold.value, flagged.promise))?;
        print(format!(
            "  on these {} rows of the class the rate is {:.4}, which bounds it by {:.4}; the other error's rate is {:.4}",
            threshold.n, threshold.rate, threshold.bound, threshold.other_rate
        ))?;
        print(format!(
            "  tried on {} resamplings of {} rows: the true rate was within {} in {:.1} %{}, {:.4} on average",
            trial.resamplings,
            trial.n,
            threshold.risk_bound.alpha,
            100.0 * trial.coverage,
            trial.expected_coverage.map_or(String::new(), |due| format!(" (theory: {:.1} %)", 100.0 * due)),
            trial.mean_rate
        ))?;
    }
    let distance =
        |distance: Option<f64>| distance.map_or(String::new(), |distance| format!("{distance:.2}"));
    let row = |face: &pearlpoint::analysis::boundary_report::Face| {
        vec![
            face.across.clone(),
            face.inside.to_string(),
            distance(face.inside_distance),
            face.outside.to_string(),
            distance(face.outside_distance),
            format!("{} of {}", face.own, face.labelled),
        ]
    };
    let faces = Table {
        caption: format!("faces of the region of {}: examples that lie nearest to each", card.faces.class),
        columns: vec![
            Column::text("across"),
            Column::numbers("inside"),
            Column::numbers("mean distance"),
            Column::numbers("outside"),
            Column::numbers("mean distance"),
            Column::numbers("of that label"),
        ],
        rows: card.faces.faces.iter().map(row).collect(),
    };
    print(format!("\n{}", faces.to_text()?))?;
    let row = |margin: &Margin| {
        let label = margin.label.as_ref().map_or(String::new(), ToString::to_string);
        let distance = format!("{:.3}", margin.distance);
        vec![
            margin.id.clone(),
            label,
            margin.read.clone(),
            format!("{:.3}", margin.probability),
            distance,
            margin.across.clone(),
        ]
    };
    let next = Table {
        caption: "nearest to the boundary, to be labelled next".into(),
        columns: vec![
            Column::text("id"),
            Column::text("label"),
            Column::text("read"),
            Column::numbers("P"),
            Column::numbers("distance"),
            Column::text("across"),
        ],
        rows: found.next.iter().map(row).collect(),
    };
    print(next.to_text()?)
}
