//! Pearl map: satisfaction over the plane of risk and steering, the safe boundary, the pearl's region (a point, where it stays
//! one when the answers are drawn again), and one answer before and after steering.

use super::site_axis::ends;
use crate::analysis::pearl_map::SitePearlMap;
use crate::report::charts::chart::{Contour, Filled, Grid, MapLine, Star, Style};
use crate::report::{Chart, MapChart};

/// The chart of a pearl map.
pub fn chart(table: &SitePearlMap) -> Chart {
    Chart::Map(map_chart(table))
}

pub(super) fn map_chart(table: &SitePearlMap) -> MapChart {
    let map = &table.map;
    let is_point = map.spread.is_some_and(|spread| spread.is_point());
    let what = match map.spread {
        None => "no point is safe".to_owned(),
        Some(spread) => format!(
            "the pearl's region holds {:.0} % of the map; redrawn, the point moves over {:.0} % of x and {:.0} % of y",
            100.0 * spread.area,
            100.0 * spread.extent[0],
            100.0 * spread.extent[1]
        ),
    };
    MapChart {
        title: if is_point { "The pearl point" } else { "The pearl region" }.into(),
        subtitle: format!(
            "mean satisfaction of answers with the state at {} moved over the plane; safe: the upper 95 % bound of mean risk is at \
             most {}; {what}",
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
            grid: Grid(map.risk_high.clone()),
            style: Style::Solid,
        }),
        contours: map
            .pearl
            .iter()
            .map(|_| Contour {
                name: "pearl region".into(),
                level: 0.5,
                grid: Grid(map.region.clone()),
                style: Style::Dashed,
            })
            .collect(),
        star: map.pearl.filter(|_| is_point).map(|pearl| Star {
            x: pearl.x,
            y: pearl.y,
            label: "pearl point".into(),
        }),
        paths: map
            .tracks
            .iter()
            .map(|track| MapLine {
                name: track.name.clone(),
                points: track.places.clone(),
                arrow: true,
                names: track.stops.clone(),
            })
            .collect(),
        ..MapChart::default()
    }
}
