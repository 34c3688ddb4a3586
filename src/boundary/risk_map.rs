//! The two-dimensional risk map: labelled points on a plane, and over them the probabilities of each class.
//! It knows nothing of drawing: it is a table that a plot reads.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::boundary::plane::Plane;
use crate::error::{Error, Result};
use crate::probe::{NONE, Probe, Targets};

/// Places at equal distances along both axes, the ends among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    pub x: Vec<f64>,
    pub y: Vec<f64>,
}

impl Grid {
    /// `cells` places a side over points `[x, y]`, with a margin of a twentieth on each side.
    ///
    /// # Errors
    /// If there are no points, one is not finite, or there are fewer than two cells.
    pub fn over(points: &[[f64; 2]], cells: usize) -> Result<Grid> {
        if points.is_empty() || cells < 2 || points.iter().flatten().any(|value| !value.is_finite()) {
            let found = format!("{} points on {cells} cells, or a point that is not finite", points.len());
            return Err(Error::input("map", found, "finite points and at least two cells"));
        }
        let side = |axis: usize| {
            let values = points.iter().map(|point| point[axis]);
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            // A side without extent gets one, so that the places differ.
            let margin = if high > low { 0.05 * (high - low) } else { 0.5 };
            let (low, step) = (low - margin, (high - low + 2.0 * margin) / (cells - 1) as f64);
            (0..cells).map(|cell| low + step * cell as f64).collect()
        };
        Ok(Grid { x: side(0), y: side(1) })
    }

    /// All places, x fastest.
    pub fn places(&self) -> impl Iterator<Item = [f64; 2]> + '_ {
        self.y.iter().flat_map(|&y| self.x.iter().map(move |&x| [x, y]))
    }
}

/// An example's foot on the plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapPoint {
    pub x: f64,
    pub y: f64,
    pub label: String,
    pub group: String,
}

/// A class's calibrated probability at each place of the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surface {
    pub class: String,
    /// A row for each y, in it a value for each x.
    pub values: Vec<Vec<f64>>,
}

/// The map as it is saved (JSON, kind `map`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskMap {
    /// The label that the classes are values of.
    pub label: String,
    pub site: String,
    pub plane: Plane,
    pub points: Vec<MapPoint>,
    pub grid: Grid,
    pub surfaces: Vec<Surface>,
    /// Probabilities at which contours are to be drawn.
    pub levels: Vec<f64>,
}

/// Places a side of [`RiskMap::of_probe`]'s grid: contours look smooth, and a map is computed in milliseconds.
const CELLS: usize = 61;

impl RiskMap {
    /// The map on the plane that the probe itself decides on, with these points `[rows, width]` and what is true of each.
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

/// The probe's probabilities over the plane, with the points `[rows, width]` and their targets. On the plane through
/// its origin the surfaces are exact; for a plane made by [`Plane::of_probe`] of two or three classes they hold for
/// every activation above the place as well.
///
/// # Errors
/// If points, targets, plane and probe do not fit each other, or there are fewer than two cells.
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
    let feet = plane.project(points)?;
    let feet: Vec<[f64; 2]> = feet.rows().into_iter().map(|foot| [foot[0], foot[1]]).collect();
    let grid = Grid::over(&feet, cells)?;
    // Logits are linear on the plane: three readings of the probe say all.
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
    let point = |(row, foot): (usize, &[f64; 2])| MapPoint {
        x: foot[0],
        y: foot[1],
        // A row of several labels stands under its first.
        label: match targets.members.get(row) {
            Some(members) if members.is_empty() => NONE.to_owned(),
            _ => targets.class_names[targets.classes[row]].clone(),
        },
        group: targets.group_names[targets.groups[row]].clone(),
    };
    Ok(RiskMap {
        label: probe.source.label.clone(),
        site: probe.source.site.to_string(),
        points: feet.iter().enumerate().map(point).collect(),
        surfaces: surfaces.collect(),
        levels: vec![0.5, 0.9],
        grid,
        plane,
    })
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
}
