//! `pearl extract`: dialogues in, a store of activations out.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::console::Console;
use super::dialogues::{Source, say_skipped};
use super::model::ModelChoice;
use super::output::{Outcome, print_exact};
use pearlpoint::activations::{BATCH_TOKENS, Part};
use pearlpoint::model::{Dtype, Selector, TooLong};
use pearlpoint::steer::Plan;

#[derive(Args)]
#[command(after_help = "Example:
  pearl extract --data data.jsonl --tokens assistant.start --out store")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    source: Source,
    /// Sites to record: *.resid_post, 4-11.resid_post, 3,7.mlp_out, embed, all
    #[arg(long, default_value = "*.resid_post")]
    sites: String,
    /// Tokens to record: last, assistant.start, mean(answer), …; `pearl tokens` shows what a selector picks
    #[arg(long, default_value = "last", value_name = "SELECTOR")]
    tokens: Selector,
    /// Folder for the store; a run that was stopped resumes from what it holds
    #[arg(long)]
    out: PathBuf,
    /// Type that activations are stored in: f32, f16 or bf16
    #[arg(long, default_value_t = Dtype::F32)]
    store_dtype: Dtype,
    /// Record only part I of N, counted from 1; `pearl store merge` joins the parts
    #[arg(long, value_name = "I/N")]
    shard: Option<Part>,
    /// A steering plan (TOML or JSON): the states are read from the steered model
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Tokens of a batch, at most
    #[arg(long, default_value_t = BATCH_TOKENS as u32, value_parser = clap::value_parser!(u32).range(1..))]
    batch_tokens: u32,
    /// What happens to a dialogue with more tokens than the model's context: error or skip
    #[arg(long, default_value = "error")]
    too_long: TooLong,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let (options, survey) = arguments.source.survey(console)?;
    let model = arguments.model.load(console)?;
    let plan = arguments.plan.as_deref().map(Plan::load).transpose()?;
    let mut extraction = model
        .extraction(&arguments.sites, &arguments.tokens.to_string())?
        .thinking(arguments.model.thinking())
        .batch_tokens(arguments.batch_tokens as usize)
        .too_long(arguments.too_long)
        .store_dtype(arguments.store_dtype)
        .part(arguments.shard);
    if let Some(plan) = &plan {
        plan.doubts(&model)?.iter().for_each(|doubt| console.say(format!("doubt: {doubt}")));
        if plan.interventions.iter().any(|one| one.tokens == Selector::Generated) {
            console
                .say("doubt: tokens = \"generated\" picks no token of dialogues that are read; answer does");
        }
        extraction = extraction.plan(plan)?;
    }
    console.keeps(&arguments.out);
    let (begin, bar) = (Instant::now(), console.bar(survey.dialogues, "reading"));
    let mut is_first = true;
    let data = &arguments.source.data;
    let read =
        extraction.record(data, &options, Some(survey.hash.clone()), &arguments.out, &mut |progress| {
            let proceed = bar.done(progress.dialogues);
            // The rate and the time left count this run alone, not what an earlier one left.
            if std::mem::take(&mut is_first) {
                bar.bar.reset_eta();
            }
            let rate = progress.tokens as f64 / begin.elapsed().as_secs_f64();
            bar.bar.set_message(format!("{rate:.0} tokens/s"));
            proceed
        })?;
    drop(bar);
    let seconds = begin.elapsed().as_secs_f64();
    let manifest = &read.manifest;
    if read.resumed > 0 {
        console.say(format!("{} rows were there already", read.resumed));
    }
    let out = arguments.out.display();
    console.say(format!("{} rows at {} sites in {out}", manifest.rows, manifest.sites.len()));
    if read.computed < read.tokens {
        console.say(format!("{} of {} tokens went through the model", read.computed, read.tokens));
    }
    say_skipped(console, &survey.skipped, "bad records");
    // Those of an earlier run that this one continued are counted, without their reasons.
    let mut refused = read.refused;
    refused.count = manifest.refused;
    say_skipped(console, &refused, "dialogues that the chat template or the model refuses");
    if manifest.unpicked > 0 {
        console.say(format!("{} dialogues have no token that {} picks", manifest.unpicked, arguments.tokens));
    }
    if arguments.json {
        print_exact(json!({
            "rows": manifest.rows,
            "tokens": read.tokens,
            "seconds": seconds,
            "tokens_per_second": read.tokens as f64 / seconds,
            "computed": read.computed,
            "resumed": read.resumed,
            "skipped": survey.skipped.count + manifest.refused,
            "unpicked": manifest.unpicked,
        }))?;
    }
    Ok(Outcome::Done)
}
