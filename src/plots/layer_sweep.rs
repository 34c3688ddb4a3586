//! Layer sweep: a probe's AUROC at each site, beside every control.

use super::site_axis::axis;
use crate::analysis::layer_sweep::SweepTable;
use crate::model::Site;
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};
use crate::stats::Metric;

/// The chart of a sweep.
pub fn chart(table: &SweepTable) -> Chart {
    let point = |(place, (_, auroc)): (usize, &(_, Metric))| LinePoint {
        x: place as f64,
        y: auroc.value,
        low: auroc.low,
        high: auroc.high,
    };
    // Older tables hold two controls, without intervals.
    let plain = |name: &str, value: f64| Metric {
        name: name.into(),
        value,
        low: None,
        high: None,
        n: 0,
        split: String::new(),
    };
    let older = [plain("ngram/auroc", table.ngram), plain("shuffled/auroc", table.shuffled)];
    let beside = if table.controls.is_empty() { &older[..] } else { &table.controls[..] };
    let sites: Vec<Site> = table.sites.iter().map(|(site, _)| *site).collect();
    let (x_label, ticks) = axis(&sites);
    let mut series = vec![Series {
        name: "linear probe".into(),
        points: table.sites.iter().enumerate().map(point).collect(),
        ..Series::default()
    }];
    series.extend(controls(beside, sites.len()));
    Chart::Line(LineChart {
        title: format!("Linear probe of {} by site", table.label),
        subtitle: format!(
            "AUROC at each site, {}; bands are 95 % intervals, of shuffled labels the range over the shuffles",
            table.split
        ),
        x_label,
        y_label: "AUROC".into(),
        x_ticks: Some(ticks),
        y_range: Some([0.4, 1.0]),
        series,
        ..LineChart::default()
    })
}

/// A line across the chart for each AUROC of a control (`ngram/auroc`); of shuffled labels with its interval.
pub(super) fn controls(metrics: &[Metric], sites: usize) -> impl Iterator<Item = Series> {
    let across = move |metric: &Metric| {
        let control = metric.name.strip_suffix("/auroc")?;
        let name = match control {
            "ngram" => "words and bigrams",
            "tfidf" => "TF-IDF",
            "pairs" => "pairs of words",
            "length" => "length",
            "shuffled" => "shuffled labels",
            "random" => "random features",
            other => other,
        };
        let bounds = |bound: Option<f64>| bound.filter(|_| control == "shuffled");
        let ends = [0.0, sites.saturating_sub(1).max(1) as f64];
        let point = |x| LinePoint { x, y: metric.value, low: bounds(metric.low), high: bounds(metric.high) };
        let style = if control == "shuffled" || control == "random" { Style::Dotted } else { Style::Dashed };
        Some(Series { name: name.into(), points: ends.map(point).into(), style, ..Series::default() })
    };
    metrics.iter().filter_map(across).collect::<Vec<_>>().into_iter()
}
