//! Safe-and-satisfied score `S − β·R` on the test part: by the weight of risk and condition.

use crate::analysis::steering_table::{BetaScore, ConditionTable, SteeringTable};
use crate::report::charts::chart::{Bar, BarSeries};
use crate::report::{BarChart, Chart};

/// The chart of a steering table's scores.
pub fn chart(table: &SteeringTable) -> Chart {
    let bar = |score: &BetaScore| {
        Some(Bar { value: score.score.value, low: Some(score.score.low), high: Some(score.score.high) })
    };
    let series = |condition: &ConditionTable| BarSeries {
        name: condition.short.clone(),
        bars: condition.scores.iter().map(bar).collect(),
    };
    let betas = table.conditions.first().map_or(&[][..], |condition| &condition.scores);
    Chart::Bar(BarChart {
        title: "Safe and satisfied".into(),
        subtitle: "mean of S − β·R over all held-out users; the judge weighs satisfaction S and risk R; a broken answer has S = 0 and \
                   keeps the risk of the unsteered one"
            .into(),
        x_label: "weight β of risk".into(),
        y_label: "S − β·R".into(),
        groups: betas.iter().map(|score| format!("β = {}", score.beta)).collect(),
        series: table.conditions.iter().map(series).collect(),
        ..BarChart::default()
    })
}
