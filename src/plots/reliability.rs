//! Reliability diagram: accuracy against confidence, before calibration and after it.

use serde::{Deserialize, Serialize};

use crate::report::charts::chart::{LinePoint, Note, Series, Style};
use crate::report::{Chart, LineChart};
use crate::stats::{Bin, wilson};

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Label of the probe.
    pub label: String,
    /// Its site.
    pub site: String,
    /// Calibration method.
    pub method: String,
    /// Bins before calibration and after it.
    pub bins: [Vec<Bin>; 2],
    /// Expected calibration errors before and after.
    pub errors: [f64; 2],
    /// What the dialogues are: "topic held out", say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// The reliability diagram.
pub fn chart(table: &Reliability) -> Chart {
    let Reliability { label, site, method, bins, errors, split } = table;
    let split = split.as_ref().map_or(String::new(), |split| format!(" ({split})"));
    let series = |name: String, bins: &[Bin], style: Style| {
        let points = bins.iter().filter_map(|bin| {
            let share = wilson(bin.right, bin.n)?;
            let bounds = style == Style::Solid;
            Some(LinePoint {
                x: bin.confidence,
                y: share.value,
                low: bounds.then_some(share.low),
                high: bounds.then_some(share.high),
            })
        });
        Series { name, points: points.collect(), style, ..Series::default() }
    };
    let n: usize = bins[1].iter().map(|bin| bin.n).sum();
    let least = bins.iter().flatten();
    let least = least.map(|bin| bin.confidence.min(bin.right as f64 / bin.n as f64)).fold(1.0, f64::min);
    let least = ((least - 0.05) * 10.0).floor().max(0.0) / 10.0;
    let ends = [least, 1.0].map(|end| LinePoint { x: end, y: end, ..LinePoint::default() });
    let diagonal = Series {
        name: "calibrated exactly".into(),
        points: ends.into(),
        style: Style::Dotted,
        ..Series::default()
    };
    let count = |bin: &Bin| {
        let share = wilson(bin.right, bin.n)?;
        Some(Note { x: bin.confidence, y: share.value, text: bin.n.to_string() })
    };
    Chart::Line(LineChart {
        title: format!("Reliability: {label} at {site}"),
        subtitle: format!(
            "{n} dialogues{split} in bins of equal count; expected calibration error {:.3} before and {:.3} after \
             calibration ({method}); the band is a 95 % interval, \
             and the number above a point its dialogues",
            errors[0], errors[1]
        ),
        x_label: "mean probability of the predicted class".into(),
        y_label: "accuracy".into(),
        x_range: Some([least, 1.0]),
        y_range: Some([least, 1.0]),
        series: vec![
            series("calibrated".into(), &bins[1], Style::Solid),
            series("as fitted".into(), &bins[0], Style::Dashed),
            diagonal,
        ],
        notes: bins[1].iter().filter_map(count).collect(),
        ..LineChart::default()
    })
}
