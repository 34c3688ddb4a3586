//! The legend, and the marks that it shares with the chart: line styles, the pearl point and arrows.

use super::canvas::{Anchor, Canvas, Label, Spot, text_width};
use super::chart::Style;
use super::layout::{LABEL_SIZE, MARGIN, SLACK};
use super::palette;
use super::palette::{AXIS, Colour, INK, TEXT, WHITE, mix};

/// An entry of the legend.
pub struct Key {
    pub name: String,
    pub swatch: Swatch,
}

/// The mark before a name in the legend.
pub enum Swatch {
    Line { index: usize, style: Style, marked: bool },
    Marker { index: usize },
    Patch { colour: Colour },
    Boundary,
    Star,
    Path { path: Option<usize>, arrow: bool },
}

/// The width of a mark in the legend.
fn swatch_width(swatch: &Swatch) -> f64 {
    match swatch {
        Swatch::Line { .. } | Swatch::Boundary | Swatch::Path { .. } => 28.0,
        Swatch::Marker { .. } | Swatch::Patch { .. } => 13.0,
        Swatch::Star => 20.0,
    }
}

/// The legend's rows: each entry with its x coordinate.
pub fn key_rows(keys: &[Key], width: f64) -> Vec<Vec<(&Key, f64)>> {
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

/// Draws an entry; the point is the middle of its left edge.
pub fn draw_key(canvas: &mut Canvas, key: &Key, [x, y]: Spot) {
    let wide = swatch_width(&key.swatch);
    let middle = [x + wide / 2.0, y];
    let ends = [[x + 1.0, y], [x + wide - 1.0, y]];
    match &key.swatch {
        Swatch::Line { index, style, marked } => {
            styled(canvas, &ends, palette::group(*index), 2.2, *style);
            if *marked {
                canvas.marker(&palette::marker(*index), middle, 4.0, palette::group(*index));
            }
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
        Swatch::Path { path, arrow: head } => arrow(canvas, &[[x + 5.0, y], ends[1]], *head, *path),
    }
    let spot = [x + wide + 7.0, y + 0.36 * LABEL_SIZE];
    canvas.text(Label::new(&key.name, spot, LABEL_SIZE, TEXT, Anchor::Start));
}

/// Draws a line in its style.
pub fn styled(canvas: &mut Canvas, points: &[Spot], colour: Colour, width: f64, style: Style) {
    // Round ends extend a dash by half the width on either side.
    match style {
        Style::Solid => canvas.stroke(points, colour, width),
        Style::Dashed => canvas.dashes(points, colour, width, [6.0, 2.5 + width]),
        Style::Dotted => canvas.dashes(points, colour, width, [0.3, 2.2 + width]),
    }
}

/// Draws the star of the pearl point.
pub fn star(canvas: &mut Canvas, spot: Spot, radius: f64) {
    let shape = palette::star();
    canvas.shape(&shape, spot, radius * 1.5, WHITE);
    canvas.shape(&shape, spot, radius * 1.25, INK);
    canvas.shape(&shape, spot, radius * 0.85, WHITE);
}

/// Draws a path from a ring to an arrowhead, with a white rim so that it is visible on any background: dark where it is alone, and
/// one of several, given by its index, in a colour and a style of its own.
pub fn arrow(canvas: &mut Canvas, points: &[Spot], head: bool, path: Option<usize>) {
    let colour = path.map_or(INK, palette::path);
    let style = path.map_or(Style::Solid, |path| [Style::Solid, Style::Dashed, Style::Dotted][path % 3]);
    let [Some(&from), Some(&to)] = [points.first(), points.last()] else {
        return;
    };
    let mut body = points.to_vec();
    let mut tip = Vec::new();
    if head && points.len() > 1 {
        // The direction of the end over some pixels, so that a short last step does not turn the head.
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
    styled(canvas, &body, colour, 2.0, style);
    canvas.fill(tip, colour, 1.0);
    let ring = palette::marker(0);
    canvas.shape(&ring, from, 5.2, WHITE);
    canvas.shape(&ring, from, 4.2, colour);
    canvas.shape(&ring, from, 2.2, WHITE);
}
