//! Drawing of all the charts and token strips that are saved in a folder.

use std::path::{Path, PathBuf};

use super::charts::chart::Chart;
use super::charts::draw::draw;
use super::pages::token_strip::Strip;
use super::pages::{self, Page};
use crate::error::{Error, Result};

/// Writes `NAME.svg` and `NAME.png` beside every `NAME.chart.json` in the folder, and the page `NAME.html` beside every
/// `NAME.strip.json`. Returns the SVG files and pages, in the order of their names.
///
/// # Errors
/// A folder without charts and strips; a file that can't be read, drawn or written.
pub fn draw_all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(Error::file(folder));
    for entry in entries.map_err(|error| error.where_missing("a folder with charts (NAME.chart.json)"))? {
        let path = entry.map_err(Error::file(folder))?.path();
        if [".chart.json", ".strip.json"].iter().any(|end| path.to_string_lossy().ends_with(end)) {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Error::input(
            folder.display(),
            "no chart",
            "one or more files NAME.chart.json or NAME.strip.json",
        ));
    }
    let mut drawn = Vec::new();
    for path in &found {
        // Both suffixes go: "sweep.chart.json" is drawn as "sweep.svg".
        let stem = path.with_extension("").with_extension("");
        let beside = |suffix: &str| PathBuf::from(format!("{}.{suffix}", stem.display()));
        if path.to_string_lossy().ends_with(".strip.json") {
            pages::write(&Page::of_strip(&Strip::read(path)?), &beside("html"))?;
            drawn.push(beside("html"));
        } else {
            draw(&Chart::read(path)?, &beside("svg"), &beside("png"))?;
            drawn.push(beside("svg"));
        }
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"chart":"line","title":"Sweep <1>","x_label":"block","y_label":"AUROC",
        "series":[{"name":"probe","points":[{"x":0,"y":0.5},{"x":1,"y":0.9}]}]}"#;

    #[test]
    fn every_chart_of_a_folder_is_drawn_twice() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("layer.sweep.chart.json"), LINE).unwrap();
        std::fs::write(at("results.json"), "{}").unwrap();
        assert_eq!(draw_all(folder.path()).unwrap(), [at("layer.sweep.svg")]);
        let svg = std::fs::read_to_string(at("layer.sweep.svg")).unwrap();
        assert!(svg.starts_with("<svg xmlns") && svg.contains("aria-label=\"Sweep &lt;1&gt;\""));
        let png = std::fs::read(at("layer.sweep.png")).unwrap();
        let word = |at: usize| u32::from_be_bytes([png[at], png[at + 1], png[at + 2], png[at + 3]]);
        assert_eq!((&png[1..4], word(16)), (&b"PNG"[..], 1600));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn what_can_not_be_drawn_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let error = draw_all(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("no chart; expected one or more files NAME.chart.json or NAME.strip.json"),
            "{error}"
        );
        let path = folder.path().join("sweep.chart.json");
        std::fs::write(&path, LINE.replace("\"chart\":\"line\"", "\"chart\":\"pie\"")).unwrap();
        let error = draw_all(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("sweep.chart.json: unknown variant `pie`") && !error.contains('\n'),
            "{error}"
        );
        std::fs::write(&path, LINE.replace("[{\"x\":0,\"y\":0.5},{\"x\":1,\"y\":0.9}]", "[]")).unwrap();
        let error = draw_all(folder.path()).unwrap_err().to_string();
        assert_eq!(
            error,
            "chart \"Sweep <1>\", series \"probe\", points: nothing to draw; expected at least one"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
