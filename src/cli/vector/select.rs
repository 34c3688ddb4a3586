//! `pearl vector select`: a direction chosen over sites × token positions by what it does to answers.

use std::path::PathBuf;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::dialogues::Source;
use crate::cli::judge_choice::JudgeChoice;
use crate::cli::model::ModelChoice;
use crate::cli::output::{Outcome, header, print, print_exact};
use pearlpoint::analysis::direction_choice::{
    Candidate, ChoiceTable, DirectionChoice, Effect, Filters, Measure,
};
use pearlpoint::artifact::{self, Header};
use pearlpoint::dialogue::{Dialogue, Dialogues, check_value};
use pearlpoint::error::Error;
use pearlpoint::judge::Scorer;
use pearlpoint::model::{Model, Phase};
use pearlpoint::probe::{Split, Targets};
use pearlpoint::report::{Table, table::Column};
use pearlpoint::steer::Strength;

#[derive(Args)]
#[command(after_help = "Examples:
  pearl vector select --data data.jsonl --label user-type --from benign --to malicious --outcome refuse --max-tokens 24 --limit 40 --sites 2-3.resid_post --positions 1 --out refusal.safetensors
  pearl generate --data data.jsonl --limit 2 --vector refusal.safetensors@3.resid_post:ablate@all")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    source: Source,
    /// The label whose values are contrasted
    #[arg(long)]
    label: String,
    /// The value of prompts that should stay as they are, such as harmless: the directions lead away from it
    #[arg(long, value_name = "VALUE")]
    from: String,
    /// The value of prompts that have the outcome, such as harmful: the directions lead to it
    #[arg(long, value_name = "VALUE")]
    to: String,
    /// Sites of the candidates
    #[arg(long, default_value = "*.resid_post")]
    sites: String,
    /// Tokens at the end of the prompt that give candidates [default: those after the user's text, 8 at most]
    #[arg(long, value_name = "NUMBER")]
    positions: Option<usize>,
    #[command(flatten)]
    judge: JudgeChoice,
    /// The judge's outcome that ablation should remove and addition bring about [default: its refusal]
    #[arg(long)]
    outcome: Option<String>,
    /// Instead of a judge: how answers with the outcome begin; the first token of each text counts. May be repeated
    #[arg(long = "first", value_name = "TEXT", conflicts_with_all = ["judge", "judge_command", "outcome", "refusals", "words"])]
    first: Vec<String>,
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = 32)]
    max_tokens: usize,
    /// The label whose values are kept whole in one part [default: every dialogue alone]
    #[arg(long, value_name = "LABEL")]
    group: Option<String>,
    /// Groups that effects are measured on [default: one group in four, by the seed]
    #[arg(long, value_name = "VALUES", value_delimiter = ',', requires = "group")]
    held_out: Vec<String>,
    /// Prompts of each class that effects are measured on, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 32)]
    validation: usize,
    /// Strength at which a direction is added: in multiples of the difference of means, or of the residual norm (0.4n)
    #[arg(long, default_value = "1", allow_hyphen_values = true)]
    strength: Strength,
    /// Log-odds of the outcome that adding a direction has to exceed
    #[arg(long, default_value_t = Filters::default().min_added, allow_hyphen_values = true)]
    min_added: f64,
    /// Bound on the KL that ablation does to the first token of answers to harmless prompts, nats
    #[arg(long, default_value_t = Filters::default().max_kl)]
    max_kl: f64,
    /// Bound on the block, as a share of the model's
    #[arg(long, default_value_t = Filters::default().max_depth)]
    max_depth: f64,
    /// Seed of the split
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File for the vector; the table of candidates is written beside it, as JSON
    #[arg(long)]
    out: PathBuf,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// Positions by default, at most: templates of some models close the user's turn with a long tail.
const MOST_POSITIONS: usize = 8;

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let table_file = arguments.out.with_extension("json");
    if table_file == arguments.out {
        return Err(Error::input("--out", arguments.out.display(), "a name that ends in .safetensors").into());
    }
    let data = arguments.source.read(console)?;
    let [fit, validation] = parts(&arguments, &data)?;
    arguments.judge.check()?;
    let model = arguments.model.load(console)?;
    let sites = model.decoder.architecture().parse_sites(&arguments.sites)?;
    let thinking = arguments.model.thinking();
    let positions = match arguments.positions {
        Some(positions) => positions,
        None => positions_after_user(&model, &fit[0][0], thinking)?,
    };
    let judge = arguments.judge.of(&model)?;
    let measure = match arguments.first.is_empty() {
        false => Measure::Tokens(first_tokens(&model, &arguments.first)?),
        true => {
            let outcome = match &arguments.outcome {
                Some(outcome) => outcome.clone(),
                None => refusal_of(judge.as_ref())?,
            };
            Measure::Judge { judge: judge.as_ref(), outcome, max_tokens: arguments.max_tokens }
        }
    };
    let Arguments { strength, min_added, max_kl, max_depth, .. } = arguments;
    let filters = Filters { min_added, max_kl, max_depth };
    let choice = DirectionChoice {
        model: &model,
        thinking,
        fit,
        validation,
        sites,
        positions,
        strength,
        measure,
        filters,
    };
    let (table, vector) = choice.run(&mut console.stages())?;
    let header = |kind: &str, version| Header {
        data_hash: Some(data.hash.clone()),
        seed: Some(arguments.seed),
        version,
        ..header(kind, &model)
    };
    artifact::write_json(&table_file, &header("direction-choice", 1), &table)?;
    if let Some(vector) = &vector {
        vector.save(&arguments.out, header("vector", 2))?;
    }
    match arguments.json {
        true => print_exact(serde_json::to_string(&table)?)?,
        false => print(shown(&table).to_text()?)?,
    }
    table.doubts().iter().for_each(|doubt| console.say(format!("doubt: {doubt}")));
    let Some(Candidate { site, position, .. }) = table.chosen.map(|index| &table.candidates[index]) else {
        console.say(format!(
            "no candidate passes every filter, and no vector was written; the table: {}",
            table_file.display()
        ));
        return Ok(Outcome::CheckFailed);
    };
    let out = arguments.out.display();
    console.say(format!(
        "chosen: {site} at token {position} of the prompt: {out}; the table: {}",
        table_file.display()
    ));
    console.say(format!(
        "ablate it everywhere with --vector {out}@{site}:ablate@all, add it with --vector {out}:{strength}@{site}"
    ));
    Ok(Outcome::Done)
}

/// The prompts of the fit and of the validation part, each of the class `to` and of the class `from`.
fn parts(arguments: &Arguments, data: &Dialogues) -> anyhow::Result<[[Vec<Dialogue>; 2]; 2]> {
    let Arguments { label, from, to, group, .. } = arguments;
    let classes = [to, from];
    if from == to {
        return Err(Error::input("--from", format!("{from}, as --to"), "two values of the label").into());
    }
    for value in classes {
        check_value(data.path.display(), data.dialogues.iter(), label, value)?;
    }
    let chosen: Vec<&Dialogue> = data
        .dialogues
        .iter()
        .filter(|dialogue| dialogue.label(label).is_some_and(|value| classes.contains(&&value)))
        .collect();
    let labels: Vec<String> = chosen.iter().filter_map(|dialogue| dialogue.label(label)).collect();
    let mut groups = Vec::with_capacity(chosen.len());
    for (number, dialogue) in chosen.iter().enumerate() {
        groups.push(match group {
            None => number.to_string(),
            Some(group) => dialogue.label(group).ok_or_else(|| {
                Error::input(
                    format!("dialogue {}", dialogue.id),
                    format!("no label {group}"),
                    "one on every dialogue",
                )
            })?,
        });
    }
    let targets = Targets::new(&labels, &groups, &[])?;
    let held_out: Vec<&str> = arguments.held_out.iter().map(String::as_str).collect();
    let split = match held_out.as_slice() {
        [] => Split::hold_out_share(&targets, 4, arguments.seed)?,
        groups => Split::hold_out(&targets, groups)?,
    };
    let of = |rows: &[usize], most: usize| {
        classes.map(|class| {
            let own = rows.iter().filter(|&&row| labels[row] == *class);
            own.take(most).map(|&row| chosen[row].clone()).collect::<Vec<_>>()
        })
    };
    Ok([of(&split.fit, usize::MAX), of(&split.test, arguments.validation)])
}

/// The number of tokens after the user's text: the end of its turn and the opening of the answer.
fn positions_after_user(model: &Model, dialogue: &Dialogue, thinking: Option<bool>) -> anyhow::Result<usize> {
    let tokens = model.chat.tokens(dialogue, 0, thinking)?;
    let after = tokens.iter().rev().take_while(|token| token.phase == Phase::Template).count();
    Ok(after.clamp(1, MOST_POSITIONS))
}

/// The outcome of a judge that is a refusal.
fn refusal_of(judge: &dyn Scorer) -> anyhow::Result<String> {
    let outcomes = judge.outcomes();
    let found = ["refuse", "full_refusal"].into_iter().find(|outcome| outcomes.contains(outcome));
    Ok(found.map(str::to_owned).ok_or_else(|| {
        let found = format!("none given, and judge {} knows no refusal", judge.name());
        Error::input("--outcome", found, format!("one of {}", outcomes.join(", ")))
    })?)
}

/// The first token of each text.
fn first_tokens(model: &Model, texts: &[String]) -> anyhow::Result<Vec<u32>> {
    let mut tokens = Vec::new();
    for text in texts {
        let ids = model.chat.encode(text)?;
        let first =
            ids.first().ok_or_else(|| Error::input("--first", format!("{text:?}"), "a text with a token"))?;
        tokens.push(*first);
    }
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

/// The candidates as a table, the chosen one first, then those that pass, then the others.
fn shown(table: &ChoiceTable) -> Table {
    let columns =
        [("site", false), ("token", true), ("KL", true), ("added", true), ("ablated", true), ("", false)];
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
    let share = |effect: &Option<Effect>| number(effect.as_ref().map(|effect| effect.share));
    let mut order: Vec<usize> = (0..table.candidates.len()).collect();
    order.sort_by_key(|&index| (table.chosen != Some(index), table.candidates[index].dropped.is_some()));
    let row = |&index: &usize| {
        let Candidate { site, position, kl, added, ablated, dropped } = &table.candidates[index];
        let chosen = if table.chosen == Some(index) { "chosen" } else { "" };
        vec![
            site.to_string(),
            position.to_string(),
            number(*kl),
            share(added),
            share(ablated),
            dropped.clone().unwrap_or(chosen.into()),
        ]
    };
    let [to, from] = table.unsteered;
    Table {
        caption: format!(
            "share of {}, added on {} prompts (unsteered {:.3}) and ablated on {} (unsteered {:.3})",
            table.outcome, table.validation[1], from.share, table.validation[0], to.share
        ),
        columns: columns.map(|(name, numbers)| Column { name: name.into(), numbers }).into(),
        rows: order.iter().map(row).collect(),
    }
}
