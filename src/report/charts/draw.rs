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

/// The chart as the bytes of a PNG file.
///
/// # Errors
/// A chart that can't be drawn; the error names it.
pub fn png(chart: &Chart) -> Result<Vec<u8>> {
    canvas(chart)?.to_png()
}

impl Chart {
    /// Shows the chart in a notebook on the evcxr kernel: where a cell ends with a chart, the kernel calls this, and takes the picture
    /// from stdout. A chart that can't be drawn is shown as the reason.
    pub fn evcxr_display(&self) {
        use base64::Engine;
        use std::io::Write;

        let (kind, content) = match png(self) {
            Ok(bytes) => ("image/png", base64::engine::general_purpose::STANDARD.encode(bytes)),
            Err(error) => ("text/plain", error.to_string()),
        };
        // A notebook that reads no more needs no picture.
        let _ = writeln!(std::io::stdout(), "EVCXR_BEGIN_CONTENT {kind}\n{content}\nEVCXR_END_CONTENT");
    }
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
