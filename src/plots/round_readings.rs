//! Readings round by round: the mean of a probe under each condition, and a heat map of all probes.

use crate::report::charts::chart::{HeatChart, LinePoint, Scale, Series};
use crate::report::{Chart, LineChart};
use crate::rounds::{Condition, RoundScore, Trace};

/// The chart of one probe's mean readings, a curve a condition.
pub fn chart(trace: &Trace, probe: &str) -> Chart {
    let series = |condition: Condition| {
        let own = trace.rounds.iter().filter(|round| round.condition == condition && round.probe == probe);
        let points: Vec<LinePoint> = own
            .filter_map(|round| {
                let mean = round.mean?;
                Some(LinePoint {
                    x: round.turn as f64,
                    y: mean.value,
                    low: Some(mean.low),
                    high: Some(mean.high),
                })
            })
            .collect();
        (!points.is_empty()).then(|| Series { name: condition.name().into(), points, ..Series::default() })
    };
    Chart::Line(LineChart {
        title: format!("Reading by round: {probe}"),
        subtitle: "mean over the dialogues that reach the round; bands are 95 % intervals".into(),
        x_label: "round".into(),
        y_label: "probability that the probe reads".into(),
        y_range: Some([0.0, 1.0]),
        series: Condition::ALL.into_iter().filter_map(series).collect(),
        ..LineChart::default()
    })
}

/// Rounds by probes: mean readings of the whole context, or of the first condition that was traced.
pub fn heat_map(trace: &Trace) -> Chart {
    let condition = trace.rounds.first().map_or(Condition::Whole, |round| round.condition);
    let own: Vec<&RoundScore> = trace.rounds.iter().filter(|round| round.condition == condition).collect();
    let mut probes: Vec<&str> = Vec::new();
    for round in &own {
        if !probes.contains(&round.probe.as_str()) {
            probes.push(&round.probe);
        }
    }
    let last = own.iter().map(|round| round.turn).max().unwrap_or(1);
    let value = |probe: &str, turn: usize| {
        let round = own.iter().find(|round| round.probe == probe && round.turn == turn)?;
        round.mean.map(|mean| mean.value)
    };
    Chart::Heat(HeatChart {
        title: "Mean reading by round and probe".into(),
        subtitle: format!(
            "condition: {}; empty where fewer than two dialogues reach the round",
            condition.name()
        ),
        x_label: "round".into(),
        y_label: "probe".into(),
        columns: (1..=last).map(|turn| turn.to_string()).collect(),
        rows: probes.iter().map(|probe| (*probe).into()).collect(),
        values: probes.iter().map(|probe| (1..=last).map(|turn| value(probe, turn)).collect()).collect(),
        words: Vec::new(),
        label: "probability".into(),
        range: [0.0, 1.0],
        scale: Scale::Rising,
    })
}
