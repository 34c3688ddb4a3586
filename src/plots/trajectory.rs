//! Trajectories: dialogues' ways over the risk map, round by round.

use serde::{Deserialize, Serialize};

use super::risk_map::map_chart;
use crate::analysis::token_readout::Trajectory;
use crate::boundary::RiskMap;
use crate::report::Chart;
use crate::report::charts::chart::{MapLine, MapPoint};

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trajectories {
    /// The map; its points are whole dialogues.
    pub map: RiskMap,
    /// One a dialogue.
    pub drifts: Vec<Trajectory>,
}

/// The chart of trajectories over a map.
pub fn chart(table: &Trajectories) -> Chart {
    let Trajectories { map, drifts } = table;
    let mut chart = map_chart(map);
    chart.title = format!("Round by round: {} at {}", map.label, map.site);
    chart.subtitle =
        "each path is one dialogue, read after every message of the user; points are whole dialogues".into();
    chart.paths = drifts
        .iter()
        .filter(|drift| drift.places.len() > 1)
        .map(|drift| MapLine {
            name: drift.id.clone(),
            points: drift.places.clone(),
            arrow: true,
            names: (1..=drift.places.len()).map(|round| round.to_string()).collect(),
        })
        .collect();
    // A dialogue of one round is a point.
    for drift in drifts.iter().filter(|drift| drift.places.len() == 1) {
        let [x, y] = drift.places[0];
        chart.points.push(MapPoint { x, y, group: chart.groups.len() });
        chart.groups.push(format!("{} (one round)", drift.id));
    }
    Chart::Map(chart)
}
