//! Learning curves: accuracy by labels queried, nearest to the boundary first and at random.

use serde::{Deserialize, Serialize};

use crate::boundary::Comparison;
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningTable {
    /// Label of the probe.
    pub label: String,
    /// Its site.
    pub site: String,
    /// Both learning curves.
    pub gain: Comparison,
}

/// The chart of learning curves.
pub fn chart(table: &LearningTable) -> Chart {
    let LearningTable { label, site, gain } = table;
    let series = |name: &str, runs: &[Vec<f64>], style: Style| {
        let points = gain.labels.iter().enumerate().map(|(step, &labels)| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[step]).collect();
            values.sort_by(f64::total_cmp);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            // The interquartile range of the repeats.
            let quarter =
                |share: f64| values.get((share * (values.len() - 1) as f64).round() as usize).copied();
            LinePoint { x: labels as f64, y: mean, low: quarter(0.25), high: quarter(0.75) }
        });
        Series { name: name.into(), points: points.collect(), style, ..Series::default() }
    };
    Chart::Line(LineChart {
        title: format!("Active learning: {label} at {site}"),
        subtitle: format!(
            "accuracy on {} held-out dialogues, by labels queried from a pool of {}; mean and interquartile range of {} repeats",
            gain.test, gain.pool, gain.settings.repeats
        ),
        x_label: "labels queried".into(),
        y_label: "accuracy".into(),
        series: vec![
            series("nearest to the boundary", &gain.nearest.accuracy, Style::Solid),
            series("at random", &gain.random.accuracy, Style::Dashed),
        ],
        ..LineChart::default()
    })
}
