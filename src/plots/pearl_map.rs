//! Pearl map: satisfaction over the plane of risk and steering, the safe boundary, the pearl point, and one answer before and
//! after steering.

use super::site_axis::ends;
use crate::analysis::pearl_map::SitePearlMap;
use crate::report::charts::chart::{Contour, Filled, Grid, MapLine, Star, Style};
use crate::report::{Chart, MapChart};

/// The chart of a pearl map.
pub fn chart(table: &SitePearlMap) -> Chart {
    let map = &table.map;
    Chart::Map(MapChart {
        title: "The pearl point".into(),
        subtitle: format!(
            "mean satisfaction of answers with the state at {} moved over the plane; outside the safe boundary mean risk \
             exceeds {}",
            table.site, map.tolerance
        ),
        x_label: format!("probe: {} (activation units)", table.axes[0]),
        y_label: format!("steering: {} (activation units)", table.axes[1]),
        x_range: ends(&map.grid.x),
        y_range: ends(&map.grid.y),
        filled: Some(Filled {
            label: "satisfaction".into(),
            grid: Grid(map.satisfaction.clone()),
            masked: Some("too few answers".into()),
        }),
        safe: Some(Contour {
            name: "safe boundary".into(),
            level: map.tolerance,
            grid: Grid(map.risk.clone()),
            style: Style::Solid,
        }),
        star: map.pearl.map(|pearl| Star { x: pearl.x, y: pearl.y, label: "pearl point".into() }),
        paths: map
            .tracks
            .iter()
            .map(|track| MapLine {
                name: track.name.clone(),
                points: track.places.clone(),
                arrow: true,
                names: Vec::new(),
            })
            .collect(),
        ..MapChart::default()
    })
}
