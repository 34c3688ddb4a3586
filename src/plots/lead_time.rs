//! Lead time of monitors: in how many rounds before compliance they fire.

use serde::{Deserialize, Serialize};

use crate::analysis::early_warning::Warning;
use crate::report::charts::chart::{Bar, BarSeries};
use crate::report::{BarChart, Chart};

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeadTimes {
    /// One a monitor.
    pub warnings: Vec<Warning>,
}

/// The chart of lead times.
pub fn chart(table: &LeadTimes) -> Chart {
    let most = table.warnings.iter().map(|warning| warning.lead.len()).max().unwrap_or(0).max(1);
    let series = |warning: &Warning| {
        let share = |count: usize| count as f64 / warning.dialogues.max(1) as f64;
        let never = warning.dialogues - warning.lead.iter().sum::<usize>();
        let counts = std::iter::once(never)
            .chain((0..most).map(|rounds| warning.lead.get(rounds).copied().unwrap_or(0)));
        let bar = |count| Some(Bar { value: share(count), ..Bar::default() });
        BarSeries { name: warning.monitor.clone(), bars: counts.map(bar).collect() }
    };
    Chart::Bar(BarChart {
        title: "Rounds of warning before compliance".into(),
        subtitle: "dialogues of the agent that end in compliance; 0: in that round, before the answer".into(),
        x_label: "rounds of lead".into(),
        y_label: "share of dialogues".into(),
        y_range: Some([0.0, 1.0]),
        series: table.warnings.iter().map(series).collect(),
        groups: std::iter::once("never".into()).chain((0..most).map(|rounds| rounds.to_string())).collect(),
        rules: Vec::new(),
    })
}
