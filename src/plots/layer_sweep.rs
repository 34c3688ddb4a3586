//! Layer sweep: a probe's AUROC at each site, beside words and bigrams and shuffled labels.

use super::site_axis::tick;
use crate::analysis::layer_sweep::SweepTable;
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};

/// The chart of a sweep.
pub fn chart(table: &SweepTable) -> Chart {
    let point = |(place, (_, auroc)): (usize, &(_, crate::stats::Metric))| LinePoint {
        x: place as f64,
        y: auroc.value,
        low: auroc.low,
        high: auroc.high,
    };
    let across = |name: &str, value: f64, style: Style| {
        let ends = [0.0, table.sites.len().saturating_sub(1) as f64];
        let points = ends.map(|x| LinePoint { x, y: value, ..LinePoint::default() });
        Series { name: name.into(), points: points.into(), style, filled: false }
    };
    Chart::Line(LineChart {
        title: format!("Linear probe of {} by site", table.label),
        subtitle: format!("AUROC at each site, {}; bands are 95 % intervals", table.split),
        x_label: "site".into(),
        y_label: "AUROC".into(),
        x_ticks: Some(table.sites.iter().map(|(site, _)| tick(*site)).collect()),
        y_range: Some([0.4, 1.0]),
        series: vec![
            Series {
                name: "linear probe".into(),
                points: table.sites.iter().enumerate().map(point).collect(),
                ..Series::default()
            },
            across("words and bigrams", table.ngram, Style::Dashed),
            across("shuffled labels", table.shuffled, Style::Dotted),
        ],
        ..LineChart::default()
    })
}
