//! Paths of refined answers: the pearl map of the value probes' plane, with the steps y0 → y1 → … of some refinements over it.

use super::pearl_map;
use crate::analysis::pearl_map::SitePearlMap;
use crate::report::{Chart, MapChart};

/// The chart of a map with paths.
pub fn chart(table: &SitePearlMap) -> Chart {
    let map = pearl_map::map_chart(table);
    Chart::Map(MapChart {
        title: "From a failing answer to one that is safe and satisfies".into(),
        subtitle: format!(
            "mean satisfaction of {} answers after strategies drawn at random, by the state at {} behind the thinking part; safe: the upper \
             95 % bound of mean risk is at most {}; arrows: the answers y0, y1, … of refinements (Lingo-BP)",
            table.map.samples.len(),
            table.site,
            table.map.tolerance
        ),
        x_label: format!("value probe: {} (activation units)", table.axes[0]),
        y_label: format!("value probe: {} (activation units)", table.axes[1]),
        contours: Vec::new(),
        star: None,
        ..map
    })
}
