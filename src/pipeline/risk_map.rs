//! The risk map of a probe over labelled activations, and its picture.

use std::path::Path;

use crate::activations::Labelled;
use crate::artifact;
use crate::boundary::RiskMap;
use crate::error::Result;
use crate::plots;
use crate::probe::Probe;
use crate::report::charts::draw;

impl Probe {
    /// The map on the plane that the probe decides on: its first axis runs from class `from` to class `to`, and every
    /// row of `states` is a point on it.
    ///
    /// # Errors
    /// A class that the probe lacks; activations that it was not fitted on; rows without its label.
    pub fn risk_map(&self, states: &Labelled, from: &str, to: &str) -> Result<RiskMap> {
        states.check_probe(self)?;
        let rows: Vec<usize> = (0..states.rows()).collect();
        let targets = states.truth(self, &rows)?;
        let mut map = RiskMap::of_probe(self, states.at(self.source.site)?.view(), &targets, from, to)?;
        map.split = Some(match states.was_fitted_here(self) {
            true => "fitted on and held out together".into(),
            false => "other dialogues than it was fitted on".into(),
        });
        Ok(map)
    }
}

impl RiskMap {
    /// Draws the map as an SVG file.
    ///
    /// # Errors
    /// A file that can't be written; values that can't be drawn.
    pub fn save_svg(&self, path: impl AsRef<Path>) -> Result<()> {
        let text = draw::svg(&plots::risk_map::chart(self))?;
        artifact::write_text(path.as_ref(), &text)
    }
}
