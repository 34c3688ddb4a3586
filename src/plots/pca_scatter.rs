//! Scatter of states on their first two principal components, coloured by a label.

use crate::analysis::pca_scatter::{PcaScatter, ScatterPoint};
use crate::report::charts::chart::MapPoint;
use crate::report::{Chart, MapChart};

/// Free space around the points, as a share of their range.
const MARGIN: f64 = 0.05;

/// The scatter.
pub fn chart(scatter: &PcaScatter) -> Chart {
    let mut groups: Vec<String> = scatter.points.iter().map(|point| point.label.clone()).collect();
    groups.sort();
    groups.dedup();
    let point = |point: &ScatterPoint| {
        let group = groups.iter().position(|group| *group == point.label)?;
        Some(MapPoint { x: point.x, y: point.y, group })
    };
    let range = |along: fn(&ScatterPoint) -> f64| {
        let places = scatter.points.iter().map(along);
        let [low, high] =
            places.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], at| [low.min(at), high.max(at)]);
        let margin = MARGIN * (high - low).max(f64::MIN_POSITIVE);
        if low <= high { [low - margin, high + margin] } else { [-1.0, 1.0] }
    };
    let name = |number: usize| {
        format!("component {} ({:.1} % of the variance)", number + 1, 100.0 * scatter.variance[number])
    };
    Chart::Map(MapChart {
        title: format!("Principal components at {}, by {}", scatter.site, scatter.label),
        subtitle: format!(
            "{} rows, tokens {}; the components were found without the label",
            scatter.points.len(),
            scatter.tokens
        ),
        x_label: name(0),
        y_label: name(1),
        x_range: range(|point| point.x),
        y_range: range(|point| point.y),
        points: scatter.points.iter().filter_map(point).collect(),
        groups,
        ..MapChart::default()
    })
}
