//! What stands around the data of every plot: title, legend, axes, grid and reference lines.
//! It knows nothing of what is drawn inside.

use super::canvas::{Anchor, Canvas, Label, Spot, text_width};
use super::chart::{Rule, RuleAxis, Style};
use super::palette::{self, AXIS, Colour, GRID, INK, SOFT, TEXT, WHITE, mix};

pub const WIDTH: f64 = 800.0;
const MARGIN: f64 = 24.0;
pub const TICK_SIZE: f64 = 12.0;
const LABEL_SIZE: f64 = 13.0;
/// A viewer without the plots' own font may set text this much wider.
const SLACK: f64 = 1.08;

/// What a plot is framed with.
pub struct Plan<'a> {
    pub title: &'a str,
    pub subtitle: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    pub keys: Vec<Key>,
    pub x: Axis,
    pub y: Axis,
    pub rules: &'a [Rule],
    /// Height of the data's rectangle in pixels.
    pub height: f64,
    /// Room that the plot needs to the right of the data.
    pub right: f64,
    pub lattice: Lattice,
}

/// Which lines help the eye, and whether the data stands in a box.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lattice {
    /// Lines across at the ticks of y, and the x axis.
    Rows,
    /// A box with tick marks; light lines both ways.
    Box,
}

/// A line of the legend.
pub struct Key {
    pub name: String,
    pub swatch: Swatch,
}

/// The sign before a legend's name.
pub enum Swatch {
    Line { index: usize, style: Style },
    Marker { index: usize },
    Patch { colour: Colour },
    Boundary,
    Star,
    Arrow,
    Path,
}

/// From values to a share of the way along an axis, and the values that are named.
#[derive(Clone, Debug)]
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Over exactly this range, with about `count` ticks at round values inside.
    pub fn exact([low, high]: [f64; 2], count: usize) -> Axis {
        let [low, high] = if low < high { [low, high] } else { [low - 0.5, high + 0.5] };
        let step = round_step((high - low) / count as f64);
        let ticks = (((low / step) - 1e-6).ceil() as i64..=((high / step) + 1e-6).floor() as i64)
            .map(|index| index as f64 * step)
            .map(|value| (value, number(value, decimals(step))))
            .collect();
        Axis { low, high, ticks }
    }

    /// From round value to round value around this range.
    pub fn round([low, high]: [f64; 2], count: usize) -> Axis {
        let [low, high] = if low < high { [low, high] } else { [low - 0.5, high + 0.5] };
        let step = round_step((high - low) / count as f64);
        Axis::exact([(low / step + 1e-6).floor() * step, (high / step - 1e-6).ceil() * step], count)
    }

    /// Named whole numbers, with half a step of room at either end.
    pub fn named(names: &[String]) -> Axis {
        let ticks = names.iter().enumerate().map(|(index, name)| (index as f64, name.clone()));
        Axis { low: -0.5, high: names.len() as f64 - 0.5, ticks: ticks.collect() }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let of = |factor: &f64| factor * power >= least * (1.0 - 1e-9);
    [1.0, 2.0, 5.0].into_iter().find(of).unwrap_or(10.0) * power
}

/// The decimals by which values that are `step` apart differ.
pub fn decimals(step: f64) -> usize {
    (0..8).find(|&places| {
        let grown = step * 10f64.powi(places);
        (grown - grown.round()).abs() < 1e-6 * grown.abs().max(1.0) && grown.round() != 0.0
    })
    .map_or(2, |places| places as usize)
}

/// With a true minus sign, and no minus before nothing.
pub fn number(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|byte| matches!(byte, b'0' | b'.')) => rest.into(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// Lines of at most `width` pixels, broken between words; a word that is longer has a line of its own.
pub fn wrap(text: &str, width: f64, size: f64, bold: bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size, bold) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// A framed canvas, ready for the data.
pub struct Frame {
    pub canvas: Canvas,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    x: Axis,
    y: Axis,
}

impl Frame {
    pub fn new(plan: Plan) -> Frame {
        let inner = WIDTH - 2.0 * MARGIN;
        let title = wrap(plan.title, inner / SLACK, 17.0, true);
        let subtitle = wrap(plan.subtitle, inner / SLACK, LABEL_SIZE, false);
        let keys = key_rows(&plan.keys, inner);
        let group_width = |left: f64, right: f64| (right - left) / plan.x.ticks.len().max(1) as f64;

        let rule_texts: Vec<Vec<String>> =
            plan.rules.iter().map(|rule| wrap(&rule.label, 130.0, TICK_SIZE, false)).collect();
        let across = |rule: &Rule| rule.axis == RuleAxis::Horizontal;
        let beside = plan.rules.iter().zip(&rule_texts).filter(|(rule, _)| across(rule));
        let beside = beside.flat_map(|(_, lines)| lines).map(|line| text_width(line, TICK_SIZE, false) + 8.0);
        let right = WIDTH - MARGIN - beside.fold(plan.right, f64::max);
        let widest = plan.y.ticks.iter().map(|(_, name)| text_width(name, TICK_SIZE, false)).fold(0.0, f64::max);
        let left = MARGIN + LABEL_SIZE + 12.0 + widest + 9.0;

        // From the top down.
        let title_top = 18.0;
        let subtitle_top = title_top + 22.0 * title.len() as f64;
        let keys_top = subtitle_top + 18.0 * subtitle.len() as f64 + 8.0;
        let rules_top = keys_top + 22.0 * keys.len() as f64 + 14.0;
        let x_place = |value: f64| left + plan.x.share(value) * (right - left);
        let above = rule_rows(plan.rules, x_place);
        let top = rules_top + 17.0 * above.iter().map(|row| row + 1).max().unwrap_or(0) as f64;
        let bottom = top + plan.height;
        let shown = x_labels(&plan.x, group_width(left, right), right - left);
        let tick_lines = shown.iter().map(|(_, lines)| lines.len()).max().unwrap_or(1);
        let ticks_bottom = bottom + 8.0 + 15.0 * tick_lines as f64;
        let height = ticks_bottom + 24.0 + MARGIN - 6.0;

        let mut canvas = Canvas::new(WIDTH, height.ceil());
        canvas.rectangle([0.0, 0.0], [WIDTH, height.ceil()], WHITE, 1.0);
        for (index, line) in title.iter().enumerate() {
            let spot = [MARGIN, title_top + 15.0 + 22.0 * index as f64];
            canvas.text(Label { bold: true, ..Label::new(line, spot, 17.0, INK, Anchor::Start) });
        }
        for (index, line) in subtitle.iter().enumerate() {
            let spot = [MARGIN, subtitle_top + 14.0 + 18.0 * index as f64];
            canvas.text(Label::new(line, spot, LABEL_SIZE, SOFT, Anchor::Start));
        }
        for (index, row) in keys.iter().enumerate() {
            for (key, x) in row {
                draw_key(&mut canvas, key, [*x, keys_top + 11.0 + 22.0 * index as f64]);
            }
        }
        let mut frame = Frame { canvas, left, right, top, bottom, x: plan.x, y: plan.y };
        frame.axes(plan.lattice, &shown);
        let middle = [(left + right) / 2.0, ticks_bottom + 20.0];
        frame.canvas.text(Label::new(plan.x_label, middle, LABEL_SIZE, TEXT, Anchor::Middle));
        let beside = [MARGIN + LABEL_SIZE - 2.0, (top + bottom) / 2.0];
        let y_label = Label::new(plan.y_label, beside, LABEL_SIZE, TEXT, Anchor::Middle);
        frame.canvas.text(Label { turned: true, ..y_label });
        frame.rules(plan.rules, &rule_texts, &above, rules_top);
        frame
    }

    pub fn x_place(&self, x: f64) -> f64 {
        self.left + self.x.share(x) * (self.right - self.left)
    }

    pub fn y_place(&self, y: f64) -> f64 {
        self.bottom - self.y.share(y) * (self.bottom - self.top)
    }

    pub fn place(&self, x: f64, y: f64) -> Spot {
        [self.x_place(x), self.y_place(y)]
    }

    fn axes(&mut self, lattice: Lattice, names: &[(f64, Vec<String>)]) {
        let Frame { left, right, top, bottom, .. } = *self;
        for (value, name) in self.y.ticks.clone() {
            let y = self.y_place(value);
            self.canvas.stroke([[left, y], [right, y]], GRID, 1.0);
            let spot = [left - 9.0, y + 0.36 * TICK_SIZE];
            self.canvas.text(Label::new(name, spot, TICK_SIZE, SOFT, Anchor::End));
        }
        for (value, lines) in names {
            let x = self.x_place(*value);
            if lattice == Lattice::Box {
                self.canvas.stroke([[x, top], [x, bottom]], GRID, 1.0);
            }
            for (index, line) in lines.iter().enumerate() {
                let spot = [x, bottom + 19.0 + 15.0 * index as f64];
                self.canvas.text(Label::new(line, spot, TICK_SIZE, SOFT, Anchor::Middle));
            }
        }
        self.canvas.stroke([[left, bottom], [right, bottom]], AXIS, 1.2);
    }

    /// The box around the data, with its tick marks: drawn last, over what fills the data's rectangle.
    pub fn enclose(&mut self) {
        let Frame { left, right, top, bottom, .. } = *self;
        self.canvas.stroke([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], AXIS, 1.2);
        for (value, _) in self.x.ticks.clone() {
            let x = self.x_place(value);
            self.canvas.stroke([[x, bottom], [x, bottom + 4.0]], AXIS, 1.2);
        }
        for (value, _) in self.y.ticks.clone() {
            let y = self.y_place(value);
            self.canvas.stroke([[left - 4.0, y], [left, y]], AXIS, 1.2);
        }
    }

    fn rules(&mut self, rules: &[Rule], texts: &[Vec<String>], above: &[usize], rules_top: f64) {
        let mut beside: Vec<(f64, &Vec<String>)> = Vec::new();
        let mut rows = above.iter();
        for (rule, lines) in rules.iter().zip(texts) {
            let ends = match rule.axis {
                RuleAxis::Horizontal => {
                    let y = self.y_place(rule.at);
                    beside.push((y, lines));
                    [[self.left, y], [self.right, y]]
                }
                RuleAxis::Vertical => {
                    let x = self.x_place(rule.at);
                    let top = rules_top + 17.0 * *rows.next().unwrap_or(&0) as f64;
                    let half = text_width(&rule.label, TICK_SIZE, false) / 2.0;
                    let middle = x.clamp(MARGIN + half, (WIDTH - MARGIN - half).max(MARGIN + half));
                    let spot = [middle, top + 10.0];
                    self.canvas.text(Label::new(&rule.label, spot, TICK_SIZE, SOFT, Anchor::Middle));
                    [[x, top + 15.0], [x, self.bottom]]
                }
            };
            self.canvas.dashes(&ends, AXIS, 1.2, [3.0, 3.5]);
        }
        // Beside the plot from the top down, each below the one before it.
        beside.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = f64::MIN;
        for (y, lines) in beside {
            let top = (y - 7.5 * lines.len() as f64).max(free);
            for (index, line) in lines.iter().enumerate() {
                let spot = [self.right + 8.0, top + 11.8 + 15.0 * index as f64];
                self.canvas.text(Label::new(line, spot, TICK_SIZE, SOFT, Anchor::Start));
            }
            free = top + 15.0 * lines.len() as f64;
        }
    }
}

/// The row above the plot in which each vertical rule's label finds room, in the order of the rules.
fn rule_rows(rules: &[Rule], place: impl Fn(f64) -> f64) -> Vec<usize> {
    let mut taken: Vec<Vec<[f64; 2]>> = Vec::new();
    let upright = rules.iter().filter(|rule| rule.axis == RuleAxis::Vertical);
    upright
        .map(|rule| {
            let half = text_width(&rule.label, TICK_SIZE, false) / 2.0 + 6.0;
            let span = [place(rule.at) - half, place(rule.at) + half];
            let free = |row: &Vec<[f64; 2]>| row.iter().all(|other| span[1] < other[0] || other[1] < span[0]);
            let row = taken.iter().position(free).unwrap_or(taken.len());
            taken.resize_with(taken.len().max(row + 1), Vec::new);
            taken[row].push(span);
            row
        })
        .collect()
}

/// The ticks of x that are written, each in lines that fit: every one, or every second, fifth, …
fn x_labels(axis: &Axis, room: f64, width: f64) -> Vec<(f64, Vec<String>)> {
    let broken = |text: &str| wrap(text, room.max(60.0) - 8.0, TICK_SIZE, false);
    let widest = |lines: &[String]| lines.iter().map(|line| text_width(line, TICK_SIZE, false)).fold(0.0, f64::max);
    let all: Vec<(f64, Vec<String>)> = axis.ticks.iter().map(|(value, text)| (*value, broken(text))).collect();
    let need = all.iter().map(|(_, lines)| widest(lines)).fold(0.0, f64::max) + 8.0;
    let fits = |step: &usize| need * (all.len() as f64 / *step as f64) <= width + need;
    let step = [1, 2, 5, 10, 20, 50, 100].into_iter().find(fits).unwrap_or(all.len().max(1));
    all.into_iter().step_by(step).collect()
}

/// Room for the sign before a legend's name.
fn swatch_width(swatch: &Swatch) -> f64 {
    match swatch {
        Swatch::Line { .. } | Swatch::Boundary | Swatch::Arrow | Swatch::Path => 28.0,
        Swatch::Marker { .. } | Swatch::Patch { .. } => 13.0,
        Swatch::Star => 20.0,
    }
}

/// The legend's rows: a key and where it begins.
fn key_rows(keys: &[Key], width: f64) -> Vec<Vec<(&Key, f64)>> {
    let mut rows: Vec<Vec<(&Key, f64)>> = Vec::new();
    let mut x = f64::MAX;
    for key in keys {
        let wide = swatch_width(&key.swatch) + 7.0 + SLACK * text_width(&key.name, LABEL_SIZE, false);
        if x + wide > MARGIN + width {
            rows.push(Vec::new());
            x = MARGIN;
        }
        if let Some(row) = rows.last_mut() {
            row.push((key, x));
        }
        x += wide + 16.0;
    }
    rows
}

fn draw_key(canvas: &mut Canvas, key: &Key, [x, y]: Spot) {
    let wide = swatch_width(&key.swatch);
    let middle = [x + wide / 2.0, y];
    let ends = [[x + 1.0, y], [x + wide - 1.0, y]];
    match &key.swatch {
        Swatch::Line { index, style } => {
            styled(canvas, &ends, palette::group(*index), 2.2, *style);
            canvas.marker(&palette::marker(*index), middle, 4.0, palette::group(*index));
        }
        Swatch::Marker { index } => {
            canvas.marker(&palette::marker(*index), middle, 5.0, palette::group(*index));
        }
        Swatch::Patch { colour } => {
            canvas.rectangle([x, y - 6.5], [x + wide, y + 6.5], mix(*colour, AXIS, 0.4), 1.0);
            canvas.rectangle([x + 1.0, y - 5.5], [x + wide - 1.0, y + 5.5], *colour, 1.0);
        }
        Swatch::Boundary => canvas.stroke(ends, INK, 2.6),
        Swatch::Star => star(canvas, middle, 8.0),
        Swatch::Arrow => arrow(canvas, &[[x + 5.0, y], ends[1]], true),
        Swatch::Path => arrow(canvas, &[[x + 5.0, y], ends[1]], false),
    }
    let spot = [x + wide + 7.0, y + 0.36 * LABEL_SIZE];
    canvas.text(Label::new(&key.name, spot, LABEL_SIZE, TEXT, Anchor::Start));
}

/// A line in its style.
pub fn styled(canvas: &mut Canvas, points: &[Spot], colour: Colour, width: f64, style: Style) {
    // Ends are round, and so reach beyond a dash by half the width.
    match style {
        Style::Solid => canvas.stroke(points, colour, width),
        Style::Dashed => canvas.dashes(points, colour, width, [6.0, 2.5 + width]),
        Style::Dotted => canvas.dashes(points, colour, width, [0.3, 2.2 + width]),
    }
}

/// The pearl point.
pub fn star(canvas: &mut Canvas, spot: Spot, radius: f64) {
    let shape = palette::star();
    canvas.shape(&shape, spot, radius * 1.5, WHITE);
    canvas.shape(&shape, spot, radius * 1.25, INK);
    canvas.shape(&shape, spot, radius * 0.85, WHITE);
}

/// A way from a ring to a head, dark with a white rim so that it shows on any ground.
pub fn arrow(canvas: &mut Canvas, points: &[Spot], head: bool) {
    let [Some(&from), Some(&to)] = [points.first(), points.last()] else { return };
    let mut body = points.to_vec();
    let mut tip = Vec::new();
    if head && points.len() > 1 {
        // The direction of the end, taken over some pixels, so that a last short step does not turn the head.
        let far = |spot: &&Spot| (to[0] - spot[0]).hypot(to[1] - spot[1]) > 8.0;
        let before = points.iter().rev().find(far).copied().unwrap_or(from);
        let length = (to[0] - before[0]).hypot(to[1] - before[1]).max(1e-9);
        let [x, y] = [(to[0] - before[0]) / length, (to[1] - before[1]) / length];
        let back = [to[0] - 10.0 * x, to[1] - 10.0 * y];
        tip = vec![to, [back[0] - 5.0 * y, back[1] + 5.0 * x], [back[0] + 5.0 * y, back[1] - 5.0 * x]];
        body.retain(|spot| (to[0] - spot[0]).hypot(to[1] - spot[1]) > 8.0);
        body.push([to[0] - 8.0 * x, to[1] - 8.0 * y]);
    }
    canvas.stroke(body.clone(), WHITE, 4.6);
    if !tip.is_empty() {
        let closed = [tip.clone(), vec![to]].concat();
        canvas.stroke(closed, WHITE, 2.6);
    }
    canvas.stroke(body, INK, 2.0);
    canvas.fill(tip, INK, 1.0);
    let ring = palette::marker(0);
    canvas.shape(&ring, from, 5.2, WHITE);
    canvas.shape(&ring, from, 4.2, INK);
    canvas.shape(&ring, from, 2.2, WHITE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> String {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_stand_at_round_values() {
        assert_eq!(names(&Axis::exact([0.4, 1.0], 6)), "0.4 0.5 0.6 0.7 0.8 0.9 1.0");
        assert_eq!(names(&Axis::exact([-3.0, 3.0], 6)), "−3 −2 −1 0 1 2 3");
        assert_eq!(names(&Axis::round([0.0, 93.0], 5)), "0 20 40 60 80 100");
        assert_eq!(names(&Axis::round([0.0013, 0.0049], 5)), "0.001 0.002 0.003 0.004 0.005");
        // A range of nothing gets half a unit on either side.
        assert_eq!(names(&Axis::exact([7.0, 7.0], 2)), "6.5 7.0 7.5");
    }

    #[test]
    fn numbers_have_a_true_minus_and_no_minus_zero() {
        assert_eq!(number(-1.25, 1), "−1.2");
        assert_eq!(number(-0.001, 2), "0.00");
    }

    #[test]
    fn labels_of_upright_rules_do_not_overlap() {
        let rule = |at: f64| Rule { axis: RuleAxis::Vertical, at, label: "best block".into() };
        assert_eq!(rule_rows(&[rule(100.0), rule(120.0), rule(300.0)], |x| x), [0, 1, 0]);
    }

    #[test]
    fn text_is_broken_between_words() {
        let lines = wrap("one two three four", 60.0, 12.0, false);
        assert!(lines.len() > 1 && lines.iter().all(|line| text_width(line, 12.0, false) <= 60.0), "{lines:?}");
        assert_eq!(lines.join(" "), "one two three four");
    }
}
