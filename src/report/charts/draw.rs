//! A chart drawn as SVG and PNG.

use std::path::Path;

use super::canvas::Canvas;
use super::chart::Chart;
use super::{bar, heat_map, line, map};
use crate::artifact;
use crate::error::Result;

/// Draws the chart and writes both files.
///
/// # Errors
/// A chart that can't be drawn (the error names it; nothing is written), or a file that can't be written.
pub fn draw(chart: &Chart, svg: &Path, png: &Path) -> Result<()> {
    let canvas = canvas(chart)?;
    let (text, pixels) = (canvas.to_svg(chart.title())?, canvas.to_png()?);
    artifact::write_text(svg, &text)?;
    artifact::write_atomic(png, |file| file.write_all(&pixels))
}

/// The chart as the text of an SVG file.
///
/// # Errors
/// A chart that can't be drawn; the error names it.
pub fn svg(chart: &Chart) -> Result<String> {
    canvas(chart)?.to_svg(chart.title())
}

fn canvas(chart: &Chart) -> Result<Canvas> {
    chart.check()?;
    Ok(match chart {
        Chart::Line(chart) => line::draw(chart),
        Chart::Bar(chart) => bar::draw(chart),
        Chart::Map(chart) => map::draw(chart),
        Chart::Heat(chart) => heat_map::draw(chart),
    })
}
