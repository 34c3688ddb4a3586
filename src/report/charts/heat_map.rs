//! The drawing of a heat map: a coloured cell for each row and column, with its value if there is space.

use super::axis::{Axis, decimals, number};
use super::canvas::{Anchor, Canvas, Label, text_width};
use super::chart::{HeatChart, Scale};
use super::frame;
use super::frame::{Frame, Lattice, Plan, TICK_SIZE};
use super::palette;
use super::palette::{AXIS, Colour, MASK, SOFT, TEXT, WHITE};

const VALUE_SIZE: f64 = 11.0;
const WORD_SIZE: f64 = 9.0;
const BAR_WIDTH: f64 = 16.0;
/// Steps of the colour bar.
const STEPS: usize = 96;

/// Draws a chart that passed [`Chart::check`](super::chart::Chart::check).
pub fn draw(chart: &HeatChart) -> Canvas {
    let bar = Axis::exact(chart.range, 5);
    let widest = bar.ticks.iter().map(|(_, name)| text_width(name, TICK_SIZE, false)).fold(0.0, f64::max);
    // Names that are wider than their columns are rotated.
    let names = chart.columns.iter().map(|name| text_width(name, TICK_SIZE, false));
    let room = 600.0 / chart.columns.len() as f64;
    let turned = names.fold(0.0, f64::max) > room - 8.0;
    let x = Axis { whole: true, turned, ..Axis::named(&chart.columns) };
    let mut frame = Frame::new(Plan {
        title: &chart.title,
        subtitle: &chart.subtitle,
        x_label: &chart.x_label,
        y_label: &chart.y_label,
        keys: Vec::new(),
        x,
        y: Axis::named(&chart.rows),
        rules: &[],
        height: (chart.rows.len() as f64 * 34.0).clamp(140.0, 460.0),
        right: 16.0 + BAR_WIDTH + 8.0 + widest + 24.0,
        lattice: Lattice::Bare,
    });
    let colour = |value: f64| colour(chart, value);
    let corner = |column: usize, row: usize| frame.place(column as f64 - 0.5, row as f64 - 0.5);
    let [wide, high] = [corner(1, 0)[0] - corner(0, 0)[0], corner(0, 0)[1] - corner(0, 1)[1]];
    let places = decimals(10f64.powf(((chart.range[1] - chart.range[0]) / 50.0).log10().floor()));
    let known = || chart.values.iter().flatten().flatten();
    let fits = |value: &f64| text_width(&number(*value, places), VALUE_SIZE, false) <= wide - 6.0;
    let written = high >= 15.0 && known().all(fits);
    for (row, values) in chart.values.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            let ([left, bottom], [right, top]) = (
                frame.place(column as f64 - 0.5, row as f64 - 0.5),
                frame.place(column as f64 + 0.5, row as f64 + 0.5),
            );
            let ground = value.map_or(MASK, colour);
            frame.canvas.rectangle([left, top], [right, bottom], ground, 1.0);
            let (text, size) = match chart.words.get(row).and_then(|words| words.get(column)) {
                Some(word) => ((high >= WORD_SIZE).then(|| cut(word, wide - 3.0)).flatten(), WORD_SIZE),
                None => (value.filter(|_| written).map(|value| number(value, places)), VALUE_SIZE),
            };
            if let Some(text) = text {
                let spot = [(left + right) / 2.0, (top + bottom) / 2.0 + 0.36 * size];
                let ink = palette::ink_on(ground);
                frame.canvas.text(Label::new(text, spot, size, ink, Anchor::Middle));
            }
        }
    }
    // Thin white lines separate the cells if they are large enough.
    if wide >= 6.0 && high >= 6.0 {
        for column in 1..chart.columns.len() {
            let x = frame.x_place(column as f64 - 0.5);
            frame.canvas.stroke([[x, frame.top], [x, frame.bottom]], WHITE, 1.0);
        }
        for row in 1..chart.rows.len() {
            let y = frame.y_place(row as f64 - 0.5);
            frame.canvas.stroke([[frame.left, y], [frame.right, y]], WHITE, 1.0);
        }
    }
    colour_bar(&mut frame, chart, &bar);
    frame.canvas
}

/// As much of a word as has room, at least two characters of it.
fn cut(word: &str, room: f64) -> Option<String> {
    if text_width(word, WORD_SIZE, false) <= room {
        return Some(word.to_owned());
    }
    let letters: Vec<char> = word.chars().collect();
    let short = |count: usize| letters[..count].iter().chain(&['…']).collect::<String>();
    (2..letters.len()).rev().map(short).find(|text| text_width(text, WORD_SIZE, false) <= room)
}

fn colour(chart: &HeatChart, value: f64) -> Colour {
    let share = (value - chart.range[0]) / (chart.range[1] - chart.range[0]);
    match chart.scale {
        Scale::Rising => palette::surface(share),
        Scale::Diverging => palette::diverging(share),
    }
}

fn colour_bar(frame: &mut Frame, chart: &HeatChart, bar: &Axis) {
    let (left, top, bottom) = (frame.right + 16.0, frame.top, frame.bottom);
    let right = left + BAR_WIDTH;
    let place = |share: f64| bottom - share * (bottom - top);
    for step in 0..STEPS {
        let [low, high] = [step, step + 1].map(|step| step as f64 / STEPS as f64);
        let middle = chart.range[0] + (chart.range[1] - chart.range[0]) * (low + high) / 2.0;
        frame.canvas.rectangle([left, place(high)], [right, place(low)], colour(chart, middle), 1.0);
    }
    frame.canvas.stroke([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], AXIS, 1.0);
    for (value, name) in &bar.ticks {
        let y = place(bar.share(*value));
        frame.canvas.stroke([[right, y], [right + 4.0, y]], AXIS, 1.0);
        let spot = [right + 8.0, y + 0.36 * TICK_SIZE];
        frame.canvas.text(Label::new(name, spot, TICK_SIZE, SOFT, Anchor::Start));
    }
    let spot = [frame::WIDTH - 28.0, (top + bottom) / 2.0];
    let name = Label::new(&chart.label, spot, 13.0, TEXT, Anchor::Middle);
    frame.canvas.text(Label { turned: true, ..name });
    frame.canvas.stroke(
        [
            [frame.left, frame.top],
            [frame.right, frame.top],
            [frame.right, frame.bottom],
            [frame.left, frame.bottom],
            [frame.left, frame.top],
        ],
        AXIS,
        1.2,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(columns: usize) -> HeatChart {
        HeatChart {
            columns: (0..columns).map(|column| format!("token {column}")).collect(),
            rows: vec!["block 0".into(), "block 1".into()],
            values: vec![vec![Some(0.25); columns], vec![None; columns]],
            range: [0.0, 1.0],
            ..HeatChart::default()
        }
    }

    #[test]
    fn values_are_written_where_there_is_room() {
        let text = |columns: usize| draw(&chart(columns)).to_svg("heat").unwrap();
        assert_eq!(text(5).matches("\n0.25\n").count(), 5);
        assert_eq!(text(60).matches("\n0.25\n").count(), 0);
        // Cells without a value are painted as such, and long rows of names are turned.
        assert_eq!(text(5).matches("fill=\"#F0F1F3\"").count(), 5);
        assert_eq!(text(60).matches("rotate(270").count(), 60);
    }

    #[test]
    fn both_ends_of_a_diverging_scale_are_dark_and_its_middle_is_light() {
        let heat = HeatChart { range: [-1.0, 1.0], scale: Scale::Diverging, ..chart(2) };
        let light = |value: f64| colour(&heat, value).iter().map(|&c| u32::from(c)).sum::<u32>();
        assert!(light(0.0) > 720 && light(-1.0) < 400 && light(1.0) < 400);
        assert_ne!(colour(&heat, -1.0), colour(&heat, 1.0));
    }
}
