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

/// The chart of a grid's trials. The damage is on a logarithmic axis, with a place of its own for none.
pub fn chart(table: &ParetoTable) -> Chart {
    let ParetoTable { file, found } = table;
    let axis = LogAxis::over(found.trials.iter().map(|trial| trial.effect.divergence.value));
    let points = |belongs: &dyn Fn(&Trial) -> bool| {
        let trials = found.trials.iter().filter(|trial| belongs(trial));
        let mut points: Vec<LinePoint> = trials
            .map(|trial| LinePoint {
                x: axis.place(trial.effect.divergence.value),
                y: trial.effect.response.value,
                ..LinePoint::default()
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
        points
    };
    // The first curve is drawn on top of the others.
    let front = Series {
        name: "Pareto front".into(),
        points: points(&|trial| trial.pareto),
        colour: Some(FRONT),
        ..Series::default()
    };
    let arms = file.arms.iter().filter(|arm| arm.control.is_none()).enumerate();
    let arms = arms.map(|(index, arm)| Series {
        name: arm.name.clone(),
        points: points(&|trial| trial.arm == arm.name),
        style: Style::Dotted,
        colour: Some(index),
        ..Series::default()
    });
    let mut series: Vec<Series> = std::iter::once(front).chain(arms).collect();
    series.retain(|series| !series.points.is_empty());
    Chart::Line(LineChart {
        title: "Response against damage".into(),
        subtitle: format!(
            "validation part, all sites and strengths; damage is measured on {} users' texts, on a logarithmic axis",
            file.guard.class
        ),
        x_label: "KL from the unsteered model (nats a token)".into(),
        y_label: format!("share of answers: {}", goal(file)),
        x_ticks: Some(axis.names()),
        y_range: Some([0.0, 1.0]),
        series,
        ..LineChart::default()
    })
}

/// The front's colour: grey, which no arm among the first six has.
const FRONT: usize = 6;
/// Values below this are drawn as none: they are rounding.
const LEAST: f64 = 1e-9;

/// Decades of a logarithmic axis as places 0, 1, …; where some values are 0, their place comes first.
struct LogAxis {
    zero: bool,
    lowest: i32,
    highest: i32,
}

impl LogAxis {
    fn over(values: impl Iterator<Item = f64> + Clone) -> LogAxis {
        let logs = values.clone().filter(|value| *value >= LEAST).map(f64::log10);
        let (low, high) =
            logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| (low.min(log), high.max(log)));
        let zero = values.into_iter().any(|value| value < LEAST);
        match low <= high {
            true => LogAxis { zero, lowest: low.floor() as i32, highest: high.ceil() as i32 },
            false => LogAxis { zero, lowest: 0, highest: 0 },
        }
    }

    fn place(&self, value: f64) -> f64 {
        match value < LEAST {
            true => 0.0,
            false => f64::from(u8::from(self.zero)) + value.log10() - f64::from(self.lowest),
        }
    }

    fn names(&self) -> Vec<String> {
        let name = |power: i32| match power {
            -3..=3 => format!("{}", 10f64.powi(power)),
            power => format!("1e{power}").replace('-', "−"),
        };
        let decades = (self.lowest..=self.highest).map(name);
        self.zero.then(|| "0".to_owned()).into_iter().chain(decades).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_has_a_place_of_its_own_before_the_decades() {
        let axis = LogAxis::over([0.0, 2e-4, 0.05].into_iter());
        assert_eq!(axis.names(), ["0", "1e−4", "0.001", "0.01", "0.1"]);
        assert_eq!((axis.place(0.0), axis.place(1e-4), axis.place(0.1)), (0.0, 1.0, 4.0));
        let axis = LogAxis::over([0.02].into_iter());
        assert_eq!((axis.names(), axis.place(0.01)), (vec!["0.01".to_owned(), "0.1".to_owned()], 0.0));
        assert_eq!(LogAxis::over([0.0].into_iter()).names(), ["0", "1"]);
    }
}
