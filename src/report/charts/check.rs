//! Validation of a chart's data before it is drawn.

use super::chart::{Bar, BarChart, Chart, Grid, HeatChart, LineChart, MapChart, RuleAxis};
use crate::error::{Error, Result};

impl Chart {
    /// Checks that the chart can be drawn.
    ///
    /// # Errors
    /// No data, a value that is NaN or infinite, or lists whose lengths differ; the error names the chart.
    pub fn check(&self) -> Result<()> {
        let check = Check { title: self.title() };
        match self {
            Chart::Line(chart) => check.line(chart),
            Chart::Bar(chart) => check.bar(chart),
            Chart::Map(chart) => check.map(chart),
            Chart::Heat(chart) => check.heat(chart),
        }
    }
}

/// The title of the chart that is checked, for the errors.
struct Check<'a> {
    title: &'a str,
}

impl Check<'_> {
    fn wrong(&self, part: impl std::fmt::Display, found: &str, expected: &str) -> Error {
        Error::input(format!("chart \"{}\", {part}", self.title), found, expected)
    }

    fn finite(&self, part: impl std::fmt::Display, values: impl IntoIterator<Item = f64>) -> Result<()> {
        match values.into_iter().find(|value| !value.is_finite()) {
            Some(value) => Err(self.wrong(part, &format!("the value {value}"), "a finite number")),
            None => Ok(()),
        }
    }

    fn range(&self, part: &str, range: [f64; 2]) -> Result<()> {
        self.finite(part, range)?;
        match range[0] < range[1] {
            true => Ok(()),
            false => Err(self.wrong(part, &format!("{range:?}"), "two numbers, the lower one first")),
        }
    }

    fn some<T>(&self, part: impl std::fmt::Display, list: &[T]) -> Result<()> {
        match list.is_empty() {
            true => Err(self.wrong(part, "nothing to draw", "at least one")),
            false => Ok(()),
        }
    }

    fn line(&self, chart: &LineChart) -> Result<()> {
        self.some("series", &chart.series)?;
        for (name, range) in [("x_range", chart.x_range), ("y_range", chart.y_range)] {
            range.map_or(Ok(()), |range| self.range(name, range))?;
        }
        for series in &chart.series {
            let part = format!("series \"{}\"", series.name);
            self.some(format!("{part}, points"), &series.points)?;
            for point in &series.points {
                let values = [Some(point.x), Some(point.y), point.low, point.high];
                self.finite(format!("{part}, at x {}", point.x), values.into_iter().flatten())?;
            }
        }
        self.finite("notes", chart.notes.iter().flat_map(|note| [note.x, note.y]))?;
        self.finite("rules", chart.rules.iter().map(|rule| rule.at))
    }

    fn bar(&self, chart: &BarChart) -> Result<()> {
        self.some("groups", &chart.groups)?;
        self.some("series", &chart.series)?;
        if let Some(range) = chart.y_range {
            self.range("y_range", range)?;
        }
        for series in &chart.series {
            let part = format!("series \"{}\"", series.name);
            if series.bars.len() != chart.groups.len() {
                let found = format!("{} bars", series.bars.len());
                return Err(self.wrong(part, &found, &format!("{}, one a group", chart.groups.len())));
            }
            let measured: Vec<&Bar> = series.bars.iter().flatten().collect();
            self.some(format!("{part}, bars"), &measured)?;
            for (bar, group) in series.bars.iter().zip(&chart.groups) {
                let values = bar.iter().flat_map(|bar| [Some(bar.value), bar.low, bar.high]);
                self.finite(format!("{part}, group \"{group}\""), values.flatten())?;
            }
        }
        if chart.rules.iter().any(|rule| rule.axis == RuleAxis::Vertical) {
            return Err(self.wrong("rules", "a vertical rule", "horizontal rules: groups have no x value"));
        }
        self.finite("rules", chart.rules.iter().map(|rule| rule.at))
    }

    fn map(&self, chart: &MapChart) -> Result<()> {
        self.range("x_range", chart.x_range)?;
        self.range("y_range", chart.y_range)?;
        if chart.points.is_empty() && chart.filled.is_none() && chart.contours.is_empty() {
            return Err(self.wrong("points", "nothing to draw", "points, contours or a filled grid"));
        }
        for (index, point) in chart.points.iter().enumerate() {
            self.finite(format!("point {index}"), [point.x, point.y])?;
            if point.group >= chart.groups.len() {
                let found = format!("group {}", point.group);
                return Err(self.wrong(format!("point {index}"), &found, "an index into groups"));
            }
        }
        for contour in chart.contours.iter().chain(&chart.safe) {
            let part = format!("contour \"{}\"", contour.name);
            self.finite(&part, [contour.level])?;
            self.grid(&part, &contour.grid)?;
        }
        if let Some(filled) = &chart.filled {
            self.grid("filled", &filled.grid)?;
            if filled.grid.span().is_none() {
                return Err(self.wrong("filled", "a grid without one known value", "numbers"));
            }
        }
        if let Some(star) = &chart.star {
            self.finite("star", [star.x, star.y])?;
        }
        for path in &chart.paths {
            let part = format!("path \"{}\"", path.name);
            self.finite(&part, path.points.iter().flatten().copied())?;
            if path.points.len() < 2 {
                return Err(self.wrong(part, "fewer than two points", "two or more"));
            }
        }
        Ok(())
    }

    fn heat(&self, chart: &HeatChart) -> Result<()> {
        self.range("range", chart.range)?;
        self.some("columns", &chart.columns)?;
        self.some("rows", &chart.rows)?;
        let even = chart.values.len() == chart.rows.len()
            && chart.values.iter().all(|row| row.len() == chart.columns.len());
        if !even {
            let expected = format!("{} rows of {}", chart.rows.len(), chart.columns.len());
            return Err(self.wrong("values", "rows too few or uneven", &expected));
        }
        self.finite("values", chart.values.iter().flatten().flatten().copied())
    }

    fn grid(&self, part: &str, grid: &Grid) -> Result<()> {
        let [width, height] = grid.size();
        if width < 2 || height < 2 || grid.0.iter().any(|row| row.len() != width) {
            return Err(self.wrong(
                part,
                "a grid with rows too few or uneven",
                "two or more rows of equal length",
            ));
        }
        self.finite(part, grid.0.iter().flatten().flatten().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::charts::chart::{BarSeries, LinePoint, MapPoint, Series};

    fn line(points: Vec<LinePoint>) -> Chart {
        let series = Series { name: "probe".into(), points, ..Series::default() };
        Chart::Line(LineChart { title: "Sweep".into(), series: vec![series], ..LineChart::default() })
    }

    fn refusal(chart: &Chart) -> String {
        chart.check().unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_chart_and_the_part() {
        assert_eq!(
            refusal(&line(vec![])),
            "chart \"Sweep\", series \"probe\", points: nothing to draw; expected at least one"
        );
        let point = LinePoint { x: 3.0, y: f64::NAN, ..LinePoint::default() };
        assert_eq!(
            refusal(&line(vec![point])),
            "chart \"Sweep\", series \"probe\", at x 3: the value NaN; expected a finite number"
        );
        let bars = BarSeries { name: "before".into(), bars: vec![None] };
        let groups = vec!["benign".to_string(), "malicious".to_string()];
        let chart = BarChart { title: "Rates".into(), groups, series: vec![bars], ..BarChart::default() };
        assert_eq!(
            refusal(&Chart::Bar(chart)),
            "chart \"Rates\", series \"before\": 1 bars; expected 2, one a group"
        );
        let range = [0.0, 1.0];
        let points = vec![MapPoint { x: 0.5, y: 0.5, group: 1 }];
        let groups = vec!["R0".to_string()];
        let chart = MapChart {
            title: "Map".into(),
            x_range: range,
            y_range: range,
            groups,
            points,
            ..MapChart::default()
        };
        assert_eq!(
            refusal(&Chart::Map(chart)),
            "chart \"Map\", point 0: group 1; expected an index into groups"
        );
    }

    #[test]
    fn uneven_rows_of_a_heat_map_are_refused() {
        let mut chart = HeatChart {
            title: "Heat".into(),
            columns: vec!["a".into(), "b".into()],
            rows: vec!["0".into()],
            values: vec![vec![Some(0.5), None]],
            range: [0.0, 1.0],
            ..HeatChart::default()
        };
        Chart::Heat(chart.clone()).check().unwrap();
        chart.values[0].pop();
        assert_eq!(
            refusal(&Chart::Heat(chart)),
            "chart \"Heat\", values: rows too few or uneven; expected 1 rows of 2"
        );
    }
}
