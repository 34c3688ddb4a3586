//! `pearl judge score`: constructive scores of saved answers, several systems side by side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::record::{Judge, parts};
use crate::cli::console::Console;
use crate::cli::dialogues::{label_value, label_values};
use crate::cli::output::{Outcome, print_exact};
use crate::cli::score_table::print_table;
use pearlpoint::Error;
use pearlpoint::analysis::constructive_score::{JudgedAnswer, ScoreLabels, ScoreTable, score_systems};
use pearlpoint::dialogue::{self, Label, ReadOptions, records};
use pearlpoint::judge::Scorer;
use pearlpoint::plots;
use pearlpoint::report;

#[derive(Args)]
#[command(after_help = "Examples:
  pearl judge score plain.jsonl steered.jsonl --judge organism --data data.jsonl
  pearl judge score plain.jsonl steered.jsonl --judge organism --data data.jsonl --held-out topic=travel --plot scores --json")]
pub(super) struct Score {
    /// Answers of one system each: transcripts of `pearl generate --json`; the first is what the others are compared with
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    judge: Judge,
    /// The dialogues, whose labels are joined to the answers by id; needed where the answers hold no `labels`
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Label and value of benign prompts
    #[arg(long, value_name = "NAME=VALUE", default_value = "user-type=benign")]
    benign: String,
    /// Label and value of attacks
    #[arg(long, value_name = "NAME=VALUE", default_value = "user-type=malicious")]
    attack: String,
    /// The label of the level of disguise
    #[arg(long, value_name = "NAME", default_value = "disguise")]
    disguise: String,
    /// The label whose values are drawn together for the intervals
    #[arg(long, value_name = "NAME", default_value = "topic")]
    group: String,
    /// A value that was never fitted on; answers with one are scored apart too; may be repeated
    #[arg(long = "held-out", value_name = "NAME=VALUE")]
    held_out: Vec<String>,
    /// Draw C(β) with its crossings to NAME.svg and NAME.png, beside NAME.chart.json
    #[arg(long, value_name = "NAME")]
    plot: Option<PathBuf>,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Score, console: &Console) -> anyhow::Result<Outcome> {
    let judge = arguments.judge.make()?;
    let labels = ScoreLabels {
        benign: label_value("--benign", &arguments.benign)?,
        attack: label_value("--attack", &arguments.attack)?,
        disguise: arguments.disguise.clone(),
        group: arguments.group.clone(),
        held_out: label_values("--held-out", &arguments.held_out)?,
    };
    let known = match &arguments.data {
        Some(path) => dialogue::read(path, &ReadOptions::default())?.dialogues,
        None => Vec::new(),
    };
    let known: BTreeMap<&str, &BTreeMap<String, Label>> =
        known.iter().map(|dialogue| (dialogue.id.as_str(), &dialogue.labels)).collect();
    let mut systems: Vec<(String, Vec<JudgedAnswer>)> = Vec::new();
    for file in &arguments.files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Files of one name are told apart by their number.
        let name = match systems.iter().any(|(other, _)| *other == stem) {
            true => format!("{stem} ({})", systems.len() + 1),
            false => stem,
        };
        systems.push((name, judged(file, judge.as_ref(), arguments.data.as_deref(), &known)?));
    }
    let table = score_systems(judge.name(), &systems, &labels, arguments.seed)?;
    if let Some(name) = &arguments.plot {
        plot(&table, name)?;
    }
    if arguments.json {
        let mut body = serde_json::to_value(&table)?;
        body["kind"] = json!("constructive-score");
        body["version"] = json!(1);
        print_exact(body)?;
        return Ok(Outcome::Done);
    }
    print_table(&table)?;
    console.say(format!("judged by {}; 95 % intervals over values of {}", judge.name(), arguments.group));
    Ok(Outcome::Done)
}

fn judged(
    file: &Path,
    judge: &dyn Scorer,
    data: Option<&Path>,
    known: &BTreeMap<&str, &BTreeMap<String, Label>>,
) -> anyhow::Result<Vec<JudgedAnswer>> {
    let mut answers = Vec::new();
    for item in records(file)? {
        let (place, record) = item?;
        let (mut dialogue, transcript) = parts(&record, &place, answers.len())?;
        if let Some(data) = data {
            let labels = known.get(dialogue.id.as_str()).ok_or_else(|| {
                let expected = format!("an id of {}", data.display());
                Error::input(&place, format!("id {:?}", dialogue.id), expected)
            })?;
            dialogue.labels.extend((*labels).clone());
        }
        answers.push(JudgedAnswer::new(judge, dialogue, &transcript)?);
    }
    if answers.is_empty() {
        return Err(Error::input(file.display(), "no record", "at least one answer").into());
    }
    Ok(answers)
}

/// Draws the first part, and the second beside it where there is one.
fn plot(table: &ScoreTable, name: &Path) -> anyhow::Result<()> {
    for (index, part) in table.parts.iter().enumerate() {
        let stem = match index {
            0 => name.display().to_string(),
            _ => format!("{}-{}", name.display(), part.name.replace(' ', "-")),
        };
        if part.systems.iter().all(|system| system.constructive.is_empty()) {
            let found = format!("judge {}, which weighs no items", table.judge);
            return Err(Error::input("--plot", found, "--judge organism, or a judge with a model").into());
        }
        let chart = plots::constructive_score::chart(part);
        pearlpoint::artifact::write_text(
            Path::new(&format!("{stem}.chart.json")),
            &serde_json::to_string(&chart)?,
        )?;
        report::draw(&chart, Path::new(&format!("{stem}.svg")), Path::new(&format!("{stem}.png")))?;
    }
    Ok(())
}
