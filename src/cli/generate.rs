//! `pearl generate`: answers, steered or not.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::dialogues::Prompts;
use super::model::Choice;
use super::progress::Console;
use super::{Outcome, print};
use pearlpoint::artifact;
use pearlpoint::error::Error;
use pearlpoint::generate::{Options, Sampling, Shape, Transcript, generate, generate_heard};
use pearlpoint::model::{Chain, Hook, Model};
use pearlpoint::report::pages::steering_trace;
use pearlpoint::steer::{Intervention, Plan, Step};

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
    #[command(flatten)]
    how: How,
    /// The template's plain mode, where it has one
    #[arg(long)]
    no_think: bool,
    /// Transcripts as JSON Lines
    #[arg(long)]
    json: bool,
    /// Write the answer as it comes; for one prompt
    #[arg(long, conflicts_with_all = ["json", "data"])]
    stream: bool,
    /// Keep what was read and changed at each token in the transcripts, and show it on a page: FILE.html
    #[arg(long, value_name = "FILE.html", num_args = 0..=1)]
    trace: Option<Option<PathBuf>>,
}

/// How tokens are chosen.
#[derive(Args)]
struct How {
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// The likeliest token each time
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Only the so many likeliest tokens
    #[arg(long)]
    top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities sum to this
    #[arg(long)]
    top_p: Option<f32>,
    /// Only tokens at least so likely, as a share of the likeliest
    #[arg(long)]
    min_p: Option<f32>,
    /// Makes what was said before less likely; 1 for not
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// A text that ends an answer; again for another
    #[arg(long)]
    stop: Vec<String>,
    /// Tokens of the thinking part, at most
    #[arg(long, value_name = "TOKENS")]
    think_budget: Option<usize>,
    /// Each row draws by itself, from this and its number
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Rows that are decoded side by side.
const BATCH_ROWS: usize = 32;

impl How {
    fn options(self, thinking: Option<bool>) -> pearlpoint::Result<Options> {
        let sampling = match self.greedy {
            true => Sampling::Greedy,
            false => Sampling::temperature(self.temperature)?,
        };
        let shape = Shape {
            repetition_penalty: self.repetition_penalty,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
        };
        shape.check()?;
        Ok(Options {
            sampling,
            shape,
            max_tokens: self.max_tokens,
            stop: self.stop,
            think_budget: self.think_budget,
            seed: self.seed,
            thinking,
            batch_rows: BATCH_ROWS,
        })
    }
}

pub fn run(arguments: Arguments, talk: &Console) -> anyhow::Result<Outcome> {
    let dialogues = arguments.prompts.read()?;
    let mut plan = match &arguments.plan {
        Some(path) => Plan::load(path)?,
        None => Plan::default(),
    };
    plan.interventions.extend(arguments.vectors);
    let thinking = arguments.no_think.then_some(false);
    let options = arguments.how.options(thinking)?;
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
    let mut hooks = plan.hooks(&model, &dialogues, thinking)?;
    if arguments.trace.is_some() {
        hooks = hooks.into_iter().enumerate().map(|(number, hook)| hook.traced(number)).collect();
    }
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    let mut transcripts = if arguments.stream {
        let mut failed = None;
        let mut on_token = |_: usize, text: &str| {
            let mut out = std::io::stdout().lock();
            let said = write!(out, "{text}").and_then(|()| out.flush());
            failed = failed.take().or(said.err());
        };
        let transcripts = generate_heard(
            &model,
            &dialogues,
            &options,
            &mut chain,
            &mut |_| talk.should_continue(),
            &mut on_token,
        )?;
        match failed {
            Some(error) => return Err(error.into()),
            None => print("")?,
        }
        transcripts
    } else {
        let bar = talk.bar(dialogues.len(), "answering");
        let transcripts = generate(&model, &dialogues, &options, &mut chain, &mut |done| {
            bar.set_position(done as u64);
            talk.should_continue()
        })?;
        bar.finish_and_clear();
        transcripts
    };
    if let Some(page) = &arguments.trace {
        let steps = hooks.iter_mut().flat_map(|hook| hook.take_trace()).collect();
        let traces = traces(&model, &transcripts, &dialogues, steps, thinking)?;
        for (transcript, trace) in transcripts.iter_mut().zip(&traces) {
            transcript.trace = Some(serde_json::to_value(trace)?);
        }
        if let Some(path) = page {
            let html = steering_trace::page(&traces)?;
            artifact::write_atomic(path, |file| file.write_all(html.as_bytes()))?;
        }
    }
    for transcript in transcripts.iter().filter(|_| !arguments.stream) {
        match arguments.json {
            true => print(serde_json::to_string(transcript)?)?,
            false => print(&transcript.text)?,
        }
    }
    Ok(Outcome::Done)
}

/// What was done at each token of each transcript.
fn traces(
    model: &Model,
    transcripts: &[Transcript],
    dialogues: &[pearlpoint::dialogue::Dialogue],
    steps: Vec<Step>,
    thinking: Option<bool>,
) -> pearlpoint::Result<Vec<steering_trace::Trace>> {
    let mut by_place: BTreeMap<(usize, usize), Vec<serde_json::Value>> = BTreeMap::new();
    for step in steps {
        let value = serde_json::to_value(&step)
            .map_err(|error| Error::input("trace", error, "numbers that JSON can hold"))?;
        by_place.entry((step.row, step.position)).or_default().push(value);
    }
    let trace = |(row, (transcript, dialogue)): (usize, (&Transcript, &pearlpoint::dialogue::Dialogue))| {
        let mut tokens = model.chat.tokens(dialogue, row, thinking)?;
        let mut continuation = model.chat.continuation(&tokens);
        tokens.extend(transcript.tokens.iter().map(|id| continuation.next(*id)));
        let shown = tokens.iter().map(|token| {
            Ok(steering_trace::Token {
                position: token.position,
                id: token.id,
                text: model.chat.decode(&[token.id], false)?,
                generated: token.generated,
                phase: format!("{:?}", token.phase).to_lowercase(),
                steps: by_place.remove(&(row, token.position)).unwrap_or_default(),
            })
        });
        Ok(steering_trace::Trace {
            id: transcript.id.clone(),
            tokens: shown.collect::<pearlpoint::Result<_>>()?,
        })
    };
    transcripts.iter().zip(dialogues).enumerate().map(trace).collect()
}
