//! Risk map: dialogues on the plane on which the probe decides, or projected onto one, with contours of its calibrated probabilities.

use super::site_axis::ends;
use crate::boundary::{self, RiskMap, Surface};
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
    let contour = |surface: &Surface, name: String, level: f64, style: Style| {
        let row = |row: &Vec<f64>| row.iter().map(|&value| Some(value)).collect();
        Contour { name, level, grid: Grid(surface.values.iter().map(row).collect()), style }
    };
    // The lines of the first of two classes are those of the second.
    let shown = if map.surfaces.len() == 2 { &map.surfaces[1..] } else { &map.surfaces[..] };
    let mut contours: Vec<Contour> = shown
        .iter()
        .flat_map(|surface| {
            map.levels.iter().map(|&level| {
                let style = if level == 0.5 { Style::Solid } else { Style::Dashed };
                contour(surface, format!("P({}) = {level}", surface.class), level, style)
            })
        })
        .collect();
    if let Some((class, level)) = &map.threshold
        && let Some(surface) = map.surfaces.iter().find(|surface| surface.class == *class)
    {
        contours.push(contour(surface, format!("{class} is flagged from {level:.3}"), *level, Style::Dotted));
    }
    MapChart {
        title: match &map.model {
            Some(model) => format!("Boundary of {} at {}, {}", map.label, map.site, short(model)),
            None => format!("Boundary of {} at {}", map.label, map.site),
        },
        subtitle: subtitle(map),
        x_label: format!("{} (activation units)", map.plane.names[0]),
        y_label: format!("{} (activation units)", map.plane.names[1]),
        x_range: ends(&map.grid.x),
        y_range: ends(&map.grid.y),
        points: map.points.iter().filter_map(point).collect(),
        contours,
        groups,
        ..MapChart::default()
    }
}

/// The last part of a path or a hub id.
fn short(model: &str) -> &str {
    model.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(model)
}

/// What the points are, how many, how well the probe reads them, and whether the plane holds all that the probe decides on.
fn subtitle(map: &RiskMap) -> String {
    let points = match &map.split {
        Some(split) => format!("{} dialogues ({split})", map.points.len()),
        None => format!("{} dialogues", map.points.len()),
    };
    let read = map.auroc.map_or(String::new(), |auroc| format!("; AUROC {auroc:.3}"));
    match map.projection {
        Some(found) if found.mean_change > 1e-6 => format!(
            "{points} projected onto a plane{read}; contours are the probe's calibrated probabilities there; it decides on more: the projection \
             changes the probability of the class that it reads by {:.2} on average, and the class of {:.0} %",
            found.mean_change,
            100.0 * found.other_class
        ),
        Some(_) => {
            format!(
                "{points} on the plane on which the probe decides; contours are its calibrated probabilities{read}"
            )
        }
        None => format!(
            "{points} on a plane of the probe's directions; contours are its calibrated probabilities there{read}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::ProjectionError;

    #[test]
    fn a_subtitle_claims_no_more_than_the_map_knows() {
        let mut map: RiskMap = serde_json::from_value(serde_json::json!({
            "label": "kind", "site": "1.resid_post", "points": [], "surfaces": [], "levels": [0.5],
            "grid": {"x": [0.0, 1.0], "y": [0.0, 1.0]},
            "plane": {"origin": [0.0, 0.0], "axes": [[1.0, 0.0], [0.0, 1.0]], "names": ["a", "b"]},
        }))
        .unwrap();
        let unknown = subtitle(&map);
        assert!(!unknown.contains("held out") && !unknown.contains("decides"), "{unknown}");
        map.split = Some("topic held out".into());
        map.projection = Some(ProjectionError { classes: 3, mean_change: 0.0, other_class: 0.0 });
        assert!(
            subtitle(&map)
                .starts_with("0 dialogues (topic held out) on the plane on which the probe decides")
        );
        map.projection = Some(ProjectionError { classes: 5, mean_change: 0.14, other_class: 0.2 });
        let projected = subtitle(&map);
        assert!(projected.contains("decides on more") && projected.contains("0.14"), "{projected}");
    }
}
