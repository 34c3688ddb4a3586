//! `pearl judge`: saved answers scored by a judge, without a model; and judges compared with human labels.

mod record;
mod score;

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::console::Console;
use super::output::{Outcome, print, print_exact};
use pearlpoint::Error;
use pearlpoint::artifact::{Part, ShardRow};
use pearlpoint::dialogue::records;
use pearlpoint::judge::{self, Scorer, Verdict};
use pearlpoint::report::{Table, table::Column};
use pearlpoint::stats::{Metric, agreement, bootstrap_each, kappa};
use record::{Judge, parts};

/// Columns that may hold a human label.
const LABELS: [&str; 4] = ["final_label", "label", "verdict", "annotation"];

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  pearl judge answers.jsonl --judge rules --json
  pearl judge answers.jsonl --judge rules --json --shard 1/2
  pearl judge agree labelled.csv --judge rules --label final_label")]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Answers: transcripts of `pearl generate --json`, or records with `prompt` and `completion` (JSON Lines, CSV, TSV)
    file: Option<PathBuf>,
    #[command(flatten)]
    judge: Judge,
    /// Print every record with its score as JSON Lines, instead of counts
    #[arg(long)]
    json: bool,
    /// Judge only part I of N, counted from 1, of about equally long records; `pearl merge` joins the parts
    #[arg(long, value_name = "I/N", requires = "json")]
    shard: Option<Part>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare a judge's verdicts with human labels: Cohen's kappa and the confusion matrix
    Agree(Agree),
    /// Constructive scores C(β) = S − βR of several systems side by side, with rates of refusal, over-refusal and attack success
    Score(score::Score),
}

#[derive(Args)]
#[command(after_help = "Example:
  pearl judge agree labelled.csv --judge rules --label final_label")]
struct Agree {
    /// Answers with a human label: records with `prompt`, `completion` and the label
    file: PathBuf,
    #[command(flatten)]
    judge: Judge,
    /// The column of human labels: full_compliance, partial_refusal or full_refusal (a number before it does not count) for
    /// the rules, and the judge's own outcomes for others [default: final_label, label, verdict or annotation]
    #[arg(long)]
    label: Option<String>,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    match &arguments.command {
        Some(Command::Agree(arguments)) => return agree(arguments, console),
        Some(Command::Score(arguments)) => return score::run(arguments, console),
        None => {}
    }
    match &arguments.file {
        Some(file) => verdicts(file, &arguments, console),
        None => bail!(
            "a file of answers is missing; expected pearl judge FILE, pearl judge score FILE… or pearl judge agree FILE"
        ),
    }
}

/// A record and its answer.
struct Answer {
    place: String,
    record: Map<String, Value>,
    score: judge::Score,
}

/// Reads and scores every record of a file.
fn read(file: &Path, judge: &dyn Scorer) -> anyhow::Result<Vec<Answer>> {
    let all = 0..usize::MAX;
    let answers = read_rows(file, judge, &all)?;
    if answers.is_empty() {
        return Err(Error::input(file.display(), "no record", "at least one answer").into());
    }
    Ok(answers)
}

/// Reads and scores some records of a file.
fn read_rows(file: &Path, judge: &dyn Scorer, rows: &Range<usize>) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for (number, item) in records(file)?.enumerate() {
        let (place, record) = item?;
        if !rows.contains(&number) {
            continue;
        }
        let (dialogue, transcript) = parts(&record, &place, number)?;
        judge.check(&dialogue)?;
        let score = judge.score(&dialogue, &transcript)?;
        answers.push(Answer { place, record, score });
    }
    Ok(answers)
}

/// The records of a part, and the number of all. A record weighs as much as it is long: there is no tokenizer here.
fn own_part(file: &Path, part: Part) -> anyhow::Result<(Range<usize>, usize)> {
    let mut weights = Vec::new();
    for item in records(file)? {
        let (place, record) = item?;
        if record.contains_key("shard") {
            let expected = "answers of a whole run: `pearl merge` joins the parts";
            return Err(Error::input(place, "an answer of a part of a run", expected).into());
        }
        weights.push(serde_json::to_string(&record)?.len());
    }
    Ok((part.range(&weights), weights.len()))
}

fn verdicts(file: &Path, arguments: &Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let judge = arguments.judge.make()?;
    let own = match arguments.shard {
        Some(part) => Some((part, own_part(file, part)?)),
        None => None,
    };
    let answers = match &own {
        Some((_, (range, rows))) if *rows > 0 => read_rows(file, judge.as_ref(), range)?,
        _ => read(file, judge.as_ref())?,
    };
    if arguments.json {
        for (row, Answer { mut record, score, .. }) in answers.into_iter().enumerate() {
            let verdict = Verdict::named(&score.strategy);
            let number =
                verdict.map(|verdict| json!(verdict.score())).or(score.satisfaction.map(Value::from));
            record.insert("score".into(), number.unwrap_or(Value::Null));
            record.insert("verdict".into(), score.strategy.into());
            record.insert("reason".into(), score.reason.into());
            let line = Value::Object(record).to_string();
            match &own {
                None => print_exact(line)?,
                Some((part, (range, rows))) => {
                    let shard = ShardRow { part: *part, row: range.start + row, rows: *rows };
                    print_exact(shard.mark(&line)?)?;
                }
            }
        }
        return Ok(Outcome::Done);
    }
    let outcomes = judge.outcomes().iter().chain(&[judge::BROKEN]);
    let counts: Vec<(&str, usize)> = outcomes
        .map(|outcome| (*outcome, answers.iter().filter(|answer| answer.score.strategy == *outcome).count()))
        .filter(|(_, count)| *count > 0)
        .collect();
    counts.iter().try_for_each(|(outcome, count)| print(format_args!("{outcome:<18} {count}")))?;
    console.say(format!("{} answers judged by {}; --json prints each", answers.len(), judge.name()));
    Ok(Outcome::Done)
}

fn agree(arguments: &Agree, console: &Console) -> anyhow::Result<Outcome> {
    let judge = arguments.judge.make()?;
    let answers = read(&arguments.file, judge.as_ref())?;
    let column = match &arguments.label {
        Some(column) => column.as_str(),
        None => {
            let first = &answers[0].record;
            let found = LABELS.iter().find(|name| first.contains_key(**name));
            let names: Vec<&str> = first.keys().map(String::as_str).take(12).collect();
            found.ok_or_else(|| {
                Error::input(
                    &answers[0].place,
                    "no human label",
                    format!("--label, one of {}", names.join(", ")),
                )
            })?
        }
    };
    let mut outcomes: Vec<&str> = judge.outcomes().to_vec();
    if answers.iter().any(|answer| answer.score.strategy == judge::BROKEN) {
        outcomes.push(judge::BROKEN);
    }
    let index = |name: &str| -> Option<usize> { outcomes.iter().position(|outcome| **outcome == *name) };
    let (mut human, mut own) = (Vec::new(), Vec::new());
    for answer in &answers {
        let label = answer
            .record
            .get(column)
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let label = label
            .ok_or_else(|| Error::input(&answer.place, format!("no column `{column}`"), "a human label"))?;
        let class = index(Verdict::named(&label).map(Verdict::name).unwrap_or(&label)).ok_or_else(|| {
            Error::input(&answer.place, format!("label {label:?}"), format!("one of {}", outcomes.join(", ")))
        })?;
        human.push(class);
        // A judge gives no other outcome.
        own.push(index(&answer.score.strategy).unwrap_or(outcomes.len() - 1));
    }
    let units: Vec<Vec<usize>> = (0..human.len()).map(|row| vec![row]).collect();
    let draw = |rows: &[usize]| {
        let take = |classes: &[usize]| rows.iter().map(|&row| classes[row]).collect::<Vec<_>>();
        let (human, own) = (take(&human), take(&own));
        vec![kappa(&human, &own), agreement(&human, &own)]
    };
    let intervals = bootstrap_each(&units, 1000, arguments.seed, draw);
    let metrics: Vec<Metric> = [("kappa", -1.0), ("agreement", 0.0)]
        .iter()
        .zip(intervals)
        .filter_map(|((name, least), interval)| {
            Some(Metric::new(*name, interval?.within(*least, 1.0), human.len(), "given"))
        })
        .collect();
    let count = |human_class: usize, own_class: usize| {
        human.iter().zip(&own).filter(|&(&h, &o)| h == human_class && o == own_class).count()
    };
    let matrix: Vec<Vec<usize>> =
        (0..outcomes.len()).map(|h| (0..outcomes.len()).map(|o| count(h, o)).collect()).collect();
    if arguments.json {
        print_exact(
            json!({"judge": judge.name(), "metrics": metrics, "classes": outcomes, "confusion": matrix}),
        )?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::of_figures("", &metrics);
    table.columns[0] = Column::text(&format!("{} beside {column}", judge.name()));
    print(table.to_text()?)?;
    let width = outcomes.iter().map(|outcome| outcome.len()).max().unwrap_or(0);
    let header: Vec<String> = outcomes.iter().map(|outcome| format!("{outcome:>width$}")).collect();
    print(format_args!("{:<width$}  {}", "human \\ judge", header.join("  ")))?;
    for (outcome, row) in outcomes.iter().zip(&matrix) {
        let row: Vec<String> = row.iter().map(|count| format!("{count:>width$}")).collect();
        print(format_args!("{outcome:<width$}  {}", row.join("  ")))?;
    }
    if metrics.is_empty() {
        console.say("kappa has no value: both give one class alone");
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use pearlpoint::judge::JUDGES;

    use super::*;

    #[test]
    fn the_help_names_every_judge() {
        use clap::CommandFactory;
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            judge: Judge,
        }
        let help = Program::command().render_long_help().to_string();
        assert!(JUDGES.iter().all(|judge| help.contains(judge.name)), "{help}");
    }
}
