//! Attack success against rounds: a curve an agent, with intervals.

use crate::analysis::attack_success::{AttackCell, AttackTable};
use crate::report::charts::chart::{LinePoint, Series};
use crate::report::{Chart, LineChart};

/// The chart of the cells without a defence. Where some agents were played at several numbers of rounds, those are drawn alone: one
/// point (of users who attack nothing, say) is no curve.
pub fn chart(table: &AttackTable) -> Chart {
    let own: Vec<&AttackCell> = table.cells.iter().filter(|cell| cell.defence == "none").collect();
    let several =
        |one: &&AttackCell| own.iter().any(|other| other.agent == one.agent && other.rounds != one.rounds);
    let curves: Vec<&AttackCell> = own.iter().copied().filter(several).collect();
    let own = if curves.is_empty() { own } else { curves };
    let mut agents: Vec<&str> = Vec::new();
    for cell in &own {
        if !agents.contains(&cell.agent.as_str()) {
            agents.push(&cell.agent);
        }
    }
    let series = |agent: &&str| {
        let mut points: Vec<LinePoint> = own
            .iter()
            .filter(|cell| cell.agent == **agent)
            .filter_map(|cell| {
                let success = cell.success?;
                Some(LinePoint {
                    x: cell.rounds as f64,
                    y: success.value,
                    low: Some(success.low),
                    high: Some(success.high),
                })
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Series { name: (*agent).into(), points, ..Series::default() }
    };
    let dialogues = own.iter().map(|cell| cell.dialogues).min().unwrap_or(0);
    Chart::Line(LineChart {
        title: "Attack success by number of rounds".into(),
        subtitle: format!("{}; at least {dialogues} dialogues a point, bands are 95 % intervals", table.aim),
        x_label: "rounds, at most".into(),
        y_label: "share of dialogues that reach the aim".into(),
        y_range: Some([0.0, 1.0]),
        series: agents.iter().map(series).collect(),
        ..LineChart::default()
    })
}
