//! The vector beside null directions of every kind, at the same site and strength, on the same users.

use serde::{Deserialize, Serialize};

use crate::analysis::null_test::NullTest;
use crate::report::charts::chart::{Bar, BarSeries};
use crate::report::{BarChart, Chart};

/// The table of the plot; a steering table holds one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NullTable {
    /// The class of users that was steered.
    pub class: String,
    /// The outcome steered to.
    pub to: String,
    /// A test a kind of null direction.
    pub nulls: Vec<NullTest>,
}

/// The chart of the null tests.
pub fn chart(table: &NullTable) -> Chart {
    let own = |test: &NullTest| {
        let share = test.vector_share()?;
        Some(Bar { value: share.value, low: Some(share.low), high: Some(share.high) })
    };
    let null = |test: &NullTest| {
        let spread = test.spread()?;
        Some(Bar { value: spread.median, low: Some(spread.least), high: Some(spread.most) })
    };
    let group = |test: &NullTest| match test.p() {
        Some(p) => format!("{} ({}), p = {p:.3}", test.null, test.draws.len()),
        None => format!("{} ({})", test.null, test.draws.len()),
    };
    let series = |name: &str, bar: &dyn Fn(&NullTest) -> Option<Bar>| BarSeries {
        name: name.into(),
        bars: table.nulls.iter().map(bar).collect(),
    };
    let users = table.nulls.first().map_or(0, |test| test.users);
    Chart::Bar(BarChart {
        title: "The vector and directions without the concept".into(),
        subtitle: format!(
            "the same {users} {} users, site and strength; of null directions the median, whiskers from the least to the most; of \
             the vector a 95 % interval",
            table.class
        ),
        x_label: "kind of null direction (number)".into(),
        y_label: format!("share of answers: {}", table.to),
        y_range: Some([0.0, 1.0]),
        groups: table.nulls.iter().map(group).collect(),
        series: vec![series("vector", &own), series("null directions", &null)],
        ..BarChart::default()
    })
}
