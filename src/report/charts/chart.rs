//! The tables that plots are made from: what earlier stages save as `NAME.chart.json`.
//! It knows nothing of pixels, colours or fonts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One plot's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "chart", rename_all = "lowercase")]
pub enum Chart {
    Line(LineChart),
    Bar(BarChart),
    Map(MapChart),
    Heat(HeatChart),
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    #[default]
    Solid,
    Dashed,
    Dotted,
}

/// Curves over a shared x axis: a layer sweep, a dose and its response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LineChart {
    pub title: String,
    #[serde(default)]
    pub subtitle: String,
    /// Names the quantity, with its unit.
    pub x_label: String,
    pub y_label: String,
    /// Names of the whole numbers 0, 1, … on the x axis, where they have names.
    #[serde(default)]
    pub x_ticks: Option<Vec<String>>,
    /// Both axes show at least this much; they grow where a point lies outside.
    #[serde(default)]
    pub x_range: Option<[f64; 2]>,
    /// The axis shows at least this much; it grows where a point lies outside.
    #[serde(default)]
    pub y_range: Option<[f64; 2]>,
    pub series: Vec<Series>,
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// One curve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub points: Vec<LinePoint>,
    #[serde(default)]
    pub style: Style,
    /// Whether what lies between the curve and 0 is tinted: the outline of a distribution.
    #[serde(default)]
    pub filled: bool,
}

/// One point of a curve, and the interval around it where one is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinePoint {
    pub x: f64,
    pub y: f64,
    #[serde(default)]
    pub low: Option<f64>,
    #[serde(default)]
    pub high: Option<f64>,
}

/// A reference line across the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub axis: RuleAxis,
    pub at: f64,
    pub label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAxis {
    /// At one value of y.
    Horizontal,
    /// At one value of x.
    Vertical,
}

/// Bars in groups, one bar a series: rates by user type, before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BarChart {
    pub title: String,
    #[serde(default)]
    pub subtitle: String,
    pub x_label: String,
    pub y_label: String,
    /// The axis shows at least this much, and always 0, from which bars grow.
    #[serde(default)]
    pub y_range: Option<[f64; 2]>,
    /// Names of the groups along the x axis.
    pub groups: Vec<String>,
    pub series: Vec<BarSeries>,
    /// Horizontal ones only.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// The bars of one colour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BarSeries {
    pub name: String,
    /// One a group; null where it was not measured.
    pub bars: Vec<Option<Bar>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    pub value: f64,
    #[serde(default)]
    pub low: Option<f64>,
    #[serde(default)]
    pub high: Option<f64>,
}

/// A map of two coordinates: points by group, contours, a filled surface, the pearl point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MapChart {
    pub title: String,
    #[serde(default)]
    pub subtitle: String,
    pub x_label: String,
    pub y_label: String,
    /// What every grid of this map spans; the axes grow where a point lies outside.
    pub x_range: [f64; 2],
    pub y_range: [f64; 2],
    /// Names of the groups that points belong to.
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub points: Vec<MapPoint>,
    /// Lines at a level, each labelled with its name on the line.
    #[serde(default)]
    pub contours: Vec<Contour>,
    /// A surface shown in colour bands.
    #[serde(default)]
    pub filled: Option<Filled>,
    /// The safe boundary, drawn over everything that is filled; named in the legend.
    #[serde(default)]
    pub safe: Option<Contour>,
    /// The pearl point.
    #[serde(default)]
    pub star: Option<Star>,
    #[serde(default)]
    pub paths: Vec<MapLine>,
}

/// A point, and the index of its group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapPoint {
    pub x: f64,
    pub y: f64,
    pub group: usize,
}

/// Where a surface has the value `level`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contour {
    pub name: String,
    pub level: f64,
    pub grid: Grid,
    #[serde(default)]
    pub style: Style,
}

/// A surface with the label of its colour bar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filled {
    pub label: String,
    pub grid: Grid,
    /// What it means that a value is null, for the legend.
    #[serde(default)]
    pub masked: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Star {
    pub x: f64,
    pub y: f64,
    pub label: String,
}

/// A way through the map, such as one answer before and after steering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapLine {
    pub name: String,
    pub points: Vec<[f64; 2]>,
    /// Whether the last point is the head of an arrow.
    #[serde(default)]
    pub arrow: bool,
    /// Names of the first points, written beside them: the rounds of a dialogue, say.
    #[serde(default)]
    pub names: Vec<String>,
}

/// A value for each row and column: a probability by block and token, the cosine of two directions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeatChart {
    pub title: String,
    #[serde(default)]
    pub subtitle: String,
    pub x_label: String,
    pub y_label: String,
    pub columns: Vec<String>,
    /// From the lowest up.
    pub rows: Vec<String>,
    /// A list a row, a value a column; null where there is none.
    pub values: Vec<Vec<Option<f64>>>,
    /// What the value is, for the colour bar, which spans this range.
    pub label: String,
    pub range: [f64; 2],
    #[serde(default)]
    pub scale: Scale,
}

/// How values become colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// From dark to light.
    #[default]
    Rising,
    /// Away from the middle of the range, in two colours.
    Diverging,
}

/// Values at the nodes of a regular grid: rows from the lowest y up, in a row from the lowest x on; the first and last
/// nodes stand on the edges of the map's ranges. Null is a value that is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grid(pub Vec<Vec<Option<f64>>>);

impl Grid {
    /// The grid of `width` × `height` nodes over the ranges, a value a node from its x and y.
    /// A value that is no number becomes null.
    pub fn of(
        [width, height]: [usize; 2],
        x_range: [f64; 2],
        y_range: [f64; 2],
        value: impl Fn(f64, f64) -> f64,
    ) -> Grid {
        let place = |range: [f64; 2], index: usize, count: usize| {
            range[0] + (range[1] - range[0]) * index as f64 / (count.max(2) - 1) as f64
        };
        let row = |y: f64| {
            let values = (0..width).map(|column| value(place(x_range, column, width), y));
            values.map(|value| value.is_finite().then_some(value)).collect()
        };
        Grid((0..height).map(|index| row(place(y_range, index, height))).collect())
    }

    /// Columns and rows.
    pub fn size(&self) -> [usize; 2] {
        [self.0.first().map_or(0, Vec::len), self.0.len()]
    }

    /// The smallest and largest value that is known.
    pub fn span(&self) -> Option<[f64; 2]> {
        let known = self.0.iter().flatten().flatten();
        known.fold(None, |span, &value| {
            let [low, high] = span.unwrap_or([value, value]);
            Some([low.min(value), high.max(value)])
        })
    }
}

impl Chart {
    pub fn title(&self) -> &str {
        match self {
            Chart::Line(chart) => &chart.title,
            Chart::Bar(chart) => &chart.title,
            Chart::Map(chart) => &chart.title,
            Chart::Heat(chart) => &chart.title,
        }
    }

    /// Reads `NAME.chart.json`. A file that is no such table is an error that names it.
    pub fn read(path: &Path) -> Result<Chart> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        serde_json::from_str(&text).map_err(|error| {
            Error::input(
                path.display(),
                error,
                "a chart: a JSON object with \"chart\" of line, bar, map or heat",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_line_chart_is_read() {
        let text = r#"{"chart":"line","title":"Sweep","x_label":"block","y_label":"AUROC","x_ticks":["0","1"],
            "y_range":[0.4,1],"series":[{"name":"probe","points":[{"x":0,"y":0.9,"low":0.8,"high":0.95}],
            "style":"dashed"}],"rules":[{"axis":"horizontal","at":0.5,"label":"chance"}]}"#;
        let chart: Chart = serde_json::from_str(text).unwrap();
        chart.check().unwrap();
        let Chart::Line(line) = &chart else { panic!("{chart:?}") };
        assert_eq!(line.series[0].style, Style::Dashed);
        assert_eq!(line.series[0].points[0].high, Some(0.95));
        assert_eq!(line.rules[0].axis, RuleAxis::Horizontal);
    }

    #[test]
    fn a_grid_keeps_its_holes_in_json() {
        let grid =
            Grid::of([3, 2], [0.0, 2.0], [0.0, 1.0], |x, y| if x == 1.0 { f64::NAN } else { x + 10.0 * y });
        let text = serde_json::to_string(&grid).unwrap();
        assert_eq!(text, "[[0.0,null,2.0],[10.0,null,12.0]]");
        assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), grid);
        assert_eq!(grid.span(), Some([0.0, 12.0]));
    }
}
