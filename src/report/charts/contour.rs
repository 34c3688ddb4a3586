//! Contours of a grid by marching squares: open lines at which a surface has a value, and closed rings around the region above
//! it. Coordinates are nodes: column, then row.

use std::collections::HashMap;

use super::chart::Grid;

/// A point in grid coordinates.
pub type Node = [f64; 2];

/// A closed contour; the first point is not repeated at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    pub points: Vec<Node>,
    /// Signed: positive if the ring encloses higher values, negative if lower.
    pub area: f64,
}

/// An edge between two nodes: the lower or left node, and whether it runs upwards.
type Edge = (usize, usize, bool);

/// The lines where the surface has the value `level`; they end at the grid's edge and at unknown values.
/// The higher side lies on the left. A closed line ends where it begins.
pub fn lines(grid: &Grid, level: f64) -> Vec<Vec<Node>> {
    let [width, height] = grid.size();
    let known = |column: usize, row: usize| grid.0[row][column];
    trace([width, height], level, &known, false)
}

/// The closed rings that part what is at least `level` from what is less, unknown, or outside of the grid.
/// At `f64::NEG_INFINITY` they go around everything that is known.
pub fn rings(grid: &Grid, level: f64) -> Vec<Ring> {
    let [width, height] = grid.size();
    // A margin of unknown nodes around the grid closes every line.
    let padded = |column: usize, row: usize| {
        let inside = (1..=width).contains(&column) && (1..=height).contains(&row);
        inside.then(|| grid.0[row - 1][column - 1]).flatten()
    };
    let traced = trace([width + 2, height + 2], level, &padded, true);
    let rings = traced.into_iter().map(|mut points| {
        points.pop();
        points.iter_mut().for_each(|point| *point = [point[0] - 1.0, point[1] - 1.0]);
        points.dedup();
        let area = area(&points);
        Ring { points, area }
    });
    rings.filter(|ring| ring.area != 0.0).collect()
}

/// Twice the signed area is the sum of the cross products along the ring.
fn area(points: &[Node]) -> f64 {
    let next = points.iter().cycle().skip(1);
    points.iter().zip(next).map(|(a, b)| (a[0] * b[1] - b[0] * a[1]) / 2.0).sum()
}

fn trace(
    [width, height]: [usize; 2],
    level: f64,
    value: &dyn Fn(usize, usize) -> Option<f64>,
    through_unknown: bool,
) -> Vec<Vec<Node>> {
    let high = |column: usize, row: usize| value(column, row).is_some_and(|value| value >= level);
    // In which order lines leave cells: for the edge by which a line enters, the edge by which it leaves.
    let mut next: HashMap<Edge, Edge> = HashMap::new();
    let mut order = Vec::new();
    for row in 0..height - 1 {
        for column in 0..width - 1 {
            // Corners counter-clockwise from the lower left, and the edge from each corner to the next.
            let corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)];
            let edges = [
                (column, row, false),
                (column + 1, row, true),
                (column, row + 1, false),
                (column, row, true),
            ];
            let known = corners.map(|(column, row)| value(column, row));
            if !through_unknown && known.contains(&None) {
                continue;
            }
            let above = corners.map(|(column, row)| high(column, row));
            // With the higher side on its left, a line enters where the corners fall and leaves where they rise.
            let falls: Vec<usize> = (0..4).filter(|&at| above[at] && !above[(at + 1) % 4]).collect();
            let rises: Vec<usize> = (0..4).filter(|&at| !above[at] && above[(at + 1) % 4]).collect();
            let saddle_is_high =
                known.iter().copied().sum::<Option<f64>>().is_some_and(|sum| sum / 4.0 >= level);
            for &fall in &falls {
                let rise = match (falls.len(), saddle_is_high) {
                    (1, _) => rises[0],
                    (_, true) => (fall + 1) % 4,
                    (_, false) => (fall + 3) % 4,
                };
                next.insert(edges[fall], edges[rise]);
                order.push(edges[fall]);
            }
        }
    }
    let crossing = |(column, row, upwards): Edge| -> Node {
        let (far_column, far_row) = if upwards { (column, row + 1) } else { (column + 1, row) };
        let share = match (value(column, row), value(far_column, far_row)) {
            (Some(near), Some(far)) if level.is_finite() => ((level - near) / (far - near)).clamp(0.0, 1.0),
            // Beside the unknown the line runs through the known node.
            (Some(_), _) => 0.0,
            (None, _) => 1.0,
        };
        let (column, row) = (column as f64, row as f64);
        if upwards { [column, row + share] } else { [column + share, row] }
    };
    // Open lines begin at an edge into which no line leads.
    let reached: std::collections::HashSet<Edge> = next.values().copied().collect();
    let (open, closed): (Vec<Edge>, Vec<Edge>) = order.into_iter().partition(|edge| !reached.contains(edge));
    let mut found = Vec::new();
    for begin in open.into_iter().chain(closed) {
        let mut line = vec![crossing(begin)];
        let mut at = begin;
        while let Some(edge) = next.remove(&at) {
            line.push(crossing(edge));
            at = edge;
        }
        if line.len() > 1 {
            found.push(line);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: [f64; 2] = [-2.0, 2.0];

    fn cone(nodes: usize) -> Grid {
        Grid::of([nodes, nodes], SPAN, SPAN, |x, y| 3.0 - x.hypot(y))
    }

    /// From grid coordinates to x and y.
    fn place(node: Node, nodes: usize) -> [f64; 2] {
        node.map(|at| -2.0 + 4.0 * at / (nodes - 1) as f64)
    }

    #[test]
    fn a_circle_is_closed_and_has_its_radius_and_area() {
        let found = lines(&cone(81), 2.0);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].first(), found[0].last());
        for &node in &found[0] {
            let [x, y] = place(node, 81);
            assert!((x.hypot(y) - 1.0).abs() < 1e-3, "{x} {y}");
        }
        let rings = rings(&cone(81), 2.0);
        let unit = 4.0 / 80.0;
        assert_eq!(rings.len(), 1);
        assert!((rings[0].area * unit * unit - std::f64::consts::PI).abs() < 5e-3);
    }

    #[test]
    fn a_pit_is_a_ring_around_lower_ground() {
        let bowl = Grid::of([81, 81], SPAN, SPAN, |x, y| x.hypot(y));
        let mut areas: Vec<f64> = rings(&bowl, 1.0).iter().map(|ring| ring.area).collect();
        areas.sort_by(f64::total_cmp);
        let unit = 4.0 / 80.0;
        assert_eq!(areas.len(), 2);
        assert!((areas[0] * unit * unit + std::f64::consts::PI).abs() < 5e-3);
        assert_eq!(areas[1], 80.0 * 80.0);
    }

    #[test]
    fn a_plane_gives_one_straight_open_line() {
        let plane = Grid::of([9, 5], [0.0, 8.0], [0.0, 4.0], |x, y| x + 2.0 * y);
        let found = lines(&plane, 5.0);
        assert_eq!(found.len(), 1);
        for [x, y] in &found[0] {
            assert!((x + 2.0 * y - 5.0).abs() < 1e-9);
        }
        let ends = [found[0][0], found[0][found[0].len() - 1]];
        assert!(ends.contains(&[5.0, 0.0]) && ends.contains(&[0.0, 2.5]), "{ends:?}");
        // The higher side lies on the left: the line runs from the upper left to the lower right.
        assert_eq!(ends[0], [0.0, 2.5]);
    }

    #[test]
    fn saddles_follow_the_middle() {
        let saddle = |corner: f64| Grid(vec![vec![Some(corner), Some(0.0)], vec![Some(0.0), Some(corner)]]);
        // The middle (0.75) is above the level: the low corners are cut off, and the high ones are one region.
        assert_eq!(rings(&saddle(1.5), 0.5).len(), 1);
        // The middle (0.5) is below it: two regions.
        assert_eq!(rings(&saddle(1.0), 0.6).len(), 2);
        assert_eq!(lines(&saddle(1.0), 0.6).len(), 2);
    }

    #[test]
    fn lines_stop_at_the_unknown_and_rings_go_around_it() {
        let mut grid = Grid::of([5, 5], [0.0, 4.0], [0.0, 4.0], |x, _| x);
        grid.0[2][2] = None;
        assert_eq!(lines(&grid, 1.5).len(), 2);
        let areas: Vec<f64> = rings(&grid, f64::NEG_INFINITY).iter().map(|ring| ring.area).collect();
        // All 4 × 4 cells, and a hole of half of each of the four cells around the unknown node.
        assert_eq!(areas.len(), 2);
        assert!(areas.contains(&16.0) && areas.contains(&-2.0), "{areas:?}");
    }

    #[test]
    fn a_level_that_is_not_reached_has_no_line() {
        assert!(lines(&cone(9), 7.0).is_empty());
        assert!(lines(&cone(9), -7.0).is_empty());
    }
}
