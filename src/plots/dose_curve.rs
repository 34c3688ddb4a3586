//! Dose–response of one vector: the share of answers with an outcome, and of broken ones, by strength.

use crate::analysis::dose_curve::{Dose, DoseCurve};
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};

/// The chart of a curve.
pub fn chart(curve: &DoseCurve) -> Chart {
    let reached = |(place, dose): (usize, &Dose)| {
        let own = dose.reached.as_ref()?;
        Some(LinePoint { x: place as f64, y: own.value, low: Some(own.low), high: Some(own.high) })
    };
    let broken = |(place, dose): (usize, &Dose)| LinePoint {
        x: place as f64,
        y: dose.broken as f64 / dose.n.max(1) as f64,
        ..LinePoint::default()
    };
    let doses = || curve.doses.iter().enumerate();
    let most = curve.doses.iter().map(|dose| dose.n).max().unwrap_or(0);
    Chart::Line(LineChart {
        title: format!("Dose–response of {}", curve.vector),
        subtitle: format!("added at {}; {most} answers at each strength, 95 % intervals", curve.site),
        x_label: "strength (n: the residual stream's median norm)".into(),
        y_label: "share of answers".into(),
        x_ticks: Some(curve.doses.iter().map(|dose| dose.strength.clone()).collect()),
        y_range: Some([0.0, 1.0]),
        series: vec![
            Series {
                name: curve.outcome.clone(),
                points: doses().filter_map(reached).collect(),
                ..Series::default()
            },
            Series {
                name: "broken".into(),
                points: doses().map(broken).collect(),
                style: Style::Dashed,
                ..Series::default()
            },
        ],
        ..LineChart::default()
    })
}
