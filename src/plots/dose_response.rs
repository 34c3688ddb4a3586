//! Dose and response of one vector on the validation part: outcome and broken answers by strength, a curve a site.

use crate::analysis::steering_table::{SteeringTable, Trial};
use crate::report::charts::chart::{LinePoint, Rule, RuleAxis, Series, Style};
use crate::report::{Chart, LineChart};
use crate::stats::wilson;
use crate::steer::Strength;

/// The chart of a steering table's trials.
pub fn chart(table: &SteeringTable) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    for trial in &table.trials {
        let (reached, broken) =
            (format!("{} at {}", table.to, trial.site), format!("broken at {}", trial.site));
        for (name, count, style) in
            [(reached, trial.reached, Style::Solid), (broken, trial.broken, Style::Dotted)]
        {
            let Some(share) = wilson(count, trial.users) else { continue };
            let solid = style == Style::Solid;
            let point = LinePoint {
                x: amount(trial),
                y: share.value,
                low: solid.then_some(share.low),
                high: solid.then_some(share.high),
            };
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => series.push(Series { name, points: vec![point], style, ..Series::default() }),
            }
        }
    }
    let rule = |chosen: &Trial| Rule {
        axis: RuleAxis::Vertical,
        at: amount(chosen),
        label: format!("chosen: {} at {}", chosen.strength, chosen.site),
    };
    Chart::Line(LineChart {
        title: "Dose and response".into(),
        subtitle: format!(
            "answers to {} users of the validation part, by site and strength; bands are 95 % intervals",
            table.class
        ),
        x_label: "strength (residual norms)".into(),
        y_label: "share of answers".into(),
        y_range: Some([0.0, 1.0]),
        series,
        rules: table.trials.get(table.chosen).map(rule).into_iter().collect(),
        ..LineChart::default()
    })
}

fn amount(trial: &Trial) -> f64 {
    match trial.strength() {
        Ok(Strength::Norms(times) | Strength::Raw(times)) => f64::from(times),
        // Strengths were parsed before they were tried; a table that was edited shows at 0.
        Err(_) => 0.0,
    }
}
