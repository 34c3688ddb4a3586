//! Distribution of the signed distances to the boundary, by class.

use serde::{Deserialize, Serialize};

use crate::boundary::Margin;
use crate::dialogue::Label;
use crate::report::charts::chart::{LinePoint, Rule, RuleAxis, Series, Style};
use crate::report::{Chart, LineChart};

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margins {
    /// Label of the probe.
    pub label: String,
    /// Its site.
    pub site: String,
    /// Its classes.
    pub classes: Vec<String>,
    /// One an example.
    pub margins: Vec<Margin>,
    /// What the dialogues are: "topic held out", say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// Bars of the distribution.
const BARS: usize = 48;

/// The chart of margins.
pub fn chart(table: &Margins) -> Chart {
    let Margins { label, site, classes, margins, split } = table;
    let split = split.as_ref().map_or(String::new(), |split| format!(" ({split})"));
    let signed: Vec<(f64, &Label)> =
        margins.iter().filter_map(|margin| Some((margin.signed()?, margin.label.as_ref()?))).collect();
    let [low, high] = signed
        .iter()
        .fold([0.0f64, 0.0f64], |[low, high], (margin, _)| [low.min(*margin), high.max(*margin)]);
    // The boundary lies between two bars.
    let step = ((high - low) / BARS as f64).max(1e-9);
    let below = (-low / step).ceil() as usize;
    let bars = below + (high / step).ceil().max(1.0) as usize;
    let series = classes.iter().enumerate().filter_map(|(index, class)| {
        let own: Vec<f64> =
            signed.iter().filter(|(_, label)| label.holds(class)).map(|(margin, _)| *margin).collect();
        if own.is_empty() {
            return None;
        }
        let mut counts = vec![0usize; bars];
        for margin in &own {
            let bar = (margin / step).floor() as isize + below as isize;
            counts[bar.clamp(0, bars as isize - 1) as usize] += 1;
        }
        let edge = |bar: usize| (bar as f64 - below as f64) * step;
        let foot = |x: f64| LinePoint { x, y: 0.0, ..LinePoint::default() };
        let mut points = vec![foot(edge(0))];
        for (bar, count) in counts.into_iter().enumerate() {
            let y = count as f64 / own.len() as f64;
            points.extend([edge(bar), edge(bar + 1)].map(|x| LinePoint { x, y, ..LinePoint::default() }));
        }
        points.push(foot(edge(bars)));
        let name = format!("{class} ({})", own.len());
        Some(Series { name, points, style: Style::Solid, colour: Some(index), filled: true })
    });
    Chart::Line(LineChart {
        title: format!("Distance to the boundary: {label} at {site}"),
        subtitle: format!(
            "distance of each dialogue{split} to the nearest face of its class's region; negative where the probe predicts another \
             class"
        ),
        x_label: "distance to the boundary (activation units)".into(),
        y_label: "share of the class".into(),
        series: series.collect(),
        rules: vec![Rule { axis: RuleAxis::Vertical, at: 0.0, label: "boundary".into() }],
        ..LineChart::default()
    })
}
