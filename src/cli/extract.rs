//! `pearl extract`: dialogues in, a store of activations out.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::dialogues::Source;
use super::model::Choice;
use super::progress::Talk;
use super::{Outcome, print};
use crate::activations::{self, Reading};
use crate::artifact::Header;
use crate::model::Selector;

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
    /// Folder of the store
    #[arg(long)]
    out: PathBuf,
    /// Tokens of a batch
    #[arg(long, default_value_t = 4096)]
    batch_tokens: usize,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
    /// End with a line of JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments, talk: &Talk) -> anyhow::Result<Outcome> {
    let data = arguments.source.read()?;
    let model = arguments.model.open(talk)?;
    let architecture = model.decoder.architecture();
    let reading = Reading {
        sites: architecture.parse_sites(&arguments.sites)?,
        tokens: arguments.tokens,
        thinking: arguments.no_think.then_some(false),
        batch_tokens: arguments.batch_tokens,
    };
    let begin = Instant::now();
    let bar = talk.bar(data.dialogues.len(), "reading");
    let activations = activations::extract(&model, &data.dialogues, &reading, &mut |done| {
        bar.set_position(done as u64);
        talk.goes_on()
    })?;
    bar.finish_and_clear();
    let header = Header {
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        data_hash: Some(data.hash.clone()),
        ..Header::new("activations", 1)
    };
    let source = data.path.display().to_string();
    let manifest = activations::save(
        &arguments.out,
        header,
        &architecture.family,
        &source,
        &reading.tokens,
        &activations,
    )?;
    let seconds = begin.elapsed().as_secs_f64();
    let rate = activations.tokens as f64 / seconds;
    talk.say(format!(
        "{} rows at {} sites in {}",
        manifest.rows,
        manifest.sites.len(),
        arguments.out.display()
    ));
    if arguments.json {
        let line = json!({"rows": manifest.rows, "tokens": activations.tokens, "seconds": seconds, "tokens_per_second": rate});
        print(line)?;
    }
    Ok(Outcome::Done)
}
