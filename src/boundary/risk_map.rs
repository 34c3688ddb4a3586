//! Two-dimensional risk map: labelled points on a plane, and each class's probability on a grid over them, as a table.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::boundary::plane::Plane;
use crate::error::{Error, Result};
use crate::probe::{Link, NONE, Probe, Targets};
use crate::stats;

/// A regular grid, given by its coordinates along both axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Ascending coordinates along x.
    pub x: Vec<f64>,
    /// Ascending coordinates along y.
    pub y: Vec<f64>,
}

impl Grid {
    /// A grid of `cells` × `cells` over points `[x, y]`, with a margin of 5 % on each side.
    ///
    /// # Errors
    /// No points; a point that is not finite; fewer than two cells.
    pub fn over(points: &[[f64; 2]], cells: usize) -> Result<Grid> {
        if points.is_empty() || cells < 2 || points.iter().flatten().any(|value| !value.is_finite()) {
            let found = format!("{} points on {cells} cells, or a point that is not finite", points.len());
            return Err(Error::input("map", found, "finite points and at least two cells"));
        }
        let side = |axis: usize| {
            let values = points.iter().map(|point| point[axis]);
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            // A side without extent gets one, so that the coordinates differ.
            let margin = if high > low { 0.05 * (high - low) } else { 0.5 };
            let (low, step) = (low - margin, (high - low + 2.0 * margin) / (cells - 1) as f64);
            (0..cells).map(|cell| low + step * cell as f64).collect()
        };
        Ok(Grid { x: side(0), y: side(1) })
    }

    /// All points of the grid, x fastest.
    pub fn places(&self) -> impl Iterator<Item = [f64; 2]> + '_ {
        self.y.iter().flat_map(|&y| self.x.iter().map(move |&x| [x, y]))
    }
}

/// An example, projected onto the plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapPoint {
    /// First coordinate.
    pub x: f64,
    /// Second coordinate.
    pub y: f64,
    /// The true class; the first of several.
    pub label: String,
    /// The group.
    pub group: String,
}

/// A class's calibrated probability on the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surface {
    /// The class.
    pub class: String,
    /// `[y][x]`.
    pub values: Vec<Vec<f64>>,
}

/// The map as it is saved (JSON, kind `map`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskMap {
    /// The label that the classes are values of.
    pub label: String,
    /// The site that the probe reads.
    pub site: String,
    /// The plane.
    pub plane: Plane,
    /// The examples.
    pub points: Vec<MapPoint>,
    /// The grid of the surfaces.
    pub grid: Grid,
    /// One for each class of the probe.
    pub surfaces: Vec<Surface>,
    /// Probabilities of the contour lines.
    pub levels: Vec<f64>,
    /// What the examples are: "topic held out", say. None where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What the projection onto the plane does to the probe's reading of the examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<ProjectionError>,
    /// Name of the model; a file's header has its own `model`.
    #[serde(default, rename = "model_name", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For two classes, the AUROC of the second on the examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc: Option<f64>,
    /// The class that the probe has a threshold for, and the probability from which it is flagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<(String, f64)>,
}

/// The change of a probe's reading by the projection of examples onto a plane. It is 0 where the plane holds all that the probe
/// decides on: for two or three classes, and for ordinal ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectionError {
    /// Number of classes.
    pub classes: usize,
    /// Mean |ΔP| of the class that is read from the example itself.
    pub mean_change: f64,
    /// Share of the examples that another class is read from.
    pub other_class: f64,
}

/// Cells a side of [`RiskMap::of_probe`]'s grid: contours look smooth, and the map takes milliseconds.
const CELLS: usize = 61;

impl RiskMap {
    /// The map on [`Plane::of_probe`], with points `[rows, width]` and their targets.
    ///
    /// # Errors
    /// As [`Plane::of_probe`] and [`risk_map`].
    pub fn of_probe(
        probe: &Probe,
        points: ArrayView2<f32>,
        targets: &Targets,
        from: &str,
        to: &str,
    ) -> Result<RiskMap> {
        let plane = Plane::of_probe(probe, points, from, to)?;
        risk_map(probe, plane, points, targets, CELLS)
    }
}

/// The map of a probe on a plane, with points `[rows, width]` and their targets. The surfaces are exact on the plane; where
/// [`Plane::of_probe`] made it for two or three classes, they are exact for every activation that projects onto it.
///
/// # Errors
/// Points, targets, plane and probe of different sizes; fewer than two cells.
pub fn risk_map(
    probe: &Probe,
    plane: Plane,
    points: ArrayView2<f32>,
    targets: &Targets,
    cells: usize,
) -> Result<RiskMap> {
    if points.nrows() != targets.rows() {
        let found = format!("{} points with {} labels", points.nrows(), targets.rows());
        return Err(Error::input("map", found, "a label for each point"));
    }
    let projected = plane.project(points)?;
    let projected: Vec<[f64; 2]> = projected.rows().into_iter().map(|point| [point[0], point[1]]).collect();
    let grid = Grid::over(&projected, cells)?;
    // Logits are affine on the plane: three points determine them.
    let width = plane.origin.len();
    let corners = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]].map(|at| plane.lift(at));
    if width != probe.weight.ncols() {
        let found = format!("a plane of width {width}");
        return Err(Error::input("map", found, format!("width {}", probe.weight.ncols())));
    }
    let weight = probe.weight.mapv(f64::from);
    let [base, east, north] = corners.map(|corner| weight.dot(&corner) + &probe.bias.mapv(f64::from));
    let (along_x, along_y) = (&east - &base, &north - &base);
    let places: Vec<[f64; 2]> = grid.places().collect();
    let logits = Array2::from_shape_fn((places.len(), base.len()), |(place, head)| {
        base[head] + places[place][0] * along_x[head] + places[place][1] * along_y[head]
    });
    let probabilities = probe.from_logits(logits);
    let surfaces = probe.classes.iter().enumerate().map(|(column, class)| Surface {
        class: class.clone(),
        values: probabilities.column(column).to_vec().chunks(grid.x.len()).map(<[f64]>::to_vec).collect(),
    });
    let point = |(row, point): (usize, &[f64; 2])| MapPoint {
        x: point[0],
        y: point[1],
        // Of several labels, the first.
        label: match targets.members.get(row) {
            Some(members) if members.is_empty() => NONE.to_owned(),
            _ => targets.class_names[targets.classes[row]].clone(),
        },
        group: targets.group_names[targets.groups[row]].clone(),
    };
    let lifted = Array2::from_shape_fn((projected.len(), base.len()), |(row, head)| {
        base[head] + projected[row][0] * along_x[head] + projected[row][1] * along_y[head]
    });
    let own = probe.probabilities(points)?;
    let projection = projection_error(&own, &probe.from_logits(lifted));
    let two = probe.link == Link::Binary;
    let positive = || targets.classes.iter().map(|&class| class == 1).collect::<Vec<bool>>();
    Ok(RiskMap {
        split: None,
        projection: Some(projection),
        label: probe.source.label.clone(),
        site: probe.source.site.to_string(),
        points: projected.iter().enumerate().map(point).collect(),
        surfaces: surfaces.collect(),
        model: probe.source.model.clone(),
        auroc: if two { stats::auroc(&own.column(1).to_vec(), &positive()) } else { None },
        threshold: probe.threshold.iter().next().map(|(class, at)| (class.clone(), *at)),
        // Of two classes one surface says all, so that there is room for more of its lines.
        levels: if two { vec![0.1, 0.25, 0.5, 0.75, 0.9] } else { vec![0.5, 0.9] },
        grid,
        plane,
    })
}

/// Compares probabilities `[rows, classes]` of examples with those of their projections.
fn projection_error(own: &Array2<f64>, projected: &Array2<f64>) -> ProjectionError {
    let (rows, classes) = own.dim();
    let best = |row: ndarray::ArrayView1<f64>| {
        (0..classes).reduce(|best, class| if row[class] > row[best] { class } else { best }).unwrap_or(0)
    };
    let (mut change, mut others) = (0.0, 0);
    for (own, projected) in own.rows().into_iter().zip(projected.rows()) {
        let class = best(own);
        change += (own[class] - projected[class]).abs();
        others += usize::from(best(projected) != class);
    }
    let rows = rows.max(1) as f64;
    ProjectionError { classes, mean_change: change / rows, other_class: others as f64 / rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Header, read_json, write_json};
    use crate::boundary::tests::{cloud, probe};
    use crate::probe::Calibration;

    #[test]
    fn the_surface_at_a_place_is_the_probe_there_and_the_map_comes_back() {
        let classes = ["benign", "sensitive", "malicious"];
        let mut probe = probe(cloud(3, 9, 1), &classes);
        probe.calibration = Calibration::Temperature { temperature: 2.0 };
        let points = cloud(12, 9, 2);
        let labels: Vec<&str> = (0..12).map(|row| classes[row % 3]).collect();
        let targets = Targets::new(&labels, &labels, &classes).unwrap();
        let plane = Plane::of_probe(&probe, points.view(), "benign", "malicious").unwrap();
        let map = risk_map(&probe, plane, points.view(), &targets, 11).unwrap();
        let (column, row) = (7, 3);
        let place = map.plane.lift([map.grid.x[column], map.grid.y[row]]).mapv(|v| v as f32);
        let there = probe.probabilities(place.insert_axis(ndarray::Axis(0)).view()).unwrap();
        for (surface, p) in map.surfaces.iter().zip(&there) {
            assert!((surface.values[row][column] - p).abs() < 1e-5);
        }
        assert!(map.projection.unwrap().mean_change < 1e-6);
        assert!(map.points.iter().all(|p| map.grid.x[0] < p.x && p.x < map.grid.x[10]));
        assert_eq!(map.points[4].label, "sensitive");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.json");
        write_json(&path, &Header::new("map", 1), &map).unwrap();
        let back: RiskMap = read_json(&path, "map", 1).unwrap().1;
        assert_eq!((back.label, back.site, back.points.len()), (map.label, map.site, 12));
        for (surface, other) in map.surfaces.iter().zip(&back.surfaces) {
            let pairs = surface.values.iter().flatten().zip(other.values.iter().flatten());
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-15));
        }
    }

    #[test]
    fn a_map_of_five_classes_says_what_the_projection_changes() {
        let classes = ["a", "b", "c", "d", "e"];
        let (probe, points) = (probe(cloud(5, 9, 1), &classes), cloud(40, 9, 2));
        let labels: Vec<&str> = (0..40).map(|row| classes[row % 5]).collect();
        let targets = Targets::new(&labels, &labels, &classes).unwrap();
        let map = RiskMap::of_probe(&probe, points.view(), &targets, "a", "b").unwrap();
        let found = map.projection.unwrap();
        // By hand: the probe on each point and on its foot.
        let own = probe.probabilities(points.view()).unwrap();
        let mut change = 0.0;
        for (row, point) in map.points.iter().enumerate() {
            let foot = map.plane.lift([point.x, point.y]).mapv(|v| v as f32).insert_axis(ndarray::Axis(0));
            let there = probe.probabilities(foot.view()).unwrap();
            let class = (0..5).max_by(|&a, &b| own[[row, a]].total_cmp(&own[[row, b]])).unwrap();
            change += (own[[row, class]] - there[[0, class]]).abs() / 40.0;
        }
        assert!((found.mean_change - change).abs() < 1e-5 && change > 0.01, "{found:?} {change}");
        assert_eq!(found.classes, 5);
    }
}
