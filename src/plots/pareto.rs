//! Pareto plot of a steering grid: response against divergence of every trial, with the front.

use serde::{Deserialize, Serialize};

use super::grid_response::goal;
use crate::analysis::steering_effect::Trial;
use crate::analysis::steering_grid::Found;
use crate::config::SteeringGrid;
use crate::report::charts::chart::{LinePoint, Series, Style};
use crate::report::{Chart, LineChart};

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParetoTable {
    /// The grid's file.
    pub file: SteeringGrid,
    /// Its results.
    pub found: Found,
}

/// The chart of a grid's trials.
pub fn chart(table: &ParetoTable) -> Chart {
    let ParetoTable { file, found } = table;
    let points = |belongs: &dyn Fn(&Trial) -> bool| {
        let trials = found.trials.iter().filter(|trial| belongs(trial));
        let mut points: Vec<LinePoint> = trials
            .map(|trial| LinePoint {
                x: trial.effect.divergence.value,
                y: trial.effect.response.value,
                ..LinePoint::default()
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points
    };
    let mut series: Vec<Series> = file
        .arms
        .iter()
        .map(|arm| Series {
            name: arm.name.clone(),
            points: points(&|trial| trial.arm == arm.name),
            style: Style::Solid,
            filled: false,
        })
        .collect();
    series.push(Series {
        name: "Pareto front".into(),
        points: points(&|trial| trial.pareto),
        style: Style::Dotted,
        filled: false,
    });
    series.retain(|series| !series.points.is_empty());
    Chart::Line(LineChart {
        title: "Response against damage".into(),
        subtitle: format!(
            "validation part, all sites and strengths; damage is measured on {} users' texts",
            file.guard.class
        ),
        x_label: "KL from the unsteered model (nats a token)".into(),
        y_label: format!("share of answers: {}", goal(file)),
        y_range: Some([0.0, 1.0]),
        series,
        ..LineChart::default()
    })
}
