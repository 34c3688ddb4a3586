//! The charts of the boundary: from what was found about margins, crossings, calibration and tokens to their tables.
//! It computes nothing new.

use super::charts;
use crate::analysis::interpolation::{Crossings, Summary};
use crate::analysis::token_readout::{Drift, Watched};
use crate::boundary::{Comparison, Margin, RiskMap};
use crate::dialogue::Label;
use crate::report::charts::chart::{
    HeatChart, LinePoint, MapLine, MapPoint, Rule, RuleAxis, Scale, Series, Style,
};
use crate::report::pages::token_strip::{Strip, StripToken};
use crate::report::{Chart, LineChart};
use crate::stats::{Bin, Interval, wilson};

/// How sure a probe is against how often it is right, before calibration and after it. `errors` are the two expected
/// calibration errors.
pub fn reliability(label: &str, site: &str, method: &str, bins: [&[Bin]; 2], errors: [f64; 2]) -> Chart {
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
        Series { name, points: points.collect(), style, filled: false }
    };
    let n: usize = bins[1].iter().map(|bin| bin.n).sum();
    let least = bins.iter().flat_map(|bins| bins.iter());
    let least = least.map(|bin| bin.confidence.min(bin.right as f64 / bin.n as f64)).fold(1.0, f64::min);
    let least = ((least - 0.05) * 10.0).floor().max(0.0) / 10.0;
    let ends = [least, 1.0].map(|at| LinePoint { x: at, y: at, ..LinePoint::default() });
    let diagonal =
        Series { name: "as sure as right".into(), points: ends.into(), style: Style::Dotted, filled: false };
    Chart::Line(LineChart {
        title: format!("Is it as sure as it is right? {label} at {site}"),
        subtitle: format!(
            "{n} dialogues held out, in bins of equal count; expected calibration error {:.3} before and {:.3} after \
             calibration ({method}); the band is a 95 % interval",
            errors[0], errors[1]
        ),
        x_label: "mean probability of the class that is read".into(),
        y_label: "share that is right".into(),
        x_range: Some([least, 1.0]),
        y_range: Some([least, 1.0]),
        series: vec![
            series("calibrated".into(), bins[1], Style::Solid),
            series("as fitted".into(), bins[0], Style::Dashed),
            diagonal,
        ],
        ..LineChart::default()
    })
}

/// Bars of the margins' distributions.
const MARGIN_BINS: usize = 48;

/// How far the examples of each class lie from the boundary: negative where the probe reads another class.
pub fn margins(label: &str, site: &str, classes: &[String], margins: &[Margin]) -> Chart {
    let signed: Vec<(f64, &Label)> =
        margins.iter().filter_map(|margin| Some((margin.signed()?, margin.label.as_ref()?))).collect();
    let [low, high] = signed
        .iter()
        .fold([0.0f64, 0.0f64], |[low, high], (margin, _)| [low.min(*margin), high.max(*margin)]);
    // The boundary stands between two bars.
    let step = ((high - low) / MARGIN_BINS as f64).max(1e-9);
    let below = (-low / step).ceil() as usize;
    let bars = below + (high / step).ceil().max(1.0) as usize;
    let series = classes.iter().filter_map(|class| {
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
        Some(Series { name: format!("{class} ({})", own.len()), points, style: Style::Solid, filled: true })
    });
    Chart::Line(LineChart {
        title: format!("How far from the boundary: {label} at {site}"),
        subtitle: "distance of each dialogue held out to the nearest face of its region; left of the line the probe reads \
                   another class than the label's"
            .into(),
        x_label: "distance to the boundary (activation units)".into(),
        y_label: "share of the class".into(),
        series: series.collect(),
        rules: vec![Rule { axis: RuleAxis::Vertical, at: 0.0, label: "boundary".into() }],
        ..LineChart::default()
    })
}

/// Where probe and behaviour flip on the way between twins, a point a site.
pub fn crossings(found: &Crossings, summaries: &[Summary]) -> Chart {
    let series = |name: &str, style: Style, of: &dyn Fn(&Summary) -> Option<Interval>| {
        let points = summaries.iter().enumerate().filter_map(|(x, summary)| {
            let at = of(summary)?;
            Some(LinePoint { x: x as f64, y: at.value, low: Some(at.low), high: Some(at.high) })
        });
        Series { name: name.into(), points: points.collect(), style, filled: false }
    };
    let all = [
        series("the probe's reading flips", Style::Solid, &|summary| summary.probe_at),
        series("the answer's strategy flips", Style::Dashed, &|summary| summary.model_at),
    ];
    Chart::Line(LineChart {
        title: format!("Two boundaries between twins: {}", found.label),
        subtitle: format!(
            "mean place of the first flip on the way from one twin's state to the other's, {} pairs that are answered \
             differently; bands are 95 % intervals",
            found.pairs
        ),
        x_label: format!("site, patched at {}", found.tokens),
        y_label: "share of the way (0 first twin, 1 second)".into(),
        x_ticks: Some(ticks(summaries)),
        y_range: Some([0.0, 1.0]),
        series: all.into_iter().filter(|series| !series.points.is_empty()).collect(),
        ..LineChart::default()
    })
}

/// On how many ways anything flips at all, a point a site.
pub fn crossing_shares(found: &Crossings, summaries: &[Summary]) -> Chart {
    let series = |name: &str, style: Style, of: &dyn Fn(&Summary) -> usize| {
        let points = summaries.iter().enumerate().filter_map(|(x, summary)| {
            let share = wilson(of(summary), summary.pairs)?;
            Some(LinePoint { x: x as f64, y: share.value, low: Some(share.low), high: Some(share.high) })
        });
        Series { name: name.into(), points: points.collect(), style, filled: false }
    };
    Chart::Line(LineChart {
        title: format!("Where a patched state decides: {}", found.label),
        subtitle: format!(
            "share of {} pairs on whose way the reading or the answer's strategy flips; bands are 95 % intervals",
            found.pairs
        ),
        x_label: format!("site, patched at {}", found.tokens),
        y_label: "share of pairs".into(),
        x_ticks: Some(ticks(summaries)),
        y_range: Some([0.0, 1.0]),
        series: vec![
            series("the probe's reading flips", Style::Solid, &|summary| summary.probe_flips),
            series("the answer's strategy flips", Style::Dashed, &|summary| summary.model_flips),
            series("it flips in a random direction, as far", Style::Dotted, &|summary| summary.control_flips),
        ],
        ..LineChart::default()
    })
}

fn ticks(summaries: &[Summary]) -> Vec<String> {
    summaries.iter().map(|summary| charts::tick(summary.site)).collect()
}

/// What labels near the boundary are worth beside random ones.
pub fn gain(label: &str, site: &str, gain: &Comparison) -> Chart {
    let series = |name: &str, runs: &[Vec<f64>], style: Style| {
        let points = gain.labels.iter().enumerate().map(|(at, &labels)| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[at]).collect();
            values.sort_by(f64::total_cmp);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            // The middle half of the repeats.
            let quarter =
                |share: f64| values.get((share * (values.len() - 1) as f64).round() as usize).copied();
            LinePoint { x: labels as f64, y: mean, low: quarter(0.25), high: quarter(0.75) }
        });
        Series { name: name.into(), points: points.collect(), style, filled: false }
    };
    Chart::Line(LineChart {
        title: format!("What to label next: {label} at {site}"),
        subtitle: format!(
            "accuracy on {} dialogues held out, by labels bought from a pool of {}; mean and middle half of {} repeats",
            gain.test, gain.pool, gain.settings.repeats
        ),
        x_label: "labels bought".into(),
        y_label: "accuracy".into(),
        series: vec![
            series("nearest to the boundary", &gain.nearest.accuracy, Style::Solid),
            series("at random", &gain.random.accuracy, Style::Dashed),
        ],
        ..LineChart::default()
    })
}

/// Tokens that a heat map shows at most: the last ones.
const SHOWN: usize = 72;

/// A class's probability by block and token.
pub fn tokens(watched: &Watched) -> Chart {
    let skip = watched.tokens.len().saturating_sub(SHOWN);
    let name = |text: &str| if text.trim().is_empty() { "␣".to_owned() } else { text.trim().to_owned() };
    let cut = if skip > 0 { format!("; the first {skip} tokens are left out") } else { String::new() };
    Chart::Heat(HeatChart {
        title: format!("Where in the dialogue it is read: {}", watched.class),
        subtitle: format!(
            "probes of {} fitted at {} (elsewhere a look, not a promise), at every token of dialogue {}{cut}",
            watched.label, watched.fitted_at, watched.id
        ),
        x_label: "token".into(),
        y_label: "site".into(),
        columns: watched.tokens[skip..].iter().map(|token| name(&token.text)).collect(),
        rows: watched.sites.iter().map(|site| charts::tick(*site)).collect(),
        values: watched
            .probabilities
            .iter()
            .map(|row| row[skip..].iter().map(|&p| Some(p)).collect())
            .collect(),
        label: format!("P({})", watched.class),
        range: [0.0, 1.0],
        scale: Scale::Rising,
    })
}

/// The tokens of the last site, each on the colour of its probability.
pub fn strip(watched: &Watched, threshold: Option<f64>) -> Strip {
    let site = watched.sites.last().map(|site| site.to_string()).unwrap_or_default();
    let row = watched.probabilities.last();
    let tokens = watched.tokens.iter().enumerate().map(|(at, token)| StripToken {
        text: token.text.clone(),
        value: row.map(|row| row[at]),
        template: token.template,
        begins: at > 0 && watched.tokens[at - 1].turn != token.turn,
    });
    Strip {
        title: format!("Token by token: {}", watched.class),
        lead: format!(
            "Dialogue {}, read at {site} by a probe of {} that was fitted at {}: elsewhere its probability is a look, not a \
             promise.",
            watched.id, watched.label, watched.fitted_at
        ),
        label: format!("P({})", watched.class),
        threshold,
        tokens: tokens.collect(),
    }
}

/// The cosine between every two directions. `cosines` has a list a direction, a value a direction.
pub fn cosines(names: &[String], cosines: &[Vec<f64>]) -> Chart {
    Chart::Heat(HeatChart {
        title: "How the directions lie to each other".into(),
        subtitle: "cosine between every two probes' directions: 1 is the same, 0 is at right angles".into(),
        x_label: "direction".into(),
        y_label: "direction".into(),
        columns: names.to_vec(),
        // From the lowest up, so that the first stands on top.
        rows: names.iter().rev().cloned().collect(),
        values: cosines.iter().rev().map(|row| row.iter().map(|&value| Some(value)).collect()).collect(),
        label: "cosine".into(),
        range: [-1.0, 1.0],
        scale: Scale::Diverging,
    })
}

/// Ways of dialogues over the map, round by round; points of the map stay as they are.
pub fn drift(map: &RiskMap, drifts: &[Drift]) -> Chart {
    let Chart::Map(mut chart) = charts::risk_map(map) else { return charts::risk_map(map) };
    chart.title = format!("Round by round: {} at {}", map.label, map.site);
    chart.subtitle =
        "each way is one dialogue, read after every message of the user; points are dialogues as wholes"
            .into();
    chart.paths = drifts
        .iter()
        .filter(|drift| drift.places.len() > 1)
        .map(|drift| MapLine {
            name: drift.id.clone(),
            points: drift.places.clone(),
            arrow: true,
            names: (1..=drift.places.len()).map(|round| round.to_string()).collect(),
        })
        .collect();
    // A dialogue of one round is a place, not a way.
    for drift in drifts.iter().filter(|drift| drift.places.len() == 1) {
        let name = format!("{} (one round)", drift.id);
        chart.points.push(MapPoint {
            x: drift.places[0][0],
            y: drift.places[0][1],
            group: chart.groups.len(),
        });
        chart.groups.push(name);
    }
    Chart::Map(chart)
}
