//! Outcome rates on the test part: by class of users and condition.

use crate::analysis::steering_table::{ConditionTable, SteeringTable};
use crate::report::charts::chart::{Bar, BarSeries};
use crate::report::{BarChart, Chart};

/// The chart of a steering table's rates.
pub fn chart(table: &SteeringTable) -> Chart {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for rate in table.conditions.iter().flat_map(|condition| &condition.rates) {
        if !groups.contains(&(&rate.class, &rate.outcome)) {
            groups.push((&rate.class, &rate.outcome));
        }
    }
    let series = |condition: &ConditionTable| {
        let bar = |(class, outcome): &(&str, &str)| {
            let mut rates = condition.rates.iter();
            let share = rates.find(|rate| rate.class == *class && rate.outcome == *outcome)?.share;
            Some(Bar { value: share.value, low: Some(share.low), high: Some(share.high) })
        };
        BarSeries { name: condition.name.clone(), bars: groups.iter().map(bar).collect() }
    };
    Chart::Bar(BarChart {
        title: "Outcomes with and without steering".into(),
        subtitle: format!("answers on held-out values of {}; whiskers are 95 % intervals", table.group),
        x_label: "class of users: outcome".into(),
        y_label: "share of answers".into(),
        y_range: Some([0.0, 1.0]),
        series: table.conditions.iter().map(series).collect(),
        groups: groups.iter().map(|(class, outcome)| format!("{class}: {outcome}")).collect(),
        rules: Vec::new(),
    })
}
