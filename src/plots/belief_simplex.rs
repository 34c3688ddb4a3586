//! Belief simplex of a game with three types of users, coloured by the model's likeliest action.

use crate::game::BeliefMap;
use crate::report::Chart;
use crate::report::charts::chart::{MapChart, MapLine, MapPoint};

/// The corners: the first type at the left, the second at the right, the third on top.
const CORNERS: [[f64; 2]; 3] = [[0.0, 0.0], [1.0, 0.0], [0.5, 0.866_025_403_784_438_6]];

/// The chart of a belief map.
pub fn chart(map: &BeliefMap) -> Chart {
    let place = |belief: &[f64]| -> [f64; 2] {
        [0, 1].map(|axis| belief.iter().zip(CORNERS).map(|(p, corner)| p * corner[axis]).sum())
    };
    let points = map.cells.iter().map(|cell| {
        let [x, y] = place(&cell.belief);
        MapPoint { x, y, group: cell.action }
    });
    let name = |index: usize| map.types.get(index).map_or("", String::as_str);
    // Only actions that are best somewhere have a colour.
    let edges = MapLine {
        name: "certain beliefs".into(),
        points: vec![CORNERS[0], CORNERS[1], CORNERS[2], CORNERS[0]],
        arrow: false,
        names: Vec::new(),
    };
    Chart::Map(MapChart {
        title: "Best strategy by belief".into(),
        subtitle: format!(
            "each point is a belief; corners: {} left, {} right, {} on top",
            name(0),
            name(1),
            name(2)
        ),
        x_label: format!("{} → {}", name(0), name(1)),
        y_label: format!("→ {}", name(2)),
        x_range: [-0.05, 1.05],
        y_range: [-0.05, 0.92],
        groups: map.actions.clone(),
        points: points.collect(),
        paths: vec![edges],
        ..MapChart::default()
    })
}
