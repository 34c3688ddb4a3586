//! The frame around a chart's data: title, legend, axes, grid and reference lines.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Label, Spot, text_width};
use super::chart::{Rule, RuleAxis};
pub use super::layout::{LABEL_SIZE, MARGIN, SLACK, TICK_SIZE, WIDTH};
use super::legend::{Key, draw_key, key_rows};
use super::palette::{AXIS, GRID, INK, SOFT, TEXT, WHITE};

/// The contents of a frame.
pub struct Plan<'a> {
    pub title: &'a str,
    pub subtitle: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    pub keys: Vec<Key>,
    pub x: Axis,
    pub y: Axis,
    pub rules: &'a [Rule],
    /// Height of the data area in pixels.
    pub height: f64,
    /// Space that the chart needs to the right of the data, in pixels.
    pub right: f64,
    pub lattice: Lattice,
}

/// The grid lines, and whether the data area is boxed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lattice {
    /// Horizontal lines at the ticks of y, and the x axis.
    Rows,
    /// A box with tick marks, and light lines in both directions.
    Box,
    /// None: cells fill the data area.
    Bare,
}

/// Text broken between words into lines of at most `width` pixels; a longer word has a line of its own.
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

/// The same number of lines as [`wrap`] gives, but of similar lengths.
fn balanced(text: &str, width: f64, size: f64, bold: bool) -> Vec<String> {
    let mut lines = wrap(text, width, size, bold);
    let mut narrower = width * 0.96;
    while lines.len() > 1 && narrower > width / 2.0 {
        let tighter = wrap(text, narrower, size, bold);
        if tighter.len() > lines.len() {
            break;
        }
        lines = tighter;
        narrower *= 0.96;
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
        let title = balanced(plan.title, inner / SLACK, 17.0, true);
        let subtitle = balanced(plan.subtitle, inner / SLACK, LABEL_SIZE, false);
        let keys = key_rows(&plan.keys, inner);
        let group_width = |left: f64, right: f64| (right - left) / plan.x.ticks.len().max(1) as f64;

        let rule_texts: Vec<Vec<String>> =
            plan.rules.iter().map(|rule| wrap(&rule.label, 130.0, TICK_SIZE, false)).collect();
        let across = |rule: &Rule| rule.axis == RuleAxis::Horizontal;
        let beside = plan.rules.iter().zip(&rule_texts).filter(|(rule, _)| across(rule));
        let beside = beside.flat_map(|(_, lines)| lines).map(|line| text_width(line, TICK_SIZE, false) + 8.0);
        let right = WIDTH - MARGIN - beside.fold(plan.right, f64::max);
        let widest =
            plan.y.ticks.iter().map(|(_, name)| text_width(name, TICK_SIZE, false)).fold(0.0, f64::max);
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
        let shown = match plan.x.turned {
            false => x_labels(&plan.x, group_width(left, right), right - left),
            true => plan.x.ticks.iter().map(|(value, name)| (*value, vec![name.clone()])).collect(),
        };
        let tick_lines = shown.iter().map(|(_, lines)| lines.len()).max().unwrap_or(1);
        let turned =
            plan.x.ticks.iter().map(|(_, name)| text_width(name, turned_size(&plan.x, right - left), false));
        let ticks_bottom = match plan.x.turned {
            false => bottom + 8.0 + 15.0 * tick_lines as f64,
            true => bottom + 10.0 + turned.fold(0.0, f64::max),
        };
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
            if lattice != Lattice::Bare {
                self.canvas.stroke([[left, y], [right, y]], GRID, 1.0);
            }
            let spot = [left - 9.0, y + 0.36 * TICK_SIZE];
            self.canvas.text(Label::new(name, spot, TICK_SIZE, SOFT, Anchor::End));
        }
        for (value, lines) in names {
            let x = self.x_place(*value);
            if lattice == Lattice::Box {
                self.canvas.stroke([[x, top], [x, bottom]], GRID, 1.0);
            }
            if self.x.turned {
                let size = turned_size(&self.x, right - left);
                let name = lines.first().map_or("", String::as_str);
                let label = Label::new(name, [x + 0.36 * size, bottom + 7.0], size, SOFT, Anchor::End);
                self.canvas.text(Label { turned: true, ..label });
                continue;
            }
            for (index, line) in lines.iter().enumerate() {
                let spot = [x, bottom + 19.0 + 15.0 * index as f64];
                self.canvas.text(Label::new(line, spot, TICK_SIZE, SOFT, Anchor::Middle));
            }
        }
        self.canvas.stroke([[left, bottom], [right, bottom]], AXIS, 1.2);
    }

    /// Draws the box around the data area, with tick marks. It is drawn last, over a filled area.
    pub fn enclose(&mut self) {
        let Frame { left, right, top, bottom, .. } = *self;
        self.canvas.stroke(
            [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]],
            AXIS,
            1.2,
        );
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
        let mut upright: Vec<(Spot, &str)> = Vec::new();
        for (rule, lines) in rules.iter().zip(texts) {
            let ends = match rule.axis {
                RuleAxis::Horizontal => {
                    let y = self.y_place(rule.at);
                    beside.push((y, lines));
                    [[self.left, y], [self.right, y]]
                }
                RuleAxis::Vertical => {
                    let x = self.x_place(rule.at);
                    let top = rules_top + 17.0 * above.get(upright.len()).copied().unwrap_or(0) as f64;
                    upright.push(([x, top + 10.0], &rule.label));
                    [[x, top + 15.0], [x, self.bottom]]
                }
            };
            self.canvas.dashes(&ends, AXIS, 1.2, [3.0, 3.5]);
        }
        for ([x, y], name) in upright {
            let half = text_width(name, TICK_SIZE, false) / 2.0;
            let middle = x.clamp(MARGIN + half, (WIDTH - MARGIN - half).max(MARGIN + half));
            let corner = [middle - half - 2.0, y - 10.0];
            self.canvas.rectangle(corner, [middle + half + 2.0, y + 4.0], WHITE, 1.0);
            self.canvas.text(Label::new(name, [middle, y], TICK_SIZE, SOFT, Anchor::Middle));
        }
        // Beside the data from the top down, without overlaps.
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

/// The font size of rotated tick labels: small enough not to overlap, and still legible.
fn turned_size(axis: &Axis, width: f64) -> f64 {
    (width / axis.ticks.len().max(1) as f64 - 0.5).clamp(8.0, TICK_SIZE)
}

/// The row above the data area for the label of each vertical rule, without overlaps, in the order of the rules.
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

/// The tick labels of x, each broken into lines that fit: all of them, or every second, fifth, … If all must be shown,
/// every second one is placed lower instead.
fn x_labels(axis: &Axis, room: f64, width: f64) -> Vec<(f64, Vec<String>)> {
    let broken = |text: &str| wrap(text, room.max(60.0) - 8.0, TICK_SIZE, false);
    let widest =
        |lines: &[String]| lines.iter().map(|line| text_width(line, TICK_SIZE, false)).fold(0.0, f64::max);
    let all: Vec<(f64, Vec<String>)> =
        axis.ticks.iter().map(|(value, text)| (*value, broken(text))).collect();
    let need = all.iter().map(|(_, lines)| widest(lines)).fold(0.0, f64::max) + 8.0;
    let fits = |step: &usize| need * (all.len() as f64 / *step as f64) <= width + need;
    if axis.whole && !fits(&1) && fits(&2) {
        let depth = all.iter().step_by(2).map(|(_, lines)| lines.len()).max().unwrap_or(0);
        let lower = |(index, (value, lines)): (usize, (f64, Vec<String>))| {
            let above = vec![String::new(); if index % 2 == 1 { depth } else { 0 }];
            (value, [above, lines].concat())
        };
        return all.into_iter().enumerate().map(lower).collect();
    }
    let step = [1, 2, 5, 10, 20, 50, 100].into_iter().find(fits).unwrap_or(all.len().max(1));
    all.into_iter().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_upright_rules_do_not_overlap() {
        let rule = |at: f64| Rule { axis: RuleAxis::Vertical, at, label: "best block".into() };
        assert_eq!(rule_rows(&[rule(100.0), rule(120.0), rule(300.0)], |x| x), [0, 1, 0]);
    }

    #[test]
    fn text_is_broken_between_words() {
        let lines = wrap("one two three four", 60.0, 12.0, false);
        assert!(
            lines.len() > 1 && lines.iter().all(|line| text_width(line, 12.0, false) <= 60.0),
            "{lines:?}"
        );
        assert_eq!(lines.join(" "), "one two three four");
    }
}
