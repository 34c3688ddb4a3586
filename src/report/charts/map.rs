//! The drawing of a map: a filled surface in bands, grouped points, labelled contours, the safe boundary, the pearl point and
//! paths.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, Label, Spot, text_width};
use super::chart::{Contour, Filled, MapChart};
use super::contour::{Node, lines, rings};
use super::frame;
use super::frame::{Frame, Lattice, Plan, TICK_SIZE};
use super::legend;
use super::legend::{Key, Swatch, styled};
use super::palette;
use super::palette::{AXIS, INK, MASK, SOFT, TEXT, WHITE};

/// The approximate number of colour bands of a surface.
const BANDS: usize = 9;
const BAR_WIDTH: f64 = 16.0;

/// An occupied rectangle: left, top, right, bottom.
type Patch = [f64; 4];

/// Draws a chart that passed [`Chart::check`](super::chart::Chart::check).
pub fn draw(chart: &MapChart) -> Canvas {
    let bands =
        chart.filled.as_ref().and_then(|filled| filled.grid.span()).map(|span| Axis::exact(span, BANDS));
    let mut frame = framed(chart, bands.as_ref());
    if let (Some(filled), Some(bands)) = (&chart.filled, &bands) {
        surface(&mut frame, chart, filled, bands);
        colour_bar(&mut frame, &filled.label, bands);
    }
    let radius = match chart.points.len() {
        0..=150 => 4.2,
        151..=600 => 3.4,
        _ => 2.7,
    };
    let points: Vec<Spot> = chart.points.iter().map(|point| frame.place(point.x, point.y)).collect();
    for (&spot, point) in points.iter().zip(&chart.points) {
        frame.canvas.marker(&palette::marker(point.group), spot, radius, palette::group(point.group));
    }

    let mut taken: Vec<Patch> = Vec::new();
    if let Some(star) = &chart.star {
        let [x, y] = frame.place(star.x, star.y);
        taken.push([x - 14.0, y - 14.0, x + 14.0, y + 14.0]);
    }
    for path in &chart.paths {
        for &[x, y] in &path.points {
            let [x, y] = frame.place(x, y);
            taken.push([x - 8.0, y - 8.0, x + 8.0, y + 8.0]);
        }
    }
    if let Some(safe) = &chart.safe {
        for line in placed(&frame, chart, safe) {
            frame.canvas.stroke(line.clone(), WHITE, 5.0);
            frame.canvas.stroke(line, INK, 2.6);
        }
    }
    let mut names = Vec::new();
    for contour in &chart.contours {
        let found = placed(&frame, chart, contour);
        for line in &found {
            frame.canvas.stroke(line.clone(), WHITE, 3.6);
            styled(&mut frame.canvas, line, INK, 1.5, contour.style);
        }
        names.push((contour.name.as_str(), found));
    }
    frame.enclose();
    for (name, found) in &names {
        let longest = found.iter().max_by(|a, b| length(a).total_cmp(&length(b)));
        if let Some(line) = longest {
            name_line(&mut frame, name, line, &points, &mut taken);
        }
    }
    for (index, path) in chart.paths.iter().enumerate() {
        let spots: Vec<Spot> = path.points.iter().map(|&[x, y]| frame.place(x, y)).collect();
        legend::arrow(&mut frame.canvas, &spots, path.arrow, several(chart, index));
        name_stops(&mut frame, &spots, &path.names);
    }
    if let Some(star) = &chart.star {
        let spot = frame.place(star.x, star.y);
        legend::star(&mut frame.canvas, spot, 9.0);
    }
    frame.canvas
}

/// A path's index, where there are several to tell apart.
fn several(chart: &MapChart, index: usize) -> Option<usize> {
    (chart.paths.len() > 1).then_some(index)
}

fn framed(chart: &MapChart, bands: Option<&Axis>) -> Frame {
    let stars = chart.star.iter().map(|star| [star.x, star.y]);
    let ways = chart.paths.iter().flat_map(|path| path.points.iter().copied());
    let spots: Vec<[f64; 2]> =
        chart.points.iter().map(|point| [point.x, point.y]).chain(stars).chain(ways).collect();
    // The axes cover the grids' ranges; points outside extend them, with a margin.
    let span = |range: [f64; 2], axis: usize| {
        let room = 0.02 * (range[1] - range[0]);
        spots.iter().map(|spot| spot[axis]).fold(range, |[low, high], value| {
            let low = if value < range[0] { low.min(value - room) } else { low };
            [low, if value > range[1] { high.max(value + room) } else { high }]
        })
    };
    let mut keys: Vec<Key> = Vec::new();
    let mut key = |name: &str, swatch: Swatch| keys.push(Key { name: name.into(), swatch });
    if !chart.points.is_empty() {
        for (index, name) in chart.groups.iter().enumerate() {
            key(name, Swatch::Marker { index });
        }
    }
    if let Some(safe) = &chart.safe {
        key(&safe.name, Swatch::Boundary);
    }
    if let Some(star) = &chart.star {
        key(&star.label, Swatch::Star);
    }
    for (index, path) in chart.paths.iter().enumerate() {
        key(&path.name, Swatch::Path { path: several(chart, index), arrow: path.arrow });
    }
    if let Some(name) = chart.filled.as_ref().and_then(|filled| filled.masked.as_ref()) {
        key(name, Swatch::Patch { colour: MASK });
    }
    let bar = bands.map_or(0.0, |bands| {
        let widest =
            bands.ticks.iter().map(|(_, name)| text_width(name, TICK_SIZE, false)).fold(0.0, f64::max);
        16.0 + BAR_WIDTH + 8.0 + widest + 24.0
    });
    Frame::new(Plan {
        title: &chart.title,
        subtitle: &chart.subtitle,
        x_label: &chart.x_label,
        y_label: &chart.y_label,
        keys,
        x: Axis::exact(span(chart.x_range, 0), 7),
        y: Axis::exact(span(chart.y_range, 1), 7),
        rules: &[],
        height: 460.0,
        right: bar,
        lattice: Lattice::Box,
    })
}

/// A line in grid coordinates, converted to pixels.
fn on_page(frame: &Frame, chart: &MapChart, [columns, rows]: [usize; 2], line: &[Node]) -> Vec<Spot> {
    let along =
        |range: [f64; 2], at: f64, count: usize| range[0] + (range[1] - range[0]) * at / (count - 1) as f64;
    line.iter()
        .map(|[column, row]| {
            frame.place(along(chart.x_range, *column, columns), along(chart.y_range, *row, rows))
        })
        .collect()
}

fn placed(frame: &Frame, chart: &MapChart, contour: &Contour) -> Vec<Vec<Spot>> {
    let found = lines(&contour.grid, contour.level);
    found.iter().map(|line| on_page(frame, chart, contour.grid.size(), line)).collect()
}

fn length(line: &[Spot]) -> f64 {
    line.windows(2).map(|pair| (pair[1][0] - pair[0][0]).hypot(pair[1][1] - pair[0][1])).sum()
}

/// The limits between bands, the first one below everything.
fn limits(bands: &Axis) -> Vec<f64> {
    let inside =
        bands.ticks.iter().map(|(value, _)| *value).filter(|&value| bands.low < value && value < bands.high);
    std::iter::once(f64::NEG_INFINITY).chain(inside).collect()
}

/// The colour of a band: that of its middle.
fn band_colour(bands: &Axis, limits: &[f64], index: usize) -> palette::Colour {
    let low = limits[index].max(bands.low);
    let high = limits.get(index + 1).copied().unwrap_or(bands.high);
    palette::surface(((low + high) / 2.0 - bands.low) / (bands.high - bands.low))
}

/// Rings of all limits, painted from the largest to the smallest: since contours never cross, a ring is painted after
/// every ring around it, and shows the band on its inner side.
fn surface(frame: &mut Frame, chart: &MapChart, filled: &Filled, bands: &Axis) {
    frame.canvas.rectangle([frame.left, frame.top], [frame.right, frame.bottom], MASK, 1.0);
    let limits = limits(bands);
    let mut found = Vec::new();
    for (index, &limit) in limits.iter().enumerate() {
        found.extend(rings(&filled.grid, limit).into_iter().map(|ring| (index, ring)));
    }
    // Rings that lie on each other, as they do at the edge, go upwards into higher ground and downwards into lower.
    let order = |index: usize, area: f64| if area > 0.0 { index as i64 } else { -(index as i64) };
    found.sort_by(|(a, one), (b, other)| {
        let by_area = other.area.abs().total_cmp(&one.area.abs());
        by_area.then(order(*a, one.area).cmp(&order(*b, other.area)))
    });
    for (index, ring) in found {
        let inner = if ring.area > 0.0 { Some(index) } else { index.checked_sub(1) };
        let colour = inner.map_or(MASK, |inner| band_colour(bands, &limits, inner));
        let points = on_page(frame, chart, filled.grid.size(), &ring.points);
        frame.canvas.fill(points, colour, 1.0);
    }
}

fn colour_bar(frame: &mut Frame, label: &str, bands: &Axis) {
    let (left, top, bottom) = (frame.right + 16.0, frame.top, frame.bottom);
    let right = left + BAR_WIDTH;
    let place = |value: f64| bottom - (value - bands.low) / (bands.high - bands.low) * (bottom - top);
    let limits = limits(bands);
    for index in 0..limits.len() {
        let low = place(limits[index].max(bands.low));
        let high = limits.get(index + 1).map_or(top, |&limit| place(limit));
        frame.canvas.rectangle([left, high], [right, low], band_colour(bands, &limits, index), 1.0);
    }
    frame.canvas.stroke([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], AXIS, 1.0);
    for (value, name) in &bands.ticks {
        let y = place(*value);
        frame.canvas.stroke([[right, y], [right + 4.0, y]], AXIS, 1.0);
        let spot = [right + 8.0, y + 0.36 * TICK_SIZE];
        frame.canvas.text(Label::new(name, spot, TICK_SIZE, SOFT, Anchor::Start));
    }
    let spot = [frame::WIDTH - 28.0, (top + bottom) / 2.0];
    let name = Label::new(label, spot, 13.0, TEXT, Anchor::Middle);
    frame.canvas.text(Label { turned: true, ..name });
}

/// Writes the labels beside the points of a path, each on a white patch, on the side away from the path.
fn name_stops(frame: &mut Frame, spots: &[Spot], names: &[String]) {
    for (index, (&[x, y], name)) in spots.iter().zip(names).enumerate() {
        let next = spots.get(index + 1).or_else(|| spots.get(index.wrapping_sub(1)));
        let down = next.is_some_and(|next| (next[1] < y) == (index + 1 < spots.len()));
        let middle = [x, if down { y + 15.0 } else { y - 15.0 }];
        let half = text_width(name, TICK_SIZE, true) / 2.0 + 3.0;
        frame.canvas.rectangle(
            [middle[0] - half, middle[1] - 8.0],
            [middle[0] + half, middle[1] + 8.0],
            WHITE,
            0.85,
        );
        let label =
            Label::new(name, [middle[0], middle[1] + 0.36 * TICK_SIZE], TICK_SIZE, INK, Anchor::Middle);
        frame.canvas.text(Label { bold: true, ..label });
    }
}

/// Writes a name on a contour, where it covers the fewest points and the contour is most nearly horizontal.
fn name_line(frame: &mut Frame, name: &str, line: &[Spot], points: &[Spot], taken: &mut Vec<Patch>) {
    let half = [text_width(name, TICK_SIZE, true) / 2.0 + 4.0, 9.0];
    let patch = |[x, y]: Spot| [x - half[0], y - half[1], x + half[0], y + half[1]];
    let cost = |index: usize| {
        let [left, top, right, bottom] = patch(line[index]);
        let inside = frame.left + 3.0 <= left
            && right <= frame.right - 3.0
            && frame.top + 3.0 <= top
            && bottom <= frame.bottom - 3.0;
        let covered =
            points.iter().filter(|[x, y]| left <= *x && *x <= right && top <= *y && *y <= bottom).count();
        let apart =
            |other: &&Patch| left < other[2] && other[0] < right && top < other[3] && other[1] < bottom;
        let overlaps = taken.iter().filter(apart).count();
        let (before, after) = (line[index.saturating_sub(2)], line[(index + 2).min(line.len() - 1)]);
        let steep = (after[1] - before[1]).abs().atan2((after[0] - before[0]).abs());
        covered as f64 + 1.5 * steep + 1000.0 * overlaps as f64 + if inside { 0.0 } else { 1000.0 }
    };
    let costs = (0..line.len()).map(|index| (index, cost(index)));
    if let Some((index, _)) = costs.min_by(|a, b| a.1.total_cmp(&b.1)) {
        let spot = line[index];
        let [left, top, right, bottom] = patch(spot);
        taken.push([left, top, right, bottom]);
        frame.canvas.rectangle([left, top], [right, bottom], WHITE, 0.92);
        let label = Label::new(name, [spot[0], spot[1] + 0.36 * TICK_SIZE], TICK_SIZE, INK, Anchor::Middle);
        frame.canvas.text(Label { bold: true, ..label });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::charts::chart::Grid;

    #[test]
    fn bands_cover_the_surface_from_its_lowest_to_its_highest_value() {
        let bands = Axis::exact([0.12, 0.93], BANDS);
        let limits = limits(&bands);
        assert_eq!(limits[0], f64::NEG_INFINITY);
        assert_eq!(limits.len(), 9, "below 0.2, eight steps of 0.1, {limits:?}");
        assert_eq!(band_colour(&bands, &limits, 0), palette::surface(0.04 / 0.81));
        assert_eq!(band_colour(&bands, &limits, 8), palette::surface((0.915 - 0.12) / 0.81));
    }

    #[test]
    fn a_hole_in_the_surface_stays_unpainted() {
        let range = [-1.0, 1.0];
        let hill = |x: f64, y: f64| if x.hypot(y) < 0.3 { f64::NAN } else { x };
        let filled = Filled {
            label: "satisfaction".into(),
            grid: Grid::of([41, 41], range, range, hill),
            masked: None,
        };
        let chart = MapChart { x_range: range, y_range: range, filled: Some(filled), ..MapChart::default() };
        let svg = draw(&chart).to_svg("hole").unwrap();
        // The hole is painted after the bands around it, in the colour of what is not known.
        let mask = svg.rfind("fill=\"#F0F1F3\"").unwrap();
        let highest = svg.find("fill=\"#FEE838\"").unwrap_or(0);
        assert!(mask > highest && svg.matches("fill=\"#F0F1F3\"").count() >= 2);
    }
}
