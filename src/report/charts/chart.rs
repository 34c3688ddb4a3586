//! The data of a chart, as earlier stages save it (`NAME.chart.json`).

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artifact;
use crate::error::{Error, Result};

/// The data of one chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "chart", rename_all = "lowercase")]
pub enum Chart {
    /// Curves over an x axis.
    Line(LineChart),
    /// Groups of bars.
    Bar(BarChart),
    /// Points, contours and a surface over two axes.
    Map(MapChart),
    /// Coloured cells.
    Heat(HeatChart),
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Unbroken.
    #[default]
    Solid,
    /// Dashes.
    Dashed,
    /// Dots.
    Dotted,
}

/// Curves over a shared x axis: a layer sweep, or a dose-response curve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LineChart {
    /// In bold above the chart.
    pub title: String,
    /// Below the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// The quantity along x, with its unit.
    pub x_label: String,
    /// The quantity along y, with its unit.
    pub y_label: String,
    /// Names of the values 0, 1, … on the x axis, if they have names.
    #[serde(default)]
    pub x_ticks: Option<Vec<String>>,
    /// The x axis shows at least this range; points outside extend it.
    #[serde(default)]
    pub x_range: Option<[f64; 2]>,
    /// The y axis shows at least this range; points outside extend it.
    #[serde(default)]
    pub y_range: Option<[f64; 2]>,
    /// The curves; the first is drawn on top.
    pub series: Vec<Series>,
    /// Reference lines.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Short texts above points, such as counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// A short text above a point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Along the x axis.
    pub x: f64,
    /// Along the y axis.
    pub y: f64,
    /// The text.
    pub text: String,
}

/// One curve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// In the order of x.
    pub points: Vec<LinePoint>,
    /// Of the line.
    #[serde(default)]
    pub style: Style,
    /// The colour's index, such as that of a class, so that it has one colour in every chart; its place among the curves where there
    /// is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<usize>,
    /// Whether the area between the curve and 0 is tinted, as for the outline of a distribution.
    #[serde(default)]
    pub filled: bool,
}

/// One point of a curve, with its interval if it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinePoint {
    /// Along the x axis.
    pub x: f64,
    /// Along the y axis.
    pub y: f64,
    /// The lower end of the interval of y.
    #[serde(default)]
    pub low: Option<f64>,
    /// The upper end of the interval of y.
    #[serde(default)]
    pub high: Option<f64>,
}

/// A reference line across the chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its direction.
    pub axis: RuleAxis,
    /// The value of x or y at which it lies.
    pub at: f64,
    /// Beside or above the line.
    pub label: String,
}

/// The direction of a reference line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAxis {
    /// At one value of y.
    Horizontal,
    /// At one value of x.
    Vertical,
}

/// Groups of bars, with one bar per series: rates by user type, without and with steering, say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BarChart {
    /// In bold above the chart.
    pub title: String,
    /// Below the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// The quantity along x, with its unit.
    pub x_label: String,
    /// The quantity along y, with its unit.
    pub y_label: String,
    /// The y axis shows at least this range, and always 0.
    #[serde(default)]
    pub y_range: Option<[f64; 2]>,
    /// Names of the groups along the x axis.
    pub groups: Vec<String>,
    /// One colour each.
    pub series: Vec<BarSeries>,
    /// Horizontal reference lines.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// The bars of one colour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BarSeries {
    /// In the legend.
    pub name: String,
    /// One per group; null if it was not measured.
    pub bars: Vec<Option<Bar>>,
}

/// One bar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Its height.
    pub value: f64,
    /// The lower end of the interval.
    #[serde(default)]
    pub low: Option<f64>,
    /// The upper end of the interval.
    #[serde(default)]
    pub high: Option<f64>,
}

/// A map of two coordinates: grouped points, contours, a filled surface and the pearl point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MapChart {
    /// In bold above the chart.
    pub title: String,
    /// Below the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// The quantity along x, with its unit.
    pub x_label: String,
    /// The quantity along y, with its unit.
    pub y_label: String,
    /// The range of x that every grid covers; points outside extend the axis.
    pub x_range: [f64; 2],
    /// The range of y that every grid covers; points outside extend the axis.
    pub y_range: [f64; 2],
    /// Names of the points' groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Each in one of the groups.
    #[serde(default)]
    pub points: Vec<MapPoint>,
    /// Contour lines, each labelled with its name.
    #[serde(default)]
    pub contours: Vec<Contour>,
    /// A surface in colour bands.
    #[serde(default)]
    pub filled: Option<Filled>,
    /// The safe boundary, drawn over the surface and named in the legend.
    #[serde(default)]
    pub safe: Option<Contour>,
    /// The pearl point.
    #[serde(default)]
    pub star: Option<Star>,
    /// Paths through the map.
    #[serde(default)]
    pub paths: Vec<MapLine>,
}

/// A point, and the index of its group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapPoint {
    /// Along the x axis.
    pub x: f64,
    /// Along the y axis.
    pub y: f64,
    /// Index into the groups.
    pub group: usize,
}

/// A contour: the points at which a surface has the value `level`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contour {
    /// On the line or in the legend.
    pub name: String,
    /// The surface's value on the contour.
    pub level: f64,
    /// The surface.
    pub grid: Grid,
    /// Of the line.
    #[serde(default)]
    pub style: Style,
}

/// A surface with the label of its colour bar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filled {
    /// Beside the colour bar.
    pub label: String,
    /// The surface's values.
    pub grid: Grid,
    /// The meaning of null values, for the legend.
    #[serde(default)]
    pub masked: Option<String>,
}

/// The pearl point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Star {
    /// Along the x axis.
    pub x: f64,
    /// Along the y axis.
    pub y: f64,
    /// In the legend.
    pub label: String,
}

/// A path through the map, such as from an answer without steering to the one with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapLine {
    /// In the legend.
    pub name: String,
    /// `[x, y]` each; at least two.
    pub points: Vec<[f64; 2]>,
    /// Whether it ends in an arrowhead.
    #[serde(default)]
    pub arrow: bool,
    /// Labels of the first points, such as the rounds of a dialogue.
    #[serde(default)]
    pub names: Vec<String>,
}

/// A heat map: a value for each row and column, such as a probability by block and token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeatChart {
    /// In bold above the chart.
    pub title: String,
    /// Below the title; may be empty.
    #[serde(default)]
    pub subtitle: String,
    /// The quantity along x, with its unit.
    pub x_label: String,
    /// The quantity along y, with its unit.
    pub y_label: String,
    /// Names of the columns, from left to right.
    pub columns: Vec<String>,
    /// Names of the rows, from the bottom up.
    pub rows: Vec<String>,
    /// `[rows, columns]`; null for cells without a value.
    pub values: Vec<Vec<Option<f64>>>,
    /// `[rows, columns]`, text in the cells instead of their values; none where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Vec<String>>,
    /// Beside the colour bar.
    pub label: String,
    /// The range of the colour bar.
    pub range: [f64; 2],
    /// The mapping from values to colours.
    #[serde(default)]
    pub scale: Scale,
}

/// The mapping from values to colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// From dark to light.
    #[default]
    Rising,
    /// From the middle of the range towards either end, in two colours.
    Diverging,
}

/// Values at the nodes of a regular grid, `[height, width]`: rows from the lowest y upwards, each from the lowest x. The
/// outermost nodes lie on the edges of the map's ranges. Null is an unknown value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grid(pub Vec<Vec<Option<f64>>>);

impl Grid {
    /// The grid of `width` × `height` nodes over the ranges, with the value of a function of x and y at each node. Values
    /// that are not finite become null.
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

    /// The numbers of columns and rows.
    pub fn size(&self) -> [usize; 2] {
        [self.0.first().map_or(0, Vec::len), self.0.len()]
    }

    /// The smallest and the largest known value; `None` if there is none.
    pub fn span(&self) -> Option<[f64; 2]> {
        let known = self.0.iter().flatten().flatten();
        known.fold(None, |span, &value| {
            let [low, high] = span.unwrap_or([value, value]);
            Some([low.min(value), high.max(value)])
        })
    }
}

impl Chart {
    /// The chart's title.
    pub fn title(&self) -> &str {
        match self {
            Chart::Line(chart) => &chart.title,
            Chart::Bar(chart) => &chart.title,
            Chart::Map(chart) => &chart.title,
            Chart::Heat(chart) => &chart.title,
        }
    }

    /// Reads `NAME.chart.json`.
    ///
    /// # Errors
    /// If the file can't be read or is no such table; the error names the file.
    pub fn read(path: &Path) -> Result<Chart> {
        let text = artifact::read_text(path)?;
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
