//! The drawing of a bar chart: groups of bars with their intervals and values.

use super::axis::{Axis, decimals, number};
use super::canvas::{Anchor, Canvas, Label, text_width};
use super::chart::BarChart;
use super::frame::{Frame, Lattice, Plan};
use super::legend::{Key, Swatch};
use super::palette;
use super::palette::{AXIS, INK, TEXT, WHITE};

const VALUE_SIZE: f64 = 11.0;

/// Draws a chart that passed [`Chart::check`](super::chart::Chart::check).
pub fn draw(chart: &BarChart) -> Canvas {
    let bars = || chart.series.iter().flat_map(|series| series.bars.iter().flatten());
    let values = bars().flat_map(|bar| [Some(bar.value), bar.low, bar.high].into_iter().flatten());
    let values = values.chain(chart.rules.iter().map(|rule| rule.at));
    let [low, high] = values.fold([0f64, 0f64], |[low, high], value| [low.min(value), high.max(value)]);
    let y = match chart.y_range {
        Some([least, most]) if least <= low && high <= most => Axis::exact([least, most], 5),
        Some([least, most]) => Axis::round([low.min(least), high.max(most)], 5),
        None => Axis::round([low, high], 5),
    };
    // One digit more than a fiftieth of the axis needs.
    let places = decimals(10f64.powf(((y.high - y.low) / 50.0).log10().floor()));
    let key = |(index, series): (usize, &crate::report::charts::chart::BarSeries)| Key {
        name: series.name.clone(),
        swatch: Swatch::Patch { colour: palette::group(index) },
    };
    let mut frame = Frame::new(Plan {
        title: &chart.title,
        subtitle: &chart.subtitle,
        x_label: &chart.x_label,
        y_label: &chart.y_label,
        keys: chart.series.iter().enumerate().map(key).collect(),
        x: Axis { whole: true, ..Axis::named(&chart.groups) },
        y,
        rules: &chart.rules,
        height: 320.0,
        right: 0.0,
        lattice: Lattice::Rows,
    });
    let step = frame.x_place(1.0) - frame.x_place(0.0);
    let wide = (step * 0.8 / chart.series.len() as f64).min(64.0);
    // Either all values are written, or none.
    let fits = |value: f64| text_width(&number(value, places), VALUE_SIZE, false) <= wide - 1.0;
    let written = bars().all(|bar| fits(bar.value));
    let zero = frame.y_place(0.0);
    for (index, series) in chart.series.iter().enumerate() {
        for (group, bar) in series.bars.iter().enumerate() {
            let Some(bar) = bar else { continue };
            let shift = index as f64 - (chart.series.len() as f64 - 1.0) / 2.0;
            let middle = frame.x_place(group as f64) + shift * wide;
            let half = wide * 0.44;
            let end = frame.y_place(bar.value);
            frame.canvas.rectangle(
                [middle - half, end.min(zero)],
                [middle + half, end.max(zero)],
                palette::group(index),
                1.0,
            );
            let mut top = end.min(zero);
            let mut foot = end.max(zero);
            if let (Some(low), Some(high)) = (bar.low, bar.high) {
                let [low, high] = [frame.y_place(low), frame.y_place(high)];
                let cap = half.min(5.0);
                frame.canvas.stroke([[middle, low], [middle, high]], INK, 1.2);
                for y in [low, high] {
                    frame.canvas.stroke([[middle - cap, y], [middle + cap, y]], INK, 1.2);
                }
                [top, foot] = [top.min(high), foot.max(low)];
            }
            let text = number(bar.value, places);
            if written {
                // Beyond the bar and its whisker, on white so that no line crosses it.
                let y = if bar.value < 0.0 { foot + 13.0 } else { top - 5.0 };
                let wide = text_width(&text, VALUE_SIZE, false) / 2.0 + 1.0;
                frame.canvas.rectangle([middle - wide, y - 9.0], [middle + wide, y + 1.0], WHITE, 0.8);
                frame.canvas.text(Label::new(text, [middle, y], VALUE_SIZE, TEXT, Anchor::Middle));
            }
        }
    }
    frame.canvas.stroke([[frame.left, zero], [frame.right, zero]], AXIS, 1.2);
    frame.canvas
}
