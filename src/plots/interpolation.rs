//! Interpolation between twins: where, and on how many pairs, the probe's class and the answer's outcome flip.

use serde::{Deserialize, Serialize};

use super::site_axis::axis;
use crate::analysis::interpolation::{Interpolations, Summary};
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};
use crate::stats::{Interval, wilson};

/// The table of the plots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterpolationTable {
    /// Flips of all pairs.
    pub found: Interpolations,
    /// Summaries by site.
    pub summaries: Vec<Summary>,
}

impl InterpolationTable {
    /// Whether anything flips, so that the places can be drawn.
    pub fn has_flips(&self) -> bool {
        self.summaries.iter().any(|summary| summary.probe_at.is_some() || summary.model_at.is_some())
    }
}

/// The mean place of the flips, by site.
pub fn chart(table: &InterpolationTable) -> Chart {
    let InterpolationTable { found, summaries } = table;
    let series = |name: &str, style: Style, of: &dyn Fn(&Summary) -> Option<Interval>| {
        let points = summaries.iter().enumerate().filter_map(|(x, summary)| {
            let at = of(summary)?;
            Some(LinePoint { x: x as f64, y: at.value, low: Some(at.low), high: Some(at.high) })
        });
        Series { name: name.into(), points: points.collect(), style, ..Series::default() }
    };
    let all = [
        series("the probe's class flips", Style::Solid, &|summary| summary.probe_at),
        series("the answer's outcome flips", Style::Dashed, &|summary| summary.model_at),
    ];
    Chart::Line(LineChart {
        title: format!("Place of the flip between twins: {}", found.label),
        subtitle: format!(
            "mean place of the flip to the twin's class that lasts, on the way from one twin's state to the other's, {}; bands \
             are 95 % intervals",
            found.searched()
        ),
        x_label: format!("{}, patched at {}", ticks(summaries).0, found.tokens),
        y_label: "share of the way (0: first twin, 1: second)".into(),
        x_ticks: Some(ticks(summaries).1),
        y_range: Some([0.0, 1.0]),
        series: all.into_iter().filter(|series| !series.points.is_empty()).collect(),
        ..LineChart::default()
    })
}

/// The share of pairs on which anything flips, by site.
pub fn shares(table: &InterpolationTable) -> Chart {
    let InterpolationTable { found, summaries } = table;
    let series = |name: &str, style: Style, of: &dyn Fn(&Summary) -> usize| {
        let points = summaries.iter().enumerate().filter_map(|(x, summary)| {
            let share = wilson(of(summary), summary.pairs)?;
            Some(LinePoint { x: x as f64, y: share.value, low: Some(share.low), high: Some(share.high) })
        });
        Series { name: name.into(), points: points.collect(), style, ..Series::default() }
    };
    Chart::Line(LineChart {
        title: format!("Flips by patched site: {}", found.label),
        subtitle: format!(
            "share of {} on whose way the probe's class or the answer's outcome flips to the twin's and stays; bands are 95 % intervals",
            found.searched()
        ),
        x_label: format!("{}, patched at {}", ticks(summaries).0, found.tokens),
        y_label: "share of pairs".into(),
        x_ticks: Some(ticks(summaries).1),
        y_range: Some([0.0, 1.0]),
        series: [
            series("the probe's class flips", Style::Solid, &|summary| summary.probe_flips),
            series("the answer's outcome flips", Style::Dashed, &|summary| summary.model_flips),
            series("outcome flips along a random direction", Style::Dotted, &|summary| summary.control_flips),
        ]
        .into_iter()
        .take(if found.pairs == 0 { 1 } else { 3 })
        .collect(),
        ..LineChart::default()
    })
}

fn ticks(summaries: &[Summary]) -> (String, Vec<String>) {
    axis(&summaries.iter().map(|summary| summary.site).collect::<Vec<_>>())
}
