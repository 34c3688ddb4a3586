//! Risk map: held-out dialogues on the plane on which the probe decides, with contours of its calibrated probabilities.

use super::site_axis::ends;
use crate::boundary::{self, RiskMap};
use crate::probe;
use crate::report::charts::chart::{Contour, Grid, MapPoint, Style};
use crate::report::{Chart, MapChart};

/// The chart of a risk map.
pub fn chart(map: &RiskMap) -> Chart {
    Chart::Map(map_chart(map))
}

pub(super) fn map_chart(map: &RiskMap) -> MapChart {
    let mut groups: Vec<String> = map.surfaces.iter().map(|surface| surface.class.clone()).collect();
    // Where classes do not exclude one another, a point may have none.
    if map.points.iter().any(|point| point.label == probe::NONE)
        && !groups.iter().any(|group| group == probe::NONE)
    {
        groups.push(probe::NONE.to_owned());
    }
    let point = |point: &boundary::MapPoint| {
        let group = groups.iter().position(|group| *group == point.label)?;
        Some(MapPoint { x: point.x, y: point.y, group })
    };
    let contours = map.surfaces.iter().flat_map(|surface| {
        map.levels.iter().map(|&level| Contour {
            name: format!("P({}) = {level}", surface.class),
            level,
            grid: Grid(
                surface.values.iter().map(|row| row.iter().map(|&value| Some(value)).collect()).collect(),
            ),
            style: if level == 0.5 { Style::Solid } else { Style::Dashed },
        })
    });
    MapChart {
        title: format!("Boundary of {} at {}", map.label, map.site),
        subtitle: "held-out dialogues on the plane on which the probe decides; contours are its calibrated probabilities".into(),
        x_label: format!("{} (activation units)", map.plane.names[0]),
        y_label: format!("{} (activation units)", map.plane.names[1]),
        x_range: ends(&map.grid.x),
        y_range: ends(&map.grid.y),
        points: map.points.iter().filter_map(point).collect(),
        contours: contours.collect(),
        groups,
        ..MapChart::default()
    }
}
