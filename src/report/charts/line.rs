//! The drawing of a line chart: curves, with their intervals as bands.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Label, Spot};
use super::chart::{LineChart, LinePoint, RuleAxis, Series};
use super::frame::{Frame, Lattice, Plan, TICK_SIZE};
use super::legend::{Key, Swatch, styled};
use super::palette;
use super::palette::SOFT;

/// Curves with more points than this are drawn without markers.
const MARKERS: usize = 40;

/// Draws a chart that passed [`Chart::check`](super::chart::Chart::check).
pub fn draw(chart: &LineChart) -> Canvas {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let rules = |axis: RuleAxis| chart.rules.iter().filter(move |rule| rule.axis == axis).map(|rule| rule.at);
    let span = |values: &mut dyn Iterator<Item = f64>| {
        values.fold([f64::MAX, f64::MIN], |[low, high], value| [low.min(value), high.max(value)])
    };
    let [left, right] = span(&mut points().map(|point| point.x).chain(rules(RuleAxis::Vertical)));
    let x = match &chart.x_ticks {
        Some(names) => {
            let named = Axis::named(names);
            Axis { low: named.low.min(left - 0.5), high: named.high.max(right + 0.5), ..named }
        }
        None => {
            let room = 0.02 * (right - left);
            let [least, most] = chart.x_range.unwrap_or([left - room, right + room]);
            Axis::exact([least.min(left), most.max(right)], 8)
        }
    };
    let values = points().flat_map(|point| [Some(point.y), point.low, point.high].into_iter().flatten());
    let [low, high] = span(&mut values.chain(rules(RuleAxis::Horizontal)));
    let y = match chart.y_range {
        Some([least, most]) if least <= low && high <= most => Axis::exact([least, most], 6),
        Some([least, most]) => Axis::round([low.min(least), high.max(most)], 6),
        None => Axis::round([low, high], 6),
    };
    let key = |(index, series): (usize, &Series)| Key {
        name: series.name.clone(),
        swatch: Swatch::Line {
            index: colour(index, series),
            style: series.style,
            marked: series.points.len() <= MARKERS,
        },
    };
    let mut frame = Frame::new(Plan {
        title: &chart.title,
        subtitle: &chart.subtitle,
        x_label: &chart.x_label,
        y_label: &chart.y_label,
        keys: chart.series.iter().enumerate().map(key).collect(),
        x,
        y,
        rules: &chart.rules,
        height: 320.0,
        right: 0.0,
        lattice: Lattice::Rows,
    });
    // Bands first, so that no band hides a curve.
    for (index, series) in chart.series.iter().enumerate() {
        let index = colour(index, series);
        if let (true, Some(first), Some(last)) = (series.filled, series.points.first(), series.points.last())
        {
            let foot = [last, first].map(|point| frame.place(point.x, 0.0));
            let outline = series.points.iter().map(|point| frame.place(point.x, point.y)).chain(foot);
            let outline: Vec<Spot> = outline.collect();
            frame.canvas.fill(outline, palette::group(index), 0.22);
        }
        for band in series.points.chunk_by(|a, b| interval(a).is_some() && interval(b).is_some()) {
            let place = |x: f64, y: f64| frame.place(x, y);
            let bounds = || band.iter().filter_map(|point| Some((point.x, interval(point)?)));
            let lower: Vec<Spot> = bounds().map(|(x, [low, _])| place(x, low)).collect();
            let upper: Vec<Spot> = bounds().map(|(x, [_, high])| place(x, high)).collect();
            match lower.len() {
                0 => {}
                // An interval alone is a whisker.
                1 => frame.canvas.stroke([lower[0], upper[0]], palette::group(index), 1.4),
                _ => {
                    let around: Vec<Spot> = lower.into_iter().chain(upper.into_iter().rev()).collect();
                    frame.canvas.fill(around, palette::group(index), 0.16);
                }
            }
        }
    }
    // The first curve is the main one: it is drawn last, on top.
    for (index, series) in chart.series.iter().enumerate().rev() {
        let index = colour(index, series);
        let spots: Vec<Spot> = series.points.iter().map(|point| frame.place(point.x, point.y)).collect();
        let colour = palette::group(index);
        styled(&mut frame.canvas, &spots, colour, 2.2, series.style);
        if spots.len() <= MARKERS {
            spots.iter().for_each(|&spot| frame.canvas.marker(&palette::marker(index), spot, 3.6, colour));
        }
    }
    for note in &chart.notes {
        let [x, y] = frame.place(note.x, note.y);
        frame.canvas.text(Label::new(&note.text, [x, y - 8.0], TICK_SIZE, SOFT, Anchor::Middle));
    }
    frame.canvas
}

/// The index of a curve's colour and marker.
fn colour(place: usize, series: &Series) -> usize {
    series.colour.unwrap_or(place)
}

fn interval(point: &LinePoint) -> Option<[f64; 2]> {
    Some([point.low?, point.high?])
}
