//! Constructive scores of several systems, as text.

use super::output::print;
use pearlpoint::analysis::constructive_score::{ScorePart, ScoreTable};
use pearlpoint::report::{Table, table::Column};
use pearlpoint::stats::{Interval, Metric};

/// Prints every part of a table.
pub fn print_table(table: &ScoreTable) -> anyhow::Result<()> {
    table.parts.iter().try_for_each(print_part)
}

fn print_part(part: &ScorePart) -> anyhow::Result<()> {
    let of =
        |interval: &Interval| format!("{:.3} [{:.3}, {:.3}]", interval.value, interval.low, interval.high);
    let columns = || {
        let mut columns = vec![Column::text(&part.name)];
        columns.extend(part.systems.iter().map(|system| Column::text(&system.name)));
        columns
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: String, cell: &dyn Fn(usize) -> Option<String>| {
        let cells: Vec<Option<String>> = (0..part.systems.len()).map(cell).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "–".into()));
            rows.push(std::iter::once(name).chain(cells).collect());
        }
    };
    row("answers".into(), &|system| Some(part.systems[system].answers.to_string()));
    row("satisfaction S".into(), &|system| part.systems[system].satisfaction.as_ref().map(of));
    row("risk R".into(), &|system| part.systems[system].risk.as_ref().map(of));
    let sweep = part.systems.first().map_or(&[][..], |system| &system.constructive);
    for (index, at) in sweep.iter().enumerate() {
        row(format!("C({})", at.beta), &|system| {
            Some(of(&part.systems[system].constructive.get(index)?.value))
        });
    }
    for (index, at) in sweep.iter().enumerate() {
        row(format!("C({}) − first", at.beta), &|system| {
            Some(of(&part.systems[system].change.get(index)?.value))
        });
    }
    let mut names: Vec<&str> = Vec::new();
    for rate in part.systems.iter().flat_map(|system| &system.rates) {
        if !names.contains(&rate.name.as_str()) {
            names.push(&rate.name);
        }
    }
    let metric = |rate: &Metric| {
        of(&Interval {
            value: rate.value,
            low: rate.low.unwrap_or(rate.value),
            high: rate.high.unwrap_or(rate.value),
        })
    };
    for name in names {
        row(name.into(), &|system| {
            part.systems[system].rates.iter().find(|rate| rate.name == name).map(metric)
        });
    }
    print(Table { caption: String::new(), columns: columns(), rows }.to_text()?)?;
    for crossing in &part.crossings {
        print(format_args!(
            "C(β) of {} and {} cross at β = {:.2} (value {:.3}): below it {} is better",
            crossing.below, crossing.above, crossing.beta, crossing.value, crossing.below
        ))?;
    }
    Ok(())
}
