//! Dose–response of one vector: the share of answers with each outcome, by strength.

use crate::analysis::dose_curve::{Dose, DoseCurve};
use crate::judge::BROKEN;
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};

/// The chart of a curve.
pub fn chart(curve: &DoseCurve) -> Chart {
    let series = |(number, outcome): (usize, &String)| {
        let point = |(place, dose): (usize, &Dose)| {
            let own = dose.shares.get(number)?.as_ref()?;
            Some(LinePoint { x: place as f64, y: own.value, low: Some(own.low), high: Some(own.high) })
        };
        Series {
            name: outcome.clone(),
            points: curve.doses.iter().enumerate().filter_map(point).collect(),
            style: if outcome == BROKEN { Style::Dashed } else { Style::Solid },
            ..Series::default()
        }
    };
    let most = curve.doses.iter().map(|dose| dose.n).max().unwrap_or(0);
    Chart::Line(LineChart {
        title: format!("Dose–response: {}", curve.vector),
        subtitle: format!(
            "outcomes by judge {}, of {most} answers at each strength; added at {}; bands are 95 % intervals",
            curve.judge, curve.site
        ),
        x_label: "strength (n: the residual stream's median norm)".into(),
        y_label: "share of answers".into(),
        x_ticks: Some(curve.doses.iter().map(|dose| dose.strength.clone()).collect()),
        y_range: Some([0.0, 1.0]),
        series: curve.outcomes.iter().enumerate().map(series).collect(),
        ..LineChart::default()
    })
}
