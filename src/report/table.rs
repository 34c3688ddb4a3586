//! Metrics of a run (`results.json`), and tables of text cells with aligned numbers.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::charts::axis::number;
use crate::artifact;
use crate::error::{Error, Result};
use crate::printable::one_line;
use crate::stats::Metric;

/// The metrics of a run: `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Always `results`.
    pub kind: String,
    /// Of the format.
    pub version: u32,
    /// The experiment's name.
    pub experiment: String,
    /// The model's name.
    pub model: String,
    /// The experiment's seed.
    pub seed: u64,
    /// With their intervals.
    pub figures: Vec<Metric>,
    /// What a reader should doubt, in a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

/// Longest cell of a printed table, in characters.
const MAX_CELL: usize = 200;

const KIND: &str = "results";
const VERSION: u32 = 1;

impl Results {
    /// Results of the current version.
    pub fn new(experiment: &str, model: &str, seed: u64, figures: Vec<Metric>) -> Results {
        let [experiment, model] = [experiment, model].map(String::from);
        Results { kind: KIND.into(), version: VERSION, experiment, model, seed, figures, doubts: Vec::new() }
    }

    /// The same, with doubts.
    pub fn doubting(self, doubts: Vec<String>) -> Results {
        Results { doubts, ..self }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it can't be read, or has another kind or version; the error names the file.
    pub fn read(path: &Path) -> Result<Results> {
        let text = artifact::read_text(path)?;
        let expected = format!("a results file of version {VERSION}");
        let read = serde_json::from_str::<Results>(&text);
        let results = read.map_err(|error| Error::input(path.display(), error, &expected))?;
        if results.kind != KIND || results.version != VERSION {
            let found = format!("kind \"{}\", version {}", results.kind, results.version);
            return Err(Error::input(path.display(), found, expected));
        }
        Ok(results)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If a metric is NaN or infinite, which JSON can't hold (the error names the metric), or the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        for figure in &self.figures {
            let mut values = [Some(figure.value), figure.low, figure.high].into_iter().flatten();
            if let Some(value) = values.find(|value| !value.is_finite()) {
                let place = format!("figure {}", figure.name);
                return Err(Error::input(place, format!("the value {value}"), "a finite number"));
            }
        }
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::input(path.display(), error, "figures that JSON can hold"))?;
        artifact::write_atomic(path, |file| writeln!(file, "{text}"))
    }
}

/// A table: named columns, and rows of text cells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Above the table; may be empty.
    #[serde(default)]
    pub caption: String,
    /// From left to right.
    pub columns: Vec<Column>,
    /// Each with one cell per column.
    pub rows: Vec<Vec<String>>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// Whether its cells are numbers: aligned on their decimal points.
    #[serde(default)]
    pub numbers: bool,
}

impl Column {
    /// A column of text.
    pub fn text(name: &str) -> Column {
        Column { name: name.into(), numbers: false }
    }

    /// A column of numbers.
    pub fn numbers(name: &str) -> Column {
        Column { name: name.into(), numbers: true }
    }
}

impl Table {
    /// Metrics with their intervals, one per row. The interval column is left out if no metric has an interval.
    pub fn of_figures(caption: &str, figures: &[Metric]) -> Table {
        let mut columns = vec![Column::text("figure"), Column::numbers("value")];
        let interval = figures.iter().any(|figure| figure.low.is_some() && figure.high.is_some());
        columns.extend(interval.then(|| Column::numbers("interval")));
        columns.extend([Column::numbers("n"), Column::text("split")]);
        let row = |figure: &Metric| {
            let places = places(figure.value);
            let bounds = figure.low.zip(figure.high).map_or(String::new(), |(low, high)| {
                format!("[{}, {}]", number(low, places), number(high, places))
            });
            let mut row = vec![figure.name.clone(), number(figure.value, places)];
            row.extend(interval.then_some(bounds));
            row.extend([figure.n.to_string(), figure.split.clone()]);
            row
        };
        Table { caption: caption.into(), columns, rows: figures.iter().map(row).collect() }
    }

    /// Checks that each row has one cell per column.
    ///
    /// # Errors
    /// A row with another number of cells; the error names the table.
    pub fn check(&self) -> Result<()> {
        match self.rows.iter().find(|row| row.len() != self.columns.len()) {
            None => Ok(()),
            Some(row) => Err(Error::input(
                format!("table \"{}\"", self.caption),
                format!("a row of {} cells", row.len()),
                format!("{}, one a column", self.columns.len()),
            )),
        }
    }

    /// The table as plain text: columns two spaces apart, a rule below the headings, no spaces at the ends of lines.
    ///
    /// # Errors
    /// See [`Table::check`].
    pub fn to_text(&self) -> Result<String> {
        self.check()?;
        let columns: Vec<Vec<String>> = (0..self.columns.len())
            .map(|index| {
                let cells = self.cells(index, [' ', ' ']);
                // A cell of several lines, or of a page, would break the table.
                let all = || {
                    let cells = std::iter::once(&self.columns[index].name).chain(&cells);
                    cells.map(|cell| one_line(cell, MAX_CELL))
                };
                let width = all().map(|cell| cell.chars().count()).max().unwrap_or(0);
                let padded = all().map(|cell| match self.columns[index].numbers {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                });
                let mut padded: Vec<String> = padded.collect();
                padded.insert(1, "─".repeat(width));
                padded
            })
            .collect();
        let mut text = if self.caption.is_empty() { String::new() } else { format!("{}\n", self.caption) };
        for line in 0..self.rows.len() + 2 {
            let cells: Vec<&str> = columns.iter().map(|column| column[line].as_str()).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        Ok(text)
    }

    /// The cells row by row, with numbers padded on the right so that their points are in line in a column that is
    /// aligned right. `pads` stand for a digit and for the point.
    ///
    /// # Errors
    /// See [`Table::check`].
    pub fn aligned_rows(&self, pads: [char; 2]) -> Result<Vec<Vec<String>>> {
        self.check()?;
        let columns: Vec<Vec<String>> =
            (0..self.columns.len()).map(|index| self.cells(index, pads)).collect();
        Ok((0..self.rows.len())
            .map(|row| columns.iter().map(|column| column[row].clone()).collect())
            .collect())
    }

    /// The cells of a column; see [`Table::aligned_rows`].
    fn cells(&self, index: usize, [digit, point]: [char; 2]) -> Vec<String> {
        let cells = self.rows.iter().map(|row| row[index].clone());
        if !self.columns[index].numbers {
            return cells.collect();
        }
        let is_number = |cell: &str| cell.replace('−', "-").parse::<f64>().is_ok();
        let fraction = |cell: &str| cell.split_once('.').map_or(0, |(_, digits)| digits.chars().count());
        let cells: Vec<String> = cells.collect();
        let longest =
            cells.iter().filter(|cell| is_number(cell)).map(|cell| fraction(cell)).max().unwrap_or(0);
        let pad = |cell: String| {
            let missing = if is_number(&cell) { longest - fraction(&cell) } else { 0 };
            let no_point = missing > 0 && !cell.contains('.');
            let points = no_point.then_some(point);
            cell.chars().chain(points).chain(std::iter::repeat_n(digit, missing)).collect()
        };
        cells.into_iter().map(pad).collect()
    }
}

/// Decimals for a value of this size: three for shares and scores, none for large counts.
fn places(value: f64) -> usize {
    match value.abs() {
        size if size < 10.0 => 3,
        size if size < 1000.0 => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, value: f64, interval: Option<[f64; 2]>, n: usize) -> Metric {
        let [low, high] = [interval.map(|bounds| bounds[0]), interval.map(|bounds| bounds[1])];
        Metric { name: name.into(), value, low, high, n, split: "test".into() }
    }

    fn figures() -> Vec<Metric> {
        vec![
            figure("probe/risk-level/auroc", 0.97312, Some([0.9611, 0.9842]), 612),
            figure("score/beta-5", -0.25, Some([-0.5, 0.0]), 1200),
            figure("extract/seconds", 12.34, None, 3),
            figure("store/rows", 14000.0, None, 14000),
        ]
    }

    #[test]
    fn a_small_table_is_as_it_was() {
        let text = Table::of_figures("Figures", &figures()).to_text().unwrap();
        insta::assert_snapshot!(text, @"
        Figures
        figure                      value         interval      n  split
        ──────────────────────  ─────────  ───────────────  ─────  ─────
        probe/risk-level/auroc      0.973   [0.961, 0.984]    612  test
        score/beta-5               −0.250  [−0.500, 0.000]   1200  test
        extract/seconds            12.3                         3  test
        store/rows              14000                       14000  test
        ");
    }

    #[test]
    fn results_come_back_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let results = Results::new("demo", "organism", 7, figures());
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let error = Results::read(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("kind \"results\", version 2; expected a results file of version 1"),
            "{error}"
        );
        let nan = Results::new("demo", "organism", 7, vec![figure("probe/x", f64::NAN, None, 1)]);
        let error = nan.write(&path).unwrap_err().to_string();
        assert_eq!(error, "figure probe/x: the value NaN; expected a finite number");
    }

    #[test]
    fn uneven_rows_are_refused() {
        let table = Table { caption: "T".into(), columns: vec![Column::text("a")], rows: vec![vec![]] };
        let error = table.to_text().unwrap_err().to_string();
        assert_eq!(error, "table \"T\": a row of 0 cells; expected 1, one a column");
    }
}
