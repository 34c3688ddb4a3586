//! Cosines between probes' directions.

use serde::{Deserialize, Serialize};

use crate::report::Chart;
use crate::report::charts::chart::{HeatChart, Scale};

/// The table of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cosines {
    /// Names of the directions.
    pub names: Vec<String>,
    /// `[directions, directions]`.
    pub cosines: Vec<Vec<f64>>,
}

/// The heat map of cosines.
pub fn chart(table: &Cosines) -> Chart {
    let Cosines { names, cosines } = table;
    Chart::Heat(HeatChart {
        title: "Cosines between directions".into(),
        subtitle: "cosine of every two probes' directions: 1 is the same direction, 0 a right angle".into(),
        x_label: "direction".into(),
        y_label: "direction".into(),
        columns: names.to_vec(),
        // Rows are drawn from the lowest up: the first direction is on top.
        rows: names.iter().rev().cloned().collect(),
        values: cosines.iter().rev().map(|row| row.iter().map(|&value| Some(value)).collect()).collect(),
        words: Vec::new(),
        label: "cosine".into(),
        range: [-1.0, 1.0],
        scale: Scale::Diverging,
    })
}
