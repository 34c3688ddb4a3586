//! Charts of a run's folder as the tables that they are drawn from.

use std::path::Path;

use super::paths;
use crate::artifact;
use crate::error::{Error, Result};
use crate::report::Chart;

/// Saves a chart's table as `NAME.chart.json`.
pub(super) fn save_chart(out: &Path, name: &str, chart: &Chart) -> Result<()> {
    let text = serde_json::to_string(chart)
        .map_err(|error| Error::input(name, error, "a chart that JSON can hold"))?;
    artifact::write_text(&paths::chart(out, name), &text)
}
