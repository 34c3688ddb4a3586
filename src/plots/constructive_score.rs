//! Constructive score C(β) = S − βR of several systems over the weight of risk, with the crossings marked.

use crate::analysis::constructive_score::{AtBeta, ScorePart};
use crate::report::charts::chart::{LinePoint, Rule, RuleAxis, Series, Style};
use crate::report::{Chart, LineChart};

/// The chart of a part of a score table. The weights stand at equal distances; a crossing between two of them has the place of its
/// logarithm.
pub fn chart(part: &ScorePart) -> Chart {
    let betas: Vec<f64> = part
        .systems
        .iter()
        .map(|system| &system.constructive)
        .max_by_key(|values| values.len())
        .map_or_else(Vec::new, |values| values.iter().map(|at| at.beta).collect());
    let point = |(index, at): (usize, &AtBeta)| LinePoint {
        x: index as f64,
        y: at.value.value,
        low: Some(at.value.low),
        high: Some(at.value.high),
    };
    let series = part.systems.iter().filter(|system| !system.constructive.is_empty()).map(|system| Series {
        name: system.name.clone(),
        points: system.constructive.iter().enumerate().map(point).collect(),
        style: Style::default(),
        ..Series::default()
    });
    let rule = |crossing: &crate::analysis::constructive_score::Crossing| Rule {
        axis: RuleAxis::Vertical,
        at: place(&betas, crossing.beta),
        label: format!("β = {:.2}: {} overtakes", crossing.beta, crossing.above),
    };
    Chart::Line(LineChart {
        title: "Constructive score".into(),
        subtitle: format!(
            "C(β) = S − β·R, {} answers each; S from five items in −1, 0, 1; bands are 95 % intervals",
            part.systems.first().map_or(0, |system| system.answers)
        ),
        x_label: "weight β of risk".into(),
        y_label: "S − β·R".into(),
        x_ticks: Some(betas.iter().map(f64::to_string).collect()),
        series: series.collect(),
        rules: part.crossings.iter().map(rule).collect(),
        ..LineChart::default()
    })
}

/// The place of a weight among the weights of the sweep.
fn place(betas: &[f64], beta: f64) -> f64 {
    let above = betas.iter().position(|&one| one >= beta).unwrap_or(betas.len().saturating_sub(1));
    match above {
        0 => 0.0,
        above => {
            let [low, high] = [betas[above - 1], betas[above]].map(f64::ln);
            (above - 1) as f64 + (beta.ln() - low) / (high - low)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crossing_stands_between_its_neighbours() {
        let betas = [0.1, 1.0, 2.0];
        assert_eq!(place(&betas, 0.1), 0.0);
        assert!((place(&betas, 1.0) - 1.0).abs() < 1e-12);
        assert!((place(&betas, 2f64.sqrt()) - 1.5).abs() < 1e-12);
        assert!((place(&betas, 0.1f64.sqrt()) - 0.5).abs() < 1e-12);
    }
}
