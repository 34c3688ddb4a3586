//! Dose and response of a steering grid at one site: the wanted outcome, or the divergence, by strength, a curve an arm.

use serde::{Deserialize, Serialize};

use crate::analysis::steering_effect::{Effect, Trial};
use crate::analysis::steering_grid::Found;
use crate::config::SteeringGrid;
use crate::model::Site;
use crate::report::charts::chart::{LinePoint, Series};
use crate::report::{Chart, LineChart};
use crate::stats::Interval;
use crate::steer::Strength;

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridTable {
    /// The grid's file.
    pub file: SteeringGrid,
    /// Its results.
    pub found: Found,
    /// The site that is shown.
    pub site: Site,
    /// What is shown.
    pub quantity: Quantity,
}

/// What a strength changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// The share of answers with the wanted outcome.
    Response,
    /// KL(unsteered ‖ steered), nats a token.
    Divergence,
}

/// The chart of a grid at a site.
pub fn chart(table: &GridTable) -> Chart {
    let GridTable { file, found, site, quantity } = table;
    let value = |effect: &Effect| match quantity {
        Quantity::Response => effect.response,
        Quantity::Divergence => effect.divergence,
    };
    let point = |x: f64, interval: Interval| LinePoint {
        x,
        y: interval.value,
        low: Some(interval.low),
        high: Some(interval.high),
    };
    let series = file.arms.iter().filter(|arm| arm.control.is_none()).map(|arm| {
        let own = found.trials.iter().filter(|trial| trial.arm == arm.name && trial.site == *site);
        let start = point(0.0, value(&found.unsteered));
        let points = own.map(|trial| point(amount(&trial.strength), value(&trial.effect)));
        let points = std::iter::once(start).chain(points).collect();
        Series { name: arm.name.clone(), points, ..Series::default() }
    });
    let (title, subtitle, y_label) = match quantity {
        Quantity::Divergence => (
            format!("Dose and damage at {site}"),
            format!(
                "validation part, {} texts of {} users; bands are 95 % intervals",
                found.unsteered.texts, file.guard.class
            ),
            "KL from the unsteered model (nats a token)".to_string(),
        ),
        Quantity::Response => (
            format!("Dose and response at {site}"),
            format!(
                "validation part, {} {} users; bands are 95 % intervals",
                found.unsteered.users, file.goal.class
            ),
            format!("share of answers: {}", goal(file)),
        ),
    };
    Chart::Line(LineChart {
        title,
        subtitle,
        x_label: strength_axis(found.trials.iter().filter(|trial| trial.site == *site)),
        y_label,
        y_range: (*quantity == Quantity::Response).then_some([0.0, 1.0]),
        series: series.collect(),
        ..LineChart::default()
    })
}

/// The name of the strength's axis: its unit where all have one.
fn strength_axis<'a>(trials: impl Iterator<Item = &'a Trial>) -> String {
    let mut norms: Vec<bool> = trials.map(|trial| trial.strength.trim_end().ends_with('n')).collect();
    norms.dedup();
    match norms.as_slice() {
        [true] => "strength (residual norms)",
        [false] => "strength (multiples of the change)",
        _ => "strength",
    }
    .into()
}

fn amount(strength: &str) -> f64 {
    match strength.parse::<Strength>() {
        Ok(Strength::Raw(times) | Strength::Norms(times)) => f64::from(times),
        // Strengths were parsed before they were tried; a table that was edited shows at 0.
        Err(_) => 0.0,
    }
}

/// The wanted outcome, in words.
pub fn goal(file: &SteeringGrid) -> String {
    file.goal.strategy.clone().unwrap_or_else(|| format!("one of {}", file.goal.words.join(", ")))
}
