//! `pearl generate`: answers, steered or not.

use std::path::PathBuf;

use clap::Args;

use super::dialogues::Prompts;
use super::model::Choice;
use super::progress::Talk;
use super::{Outcome, print};
use crate::generate::{Options, Sampling, generate};
use crate::model::{Chain, Hook};
use crate::steer::{Intervention, Plan};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: Choice,
    #[command(flatten)]
    prompts: Prompts,
    /// Add a vector at every token: FILE:STRENGTH[@SITES], strength in times the vector or in residual norms (0.4n)
    #[arg(long = "vector", value_name = "FILE:STRENGTH[@SITES]", allow_hyphen_values = true)]
    vectors: Vec<Intervention>,
    /// A steering plan, TOML or JSON
    #[arg(long)]
    plan: Option<PathBuf>,
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// The likeliest token each time
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
    /// Transcripts as JSON Lines
    #[arg(long)]
    json: bool,
}

/// Rows that are decoded side by side.
const BATCH_ROWS: usize = 32;

pub fn run(arguments: Arguments, talk: &Talk) -> anyhow::Result<Outcome> {
    let dialogues = arguments.prompts.read()?;
    let mut plan = match &arguments.plan {
        Some(path) => Plan::load(path)?,
        None => Plan::default(),
    };
    plan.interventions.extend(arguments.vectors);
    let sampling = match arguments.greedy {
        true => Sampling::Greedy,
        false => Sampling::temperature(arguments.temperature)?,
    };
    let model = arguments.model.open(talk)?;
    for dialogue in &dialogues {
        let unknown = dialogue
            .messages
            .iter()
            .map(|message| model.chat.unknown(&message.content))
            .sum::<Result<usize, _>>()?;
        if unknown > 0 {
            talk.say(format!("{}: {unknown} words that the model does not know", dialogue.id));
        }
    }
    let thinking = arguments.no_think.then_some(false);
    let mut hooks = plan.hooks(&model, &dialogues, thinking)?;
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    let options = Options {
        sampling,
        max_tokens: arguments.max_tokens,
        seed: arguments.seed,
        thinking,
        batch_rows: BATCH_ROWS,
    };
    let bar = talk.bar(dialogues.len(), "answering");
    let transcripts = generate(&model, &dialogues, &options, &mut chain, &mut |done| {
        bar.set_position(done as u64);
        talk.goes_on()
    })?;
    bar.finish_and_clear();
    for transcript in &transcripts {
        match arguments.json {
            true => print(serde_json::to_string(transcript)?)?,
            false => print(&transcript.text)?,
        }
    }
    Ok(Outcome::Done)
}
