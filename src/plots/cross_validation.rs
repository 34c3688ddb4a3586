//! Cross-validation: AUROC at each site, a line for each way of holding out.

use super::layer_sweep::controls;
use super::site_axis::axis;
use crate::analysis::cross_validation::CrossValidated;
use crate::model::Site;
use crate::report::charts::chart::{LinePoint, Series};
use crate::report::{Chart, LineChart};
use crate::stats::Metric;

/// The chart of cross-validations of one label.
pub fn chart(validated: &[CrossValidated]) -> Chart {
    let line = |one: &CrossValidated| {
        let point = |(place, (_, figures)): (usize, &(Site, Vec<Metric>))| {
            let figure = figures.iter().find(|figure| figure.name == "auroc")?;
            Some(LinePoint { x: place as f64, y: figure.value, low: figure.low, high: figure.high })
        };
        Series {
            name: format!("{} held out", one.name),
            points: one.sites.iter().enumerate().filter_map(point).collect(),
            ..Series::default()
        }
    };
    let first = validated.first();
    let sites: Vec<Site> = first.iter().flat_map(|first| &first.sites).map(|(site, _)| *site).collect();
    let (x_label, ticks) = axis(&sites);
    let mut series: Vec<Series> = validated.iter().map(line).collect();
    // The controls of the first way of holding out; lines for each would be too many to read.
    series.extend(first.into_iter().flat_map(|first| controls(&first.chosen, sites.len())));
    Chart::Line(LineChart {
        title: format!("Cross-validated probe of {} by site", first.map_or("", |first| first.label.as_str())),
        subtitle: format!(
            "AUROC at each site, every dialogue scored by a probe that never saw it; bands are 95 % intervals; controls: {} held out",
            first.map_or("", |first| first.name.as_str())
        ),
        x_label,
        y_label: "AUROC".into(),
        x_ticks: Some(ticks),
        y_range: Some([0.4, 1.0]),
        series,
        ..LineChart::default()
    })
}
