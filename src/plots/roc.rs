//! ROC curve of a probe on rows that it never saw: a curve a class, or the second of two.

use crate::analysis::roc::Roc;
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};

/// The chart of a probe's ROC curves.
pub fn chart(table: &Roc) -> Chart {
    let point = |&[x, y]: &[f64; 2]| LinePoint { x, y, ..LinePoint::default() };
    let mut series: Vec<Series> = table
        .curves
        .iter()
        .map(|curve| Series {
            name: format!("{} (AUROC {:.3})", curve.class, curve.auroc),
            points: curve.points.iter().map(point).collect(),
            colour: Some(curve.index),
            ..Series::default()
        })
        .collect();
    series.push(Series {
        name: "chance".into(),
        points: [[0.0, 0.0], [1.0, 1.0]].iter().map(point).collect(),
        style: Style::Dotted,
        colour: Some(GREY),
        ..Series::default()
    });
    Chart::Line(LineChart {
        title: format!("ROC curve: {} at {}", table.label, table.site),
        subtitle: format!("{} dialogues ({})", table.n, table.split),
        x_label: "false positive rate".into(),
        y_label: "true positive rate".into(),
        x_range: Some([0.0, 1.0]),
        y_range: Some([0.0, 1.0]),
        series,
        ..LineChart::default()
    })
}

/// The palette's grey.
const GREY: usize = 6;
