//! From a chart's table to its pictures.

use std::path::{Path, PathBuf};

use super::canvas::Canvas;
use super::chart::Chart;
use super::{bar, line, map};
use crate::error::{Error, Result};

/// Draws the chart and writes both files. A chart that can't be drawn is an error that names it, and writes nothing.
pub fn draw(chart: &Chart, svg: &Path, png: &Path) -> Result<()> {
    let canvas = drawn(chart)?;
    let text = canvas.to_svg(chart.title())?;
    write_whole(svg, |path| std::fs::write(path, &text).map_err(Error::file(path)))?;
    write_whole(png, |path| canvas.write_png(path))
}

/// The chart as an SVG file's text.
pub fn svg(chart: &Chart) -> Result<String> {
    drawn(chart)?.to_svg(chart.title())
}

fn drawn(chart: &Chart) -> Result<Canvas> {
    chart.check()?;
    Ok(match chart {
        Chart::Line(chart) => line::draw(chart),
        Chart::Bar(chart) => bar::draw(chart),
        Chart::Map(chart) => map::draw(chart),
    })
}

/// For every `NAME.chart.json` in the folder, writes `NAME.svg` and `NAME.png` beside it. Gives back the charts' files
/// in the order of their names; a folder without any is an error.
pub fn draw_all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        if path.to_string_lossy().ends_with(".chart.json") {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Error::input(folder.display(), "no chart", "one or more files NAME.chart.json"));
    }
    for path in &found {
        // Both suffixes go: "sweep.chart.json" is drawn as "sweep.svg".
        let stem = path.with_extension("").with_extension("");
        let beside = |suffix: &str| PathBuf::from(format!("{}.{suffix}", stem.display()));
        draw(&Chart::read(path)?, &beside("svg"), &beside("png"))?;
    }
    Ok(found)
}

/// Writes beside the file and moves the result into its place, so that the file is whole or absent.
pub(super) fn write_whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".partial-{name}"));
    write(&partial)?;
    std::fs::rename(&partial, path).map_err(Error::file(path))
}
