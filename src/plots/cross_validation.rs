//! Cross-validation: AUROC at each site, a line for each way of holding out.

use super::site_axis::tick;
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
    Chart::Line(LineChart {
        title: format!("Cross-validated probe of {} by site", first.map_or("", |first| first.label.as_str())),
        subtitle:
            "AUROC at each site, every dialogue scored by a probe that never saw it; bands are 95 % intervals"
                .into(),
        x_label: "site".into(),
        y_label: "AUROC".into(),
        x_ticks: first.map(|first| first.sites.iter().map(|(site, _)| tick(*site)).collect()),
        y_range: Some([0.4, 1.0]),
        series: validated.iter().map(line).collect(),
        ..LineChart::default()
    })
}
