//! Plots: a table of an analysis in, a chart out. They compute nothing new.
//!
//! One file a plot; [`PLOTS`] is the table of them. A plot's input can be saved as JSON, so that a chart can be made again
//! without running a model.

pub mod active_learning;
pub mod cosines;
pub mod cross_validation;
pub mod dose_response;
pub mod grid_response;
pub mod interpolation;
pub mod layer_sweep;
pub mod margins;
pub mod pareto;
pub mod pearl_map;
pub mod rates;
pub mod reliability;
pub mod risk_map;
pub mod safe_and_satisfied;
mod site_axis;
pub mod token_map;
pub mod trajectory;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::report::Chart;

/// A line of the table.
pub struct Plot {
    /// Its name: that of its file.
    pub name: &'static str,
    draw: fn(&str) -> Result<Chart>,
}

impl Plot {
    /// The chart of a table, given as JSON.
    ///
    /// # Errors
    /// JSON that is no such table.
    pub fn chart(&self, table: &str) -> Result<Chart> {
        (self.draw)(table)
    }
}

/// Every plot.
pub const PLOTS: [Plot; 16] = [
    Plot { name: "active_learning", draw: |text| Ok(active_learning::chart(&table(text)?)) },
    Plot { name: "cosines", draw: |text| Ok(cosines::chart(&table(text)?)) },
    Plot { name: "cross_validation", draw: |text| Ok(cross_validation::chart(&table::<Vec<_>>(text)?)) },
    Plot { name: "dose_response", draw: |text| Ok(dose_response::chart(&table(text)?)) },
    Plot { name: "grid_response", draw: |text| Ok(grid_response::chart(&table(text)?)) },
    Plot { name: "interpolation", draw: |text| Ok(interpolation::chart(&table(text)?)) },
    Plot { name: "layer_sweep", draw: |text| Ok(layer_sweep::chart(&table(text)?)) },
    Plot { name: "margins", draw: |text| Ok(margins::chart(&table(text)?)) },
    Plot { name: "pareto", draw: |text| Ok(pareto::chart(&table(text)?)) },
    Plot { name: "pearl_map", draw: |text| Ok(pearl_map::chart(&table(text)?)) },
    Plot { name: "rates", draw: |text| Ok(rates::chart(&table(text)?)) },
    Plot { name: "reliability", draw: |text| Ok(reliability::chart(&table(text)?)) },
    Plot { name: "risk_map", draw: |text| Ok(risk_map::chart(&table(text)?)) },
    Plot { name: "safe_and_satisfied", draw: |text| Ok(safe_and_satisfied::chart(&table(text)?)) },
    Plot { name: "token_map", draw: |text| Ok(token_map::chart(&table(text)?)) },
    Plot { name: "trajectory", draw: |text| Ok(trajectory::chart(&table(text)?)) },
];

/// The plot of this name.
///
/// # Errors
/// A name that no plot has.
pub fn by_name(name: &str) -> Result<&'static Plot> {
    const { &PLOTS }.iter().find(|plot| plot.name == name).ok_or_else(|| {
        Error::input("plot", format!("{name:?}"), PLOTS.map(|plot| plot.name).join(", "))
    })
}

fn table<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::input("plot", error, "the plot's table as JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plot_is_a_file_and_every_file_a_plot() {
        let files = std::fs::read_dir("src/plots").unwrap();
        let mut files: Vec<String> = files
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|name| name != "mod" && name != "site_axis")
            .collect();
        files.sort();
        assert_eq!(files, PLOTS.map(|plot| plot.name));
    }
}
