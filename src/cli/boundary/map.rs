//! `pearl boundary map`: risk map, margins, calibration and thresholds of one probe over a store.

use std::path::PathBuf;

use clap::Args;
use ndarray::Axis;

use crate::cli::console::Console;
use crate::cli::output::{Outcome, print, print_exact, save_chart};
use crate::cli::states::StoreSource;
use pearlpoint::analysis::boundary_report::{self, Question, Report, Rows};
use pearlpoint::artifact::FolderLock;
use pearlpoint::boundary::{ErrorKind, Guarantee, Margin, RiskBound};
use pearlpoint::error::Error;
use pearlpoint::experiment::boundary_stages;
use pearlpoint::pipeline::unseen_rows;
use pearlpoint::plots::risk_map;
use pearlpoint::probe::{NONE, Probe};
use pearlpoint::report::{self, Table, table::Column};

#[derive(Args)]
#[command(after_help = "Example:
  pearl boundary map --store store --data data.jsonl --probe user-type.safetensors --from benign --to malicious --group topic --out boundary")]
pub struct Arguments {
    #[command(flatten)]
    states: StoreSource,
    /// A probe, made by `pearl probe fit`
    #[arg(long, value_name = "FILE")]
    probe: PathBuf,
    /// The class that the map's first axis starts at
    #[arg(long, value_name = "CLASS")]
    from: String,
    /// The class that the map's first axis ends at
    #[arg(long, value_name = "CLASS")]
    to: String,
    /// Take only dialogues of groups that the probe held out: the label that its groups are values of
    #[arg(long)]
    group: Option<String>,
    /// The class whose region counts as safe [default: --from]
    #[arg(long, value_name = "CLASS")]
    safe: Option<String>,
    /// Choose a threshold that keeps a class's miss rate at or below this
    #[arg(long)]
    alpha: Option<f64>,
    /// Failure probability of the threshold's guarantee: it holds with confidence 1 − delta
    #[arg(long, default_value_t = 0.1, requires = "alpha")]
    delta: f64,
    /// Bound the expected rate instead (conformal risk control)
    #[arg(long, requires = "alpha", conflicts_with = "delta")]
    expected: bool,
    /// Bound the false-alarm rate instead of the miss rate
    #[arg(long, requires = "alpha")]
    false_alarms: bool,
    /// The class that the threshold flags [default: --to]
    #[arg(long, value_name = "CLASS", requires = "alpha")]
    flag: Option<String>,
    /// What the guarantee is over: exchangeable rows, or every group of --group, the worst too (worst-group)
    #[arg(long, default_value_t, requires = "alpha")]
    guarantee: Guarantee,
    /// Resamplings that the guarantee is tried on
    #[arg(long, default_value_t = 200, requires = "alpha")]
    resamplings: usize,
    /// How many of the examples nearest to the boundary to list, for labelling
    #[arg(long, default_value_t = 20)]
    next: usize,
    /// Seed of the resamplings
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the tables and charts
    #[arg(long)]
    out: PathBuf,
    /// Print the card as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let Arguments { out, from, to, .. } = arguments;
    let _lock = FolderLock::take(&out)?;
    let mut probe = Probe::load(&arguments.probe)?;
    let classes = [Some(&from), Some(&to), arguments.safe.as_ref(), arguments.flag.as_ref()];
    classes
        .into_iter()
        .flatten()
        .filter(|class| *class != NONE)
        .try_for_each(|class| probe.class(class).map(drop))?;
    let states = arguments.states.open(console)?;
    let header = states.header().clone();
    // No guarantee follows from rows that the probe was fitted on.
    let (kept, split): (Vec<usize>, String) = match (&arguments.group, states.was_fitted_here(&probe)) {
        (Some(group), _) => (unseen_rows(&states, &[&probe], group)?, format!("{group} held out")),
        (None, true) if arguments.alpha.is_some() => {
            let found = "dialogues that the probe was fitted on among the store's, which promise nothing";
            let expected = "--group LABEL, to take only groups held out, or a store of other dialogues";
            return Err(Error::input("--alpha", found, expected).into());
        }
        (None, true) => ((0..states.rows()).collect(), "fitted on and held out together".into()),
        (None, false) => ((0..states.rows()).collect(), "other dialogues than it was fitted on".into()),
    };
    if arguments.guarantee == Guarantee::WorstGroup && arguments.group.is_none() {
        let expected = "--group LABEL, whose values are the groups";
        return Err(Error::input("--guarantee", "worst-group without groups", expected).into());
    }
    let group = |row: usize| {
        let named = arguments.group.as_ref().and_then(|group| states.dialogue(row).label(group));
        named.unwrap_or_else(|| states.dialogue(row).id.clone())
    };
    let rows = Rows {
        groups: kept.iter().map(|&row| group(row)).collect(),
        states: states.at(probe.source.site)?.select(Axis(0), &kept),
        ids: kept.iter().map(|&row| states.dialogue(row).id.clone()).collect(),
        labels: kept.iter().map(|&row| boundary_report::label(states.dialogue(row), &probe)).collect(),
        split,
    };
    let error = if arguments.false_alarms { ErrorKind::FalseAlarm } else { ErrorKind::Miss };
    let promise = arguments.alpha.map(|alpha| match arguments.expected {
        true => RiskBound::expected(error, alpha),
        false => RiskBound::confident(error, alpha, arguments.delta),
    });
    let question = Question {
        safe: arguments.safe.unwrap_or_else(|| from.clone()),
        flag: arguments.flag.unwrap_or_else(|| to.clone()),
        from,
        to,
        promise,
        guarantee: arguments.guarantee,
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
        // The probe with its threshold, for steering plans and `pearl boundary token-map`.
        probe.threshold.insert(flagged.class.clone(), flagged.threshold.value);
        probe.save(&out.join("probe.safetensors"))?;
    }
    report::draw_all(&out)?;
    if arguments.json {
        print_exact(serde_json::to_string_pretty(&found.card)?)?;
    } else {
        show(&found)?;
    }
    if let Some(doubt) = found.card.flagged.as_ref().and_then(|flagged| flagged.doubt()) {
        console.say(format!("doubt: {doubt}"));
    }
    console.say(format!("risk map, margins and reliability, as tables and charts: {}", out.display()));
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
            "  tried on {} resamplings of the same {} rows: the true rate was within {} in {:.1} %{}, {:.4} on average",
            trial.resamplings,
            trial.n,
            threshold.risk_bound.alpha,
            100.0 * trial.coverage,
            trial.expected_coverage.map_or(String::new(), |due| format!(" (theory: {:.1} %)", 100.0 * due)),
            trial.mean_rate
        ))?;
        if let Some(sentence) = flagged.group_sentence() {
            print(format!("  {sentence}"))?;
        }
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
        caption: format!("boundary of the region of {}: the examples nearest to each face", card.faces.class),
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
        caption: "nearest to the boundary: label these next".into(),
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
