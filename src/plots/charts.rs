//! From what a run found to the tables of its charts. It computes nothing new.

use crate::analysis::layer_sweep;
use crate::analysis::layer_sweep::Sweep;
use crate::analysis::metrics;
use crate::analysis::metrics::{goals, rate, short};
use crate::analysis::steering_eval::{ALWAYS, Answers, GATED, NONE, RANDOM, Stage, Steered};
use crate::boundary::{PearlMap, RiskMap};
use crate::error::Result;
use crate::model::Site;
use crate::probe;
use crate::report::charts::chart::{
    Bar, BarSeries, Contour, Filled, Grid, LinePoint, MapLine, MapPoint, Rule, RuleAxis, Series, Star, Style,
};
use crate::report::{BarChart, Chart, LineChart, MapChart};
use crate::stats::wilson;
use crate::steer::Strength;

/// A layer sweep: AUROC on groups held out, at every site, beside what it has to beat.
pub fn sweep(sweep: &Sweep) -> Result<Chart> {
    let mut points = Vec::new();
    for (place, (_, validated)) in sweep.sites.iter().enumerate() {
        let figure = layer_sweep::figure(validated, "auroc", "test")?;
        points.push(LinePoint { x: place as f64, y: figure.value, low: figure.low, high: figure.high });
    }
    let across = |name: &str, value: f64, style: Style| {
        let ends = [0.0, (sweep.sites.len() - 1) as f64];
        let points = ends.map(|x| LinePoint { x, y: value, ..LinePoint::default() });
        Series { name: name.into(), points: points.into(), style, filled: false }
    };
    Ok(Chart::Line(LineChart {
        title: format!("Where the model knows: {}", sweep.label),
        subtitle: format!("AUROC of a linear probe at each site, {}; bands are 95 % intervals", sweep.split),
        x_label: "site".into(),
        y_label: "AUROC".into(),
        x_ticks: Some(sweep.sites.iter().map(|(site, _)| tick(*site)).collect()),
        y_range: Some([0.4, 1.0]),
        series: vec![
            Series { name: "linear probe".into(), points, ..Series::default() },
            across("words and bigrams", sweep.ngram.value, Style::Dashed),
            across("shuffled labels", sweep.shuffled.value, Style::Dotted),
        ],
        ..LineChart::default()
    }))
}

/// The name of a site on an axis: the block alone where that is enough.
pub(crate) fn tick(site: Site) -> String {
    match site {
        Site::Block(block, crate::model::Point::ResidPost) => format!("block {block}"),
        site => site.to_string(),
    }
}

/// The plane on which the probe decides, with the contours of its calibrated probabilities.
pub fn risk_map(map: &RiskMap) -> Chart {
    let mut groups: Vec<String> = map.surfaces.iter().map(|surface| surface.class.clone()).collect();
    // Where classes do not exclude one another, a point may be of none.
    if map.points.iter().any(|point| point.label == probe::NONE)
        && !groups.iter().any(|group| group == probe::NONE)
    {
        groups.push(probe::NONE.to_owned());
    }
    let point = |point: &crate::boundary::MapPoint| {
        let group = groups.iter().position(|group| *group == point.label)?;
        Some(MapPoint { x: point.x, y: point.y, group })
    };
    let contours = map.surfaces.iter().flat_map(|surface| {
        map.levels.iter().map(|&level| Contour {
            name: format!("P({}) = {level}", surface.class),
            level,
            grid: Grid(
                surface.values.iter().map(|row| row.iter().map(|&value| Some(value)).collect()).collect(),
            ),
            style: if level == 0.5 { Style::Solid } else { Style::Dashed },
        })
    });
    Chart::Map(MapChart {
        title: format!("The boundary of {} at {}", map.label, map.site),
        subtitle: "dialogues held out, on the plane that holds all that the probe decides on; contours are calibrated probabilities".into(),
        x_label: format!("{} (activation units)", map.plane.names[0]),
        y_label: format!("{} (activation units)", map.plane.names[1]),
        x_range: ends(&map.grid.x),
        y_range: ends(&map.grid.y),
        points: map.points.iter().filter_map(point).collect(),
        contours: contours.collect(),
        groups,
        ..MapChart::default()
    })
}

pub(crate) fn ends(places: &[f64]) -> [f64; 2] {
    [places.first().copied().unwrap_or(0.0), places.last().copied().unwrap_or(1.0)]
}

/// Satisfaction over the plane of risk and steering, the safe boundary, the pearl point, and one answer's way.
pub fn pearl(stage: &Stage, steered: &Steered, pearl: &PearlMap) -> Chart {
    let trial = &steered.trials[steered.chosen];
    Chart::Map(MapChart {
        title: "The pearl point".into(),
        subtitle: format!(
            "answers with the hidden state at {} moved all over the plane: mean satisfaction around each place; beyond the \
             safe boundary mean risk is over {}",
            trial.site, pearl.tolerance
        ),
        x_label: "risk: benign → malicious (activation units)".into(),
        y_label: format!("steering: {} → {} (activation units)", stage.steering.from, stage.steering.to),
        x_range: ends(&pearl.grid.x),
        y_range: ends(&pearl.grid.y),
        filled: Some(Filled {
            label: "satisfaction".into(),
            grid: Grid(pearl.satisfaction.clone()),
            masked: Some("too few answers".into()),
        }),
        safe: Some(Contour {
            name: "safe boundary".into(),
            level: pearl.tolerance,
            grid: Grid(pearl.risk.clone()),
            style: Style::Solid,
        }),
        star: pearl.pearl.map(|pearl| Star { x: pearl.x, y: pearl.y, label: "pearl point".into() }),
        paths: pearl
            .tracks
            .iter()
            .map(|track| MapLine {
                name: track.name.clone(),
                points: track.places.clone(),
                arrow: true,
                names: Vec::new(),
            })
            .collect(),
        ..MapChart::default()
    })
}

/// Dose and response on the validation part, a curve a site.
pub fn doses(stage: &Stage, steered: &Steered) -> Chart {
    let amount = |strength: Strength| match strength {
        Strength::Norms(norms) => norms as f64,
        Strength::Raw(times) => times as f64,
    };
    let mut series: Vec<Series> = Vec::new();
    for trial in &steered.trials {
        let (reached, broken) =
            (format!("{} at {}", stage.steering.to, trial.site), format!("broken at {}", trial.site));
        for (name, count, style) in
            [(reached, trial.reached, Style::Solid), (broken, trial.broken, Style::Dotted)]
        {
            let Some(share) = wilson(count, trial.users) else { continue };
            let solid = style == Style::Solid;
            let point = LinePoint {
                x: amount(trial.strength),
                y: share.value,
                low: solid.then_some(share.low),
                high: solid.then_some(share.high),
            };
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => series.push(Series { name, points: vec![point], style, filled: false }),
            }
        }
    }
    let chosen = &steered.trials[steered.chosen];
    Chart::Line(LineChart {
        title: "Dose and response".into(),
        subtitle: format!(
            "answers to {} users of the validation part, by site and strength",
            stage.steering.class
        ),
        x_label: "strength (residual norms)".into(),
        y_label: "share of answers".into(),
        y_range: Some([0.0, 1.0]),
        series,
        rules: vec![Rule {
            axis: RuleAxis::Vertical,
            at: amount(chosen.strength),
            label: format!("chosen: {} at {}", chosen.strength, chosen.site),
        }],
        ..LineChart::default()
    })
}

/// How each type of user is answered on the test part under each condition.
pub fn rates(stage: &Stage, steered: &Steered) -> Chart {
    let series = steered.test.iter().map(|(name, answers)| {
        let bar = |(user_type, strategy): (&str, String)| {
            let (interval, _) = rate(stage, answers, user_type, &strategy)?;
            Some(Bar { value: interval.value, low: Some(interval.low), high: Some(interval.high) })
        };
        BarSeries { name: (*name).into(), bars: goals(stage).map(bar).into() }
    });
    let passive = |strategy: &str| match strategy {
        "guide" => "guided".to_string(),
        "refuse" => "refused".into(),
        strategy => format!("{strategy}ed"),
    };
    Chart::Bar(BarChart {
        title: "What steering does, and to whom".into(),
        subtitle: format!(
            "answers on {}s held out; whiskers are 95 % intervals",
            stage.experiment.data.group
        ),
        x_label: "users, and the answer that they should get".into(),
        y_label: "share of answers".into(),
        y_range: Some([0.0, 1.0]),
        groups: goals(stage)
            .iter()
            .map(|(user_type, strategy)| format!("{user_type} {}", passive(strategy)))
            .collect(),
        series: series.collect(),
        rules: Vec::new(),
    })
}

/// The safe-and-satisfied score under each condition, by the weight of risk.
pub fn scores(stage: &Stage, steered: &Steered) -> Chart {
    let kept: Vec<&(&str, Answers)> =
        steered.test.iter().filter(|(name, _)| [NONE, GATED, ALWAYS, RANDOM].contains(name)).collect();
    let series = kept.iter().map(|(name, answers)| {
        let bar = |beta: &f64| {
            let interval = metrics::score(stage, answers, *beta)?;
            Some(Bar { value: interval.value, low: Some(interval.low), high: Some(interval.high) })
        };
        BarSeries { name: short(name).into(), bars: metrics::BETAS.iter().map(bar).collect() }
    });
    Chart::Bar(BarChart {
        title: "Safe and satisfied".into(),
        subtitle:
            "mean of S − β·R over all users held out; S and R are the world's own truth about each answer"
                .into(),
        x_label: "weight β of risk".into(),
        y_label: "S − β·R".into(),
        groups: metrics::BETAS.iter().map(|beta| format!("β = {beta}")).collect(),
        series: series.collect(),
        ..BarChart::default()
    })
}
