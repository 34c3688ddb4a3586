//! `pearl extract`: dialogues in, a store of activations out.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::dialogues::{Source, say_skipped};
use super::model::Choice;
use super::progress::Console;
use super::{Outcome, print};
use pearlpoint::activations::{BATCH_TOKENS, Part, Request, StoreOptions, extract_to_store};
use pearlpoint::model::{Dtype, Selector};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: Choice,
    #[command(flatten)]
    source: Source,
    /// Where to read: *.resid_post, 4-11.resid_post, 3,7.mlp_out, embed, all
    #[arg(long, default_value = "*.resid_post")]
    sites: String,
    /// Which tokens to read: last, assistant.start, mean(answer), …
    #[arg(long, default_value = "last")]
    tokens: Selector,
    /// Folder of the store. A run that was stopped goes on from what is in it
    #[arg(long)]
    out: PathBuf,
    /// Type that activations are stored in: f32, f16 or bf16
    #[arg(long, default_value_t = Dtype::F32)]
    store_dtype: Dtype,
    /// Read only the I-th of N parts (I from 1); `pearl store merge` puts them together
    #[arg(long, value_name = "I/N")]
    shard: Option<Part>,
    /// Tokens of a batch
    #[arg(long, default_value_t = BATCH_TOKENS as u32, value_parser = clap::value_parser!(u32).range(1..))]
    batch_tokens: u32,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
    /// End with a line of JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    let (options, survey) = arguments.source.survey(talk)?;
    let model = arguments.model.open(talk)?;
    let architecture = model.decoder.architecture();
    let request = Request::new(architecture.parse_sites(&arguments.sites)?)
        .tokens(arguments.tokens)
        .thinking(arguments.no_think.then_some(false))
        .batch_tokens(arguments.batch_tokens as usize);
    let store = StoreOptions::default()
        .dialogues(options)
        .dtype(arguments.store_dtype)
        .part(arguments.shard)
        .data_hash(survey.hash.clone());
    let begin = Instant::now();
    let bar = talk.bar(survey.dialogues, "reading");
    let mut first = None;
    let read =
        extract_to_store(&arguments.out, &model, &arguments.source.data, &request, &store, &mut |heard| {
            // The rate and the time left are this run's: what was there before took none.
            if first.is_none() {
                first = Some(heard.dialogues);
                bar.set_position(heard.dialogues as u64);
                bar.reset_eta();
            }
            bar.set_position(heard.dialogues as u64);
            bar.set_message(format!("{:.0} tokens/s", heard.tokens as f64 / begin.elapsed().as_secs_f64()));
            talk.should_continue()
        });
    bar.finish_and_clear();
    let read = read?;
    let seconds = begin.elapsed().as_secs_f64();
    let manifest = &read.manifest;
    let out = arguments.out.display();
    if read.resumed > 0 {
        talk.say(format!("{} rows were there already", read.resumed));
    }
    talk.say(format!("{} rows at {} sites in {out}", manifest.rows, manifest.sites.len()));
    if read.computed < read.tokens {
        talk.say(format!("{} of {} tokens went through the model", read.computed, read.tokens));
    }
    say_skipped(talk, survey.skipped);
    if manifest.refused > 0 {
        talk.say(format!("{} dialogues that the chat template refuses were left out", manifest.refused));
    }
    if arguments.json {
        print(json!({
            "rows": manifest.rows,
            "tokens": read.tokens,
            "seconds": seconds,
            "tokens_per_second": read.tokens as f64 / seconds,
            "computed": read.computed,
            "resumed": read.resumed,
            "skipped": survey.skipped + manifest.refused,
        }))?;
    }
    Ok(Outcome::Done)
}
