//! `pearl generate`: answers, steered or not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use super::dialogues::Prompts;
use super::model::ModelChoice;
use super::output::{Outcome, print, print_exact, write_stdout};
use pearlpoint::artifact;
use pearlpoint::error::Error;
use pearlpoint::generate::{
    GenerateOptions, LogitsProcessor, Sampling, Transcript, generate, generate_streaming,
};
use pearlpoint::model::{Chain, Hook, Model, TooLong};
use pearlpoint::printable::printable;
use pearlpoint::report::pages::steering_trace;
use pearlpoint::steer::{Intervention, Plan, TraceEntry};

#[derive(Args)]
#[command(after_help = "Example:
  pearl generate --data data.jsonl --limit 2 --vector trust.safetensors:0.5n@3.resid_post")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    prompts: Prompts,
    /// Add a vector at every token; strength in multiples of the vector (2) or of the residual norm (0.4n); or ablate, clamp=V, …
    #[arg(
        long = "vector",
        value_name = "FILE[@FROM]:[OPERATION=]STRENGTH[@SITES]",
        allow_hyphen_values = true
    )]
    vectors: Vec<Intervention>,
    /// A steering plan (TOML or JSON)
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// What happens to a dialogue with more tokens than the model's context: error or skip
    #[arg(long, default_value = "error")]
    too_long: TooLong,
    #[command(flatten)]
    decoding: Decoding,
    /// Print transcripts as JSON Lines
    #[arg(long)]
    json: bool,
    /// Print the answer token by token; for one prompt
    #[arg(long, conflicts_with_all = ["json", "data"])]
    stream: bool,
    /// Add what was read and changed at each token to the transcripts, and write it as a page if a file is named
    #[arg(long, value_name = "FILE.html", num_args = 0..=1)]
    trace: Option<Option<PathBuf>>,
}

/// How tokens are chosen.
#[derive(Args)]
struct Decoding {
    /// Tokens of an answer, at most
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Take the most probable token each time
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Sampling temperature
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Sample from this many of the most probable tokens
    #[arg(long)]
    top_k: Option<usize>,
    /// Sample from the most probable tokens whose probabilities sum to this
    #[arg(long)]
    top_p: Option<f32>,
    /// Sample from tokens of at least this share of the top token's probability
    #[arg(long)]
    min_p: Option<f32>,
    /// Penalty on tokens that occurred before; 1 for none
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// A text that ends an answer; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Tokens of the thinking part, at most
    #[arg(long, value_name = "TOKENS")]
    think_budget: Option<usize>,
    /// Seed; each row samples from a stream of its own
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Decoding {
    fn options(self, thinking: Option<bool>) -> pearlpoint::Result<GenerateOptions> {
        let sampling = match self.greedy {
            true => Sampling::Greedy,
            false => Sampling::temperature(self.temperature)?,
        };
        let processor = LogitsProcessor {
            repetition_penalty: self.repetition_penalty,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
        };
        processor.check()?;
        Ok(GenerateOptions::default()
            .sampling(sampling)
            .logits_processor(processor)
            .max_tokens(self.max_tokens)
            .stop(self.stop)
            .think_budget(self.think_budget)
            .seed(self.seed)
            .thinking(thinking))
    }
}

pub fn run(arguments: Arguments, console: &Console) -> anyhow::Result<Outcome> {
    let dialogues = arguments.prompts.read(console)?;
    let mut plan = match &arguments.plan {
        Some(path) => Plan::load(path)?,
        None => Plan::default(),
    };
    let thinking = arguments.model.thinking();
    let options = arguments.decoding.options(thinking)?;
    let model = arguments.model.load(console)?;
    model.decoder.expect_logits()?;
    for intervention in arguments.vectors {
        let is_named = intervention.sites.is_some() || intervention.from.is_some();
        let intervention = intervention.at_best_site(&model)?;
        if let Some(site) = intervention.sites.as_ref().filter(|_| !is_named) {
            console.say(format!("steered at {site}, the vector's best site"));
        }
        plan.interventions.push(intervention);
    }
    let before = dialogues.len();
    let mut fitting = Vec::with_capacity(before);
    for dialogue in dialogues {
        match model.excess(&dialogue, thinking)? {
            None => fitting.push(dialogue),
            Some(tokens) if arguments.too_long == TooLong::Error => {
                return Err(model.decoder.architecture().too_long(&dialogue, tokens).into());
            }
            Some(_) => {}
        }
    }
    let dialogues = fitting;
    if dialogues.len() < before {
        let limit = model.decoder.architecture().longest();
        console
            .say(format!("{} dialogues of more than {limit} tokens were left out", before - dialogues.len()));
    }
    for dialogue in &dialogues {
        let unknown = dialogue
            .messages
            .iter()
            .map(|message| model.chat.unknown(&message.content))
            .sum::<Result<usize, _>>()?;
        if unknown > 0 {
            console.say(format!("{}: {unknown} words are not in the model's vocabulary", dialogue.id));
        }
    }
    plan.doubts(&model)?.iter().for_each(|doubt| console.say(format!("doubt: {doubt}")));
    let mut hooks = plan.hooks(&model, &dialogues, thinking)?;
    if arguments.trace.is_some() {
        hooks = hooks.into_iter().enumerate().map(|(number, hook)| hook.traced(number)).collect();
    }
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    let mut transcripts = if arguments.stream {
        let failed = RefCell::new(None);
        let mut on_token = |_: usize, text: &str| {
            let said = write_stdout(format_args!("{}", printable(text)));
            let mut failed = failed.borrow_mut();
            *failed = failed.take().or(said.err());
        };
        let transcripts = generate_streaming(
            &model,
            &dialogues,
            &options,
            &mut chain,
            // Nobody reads on where stdout is closed.
            &mut |_| failed.borrow().is_none() && console.should_continue(),
            &mut on_token,
        );
        match failed.into_inner() {
            Some(error) => return Err(error),
            None => {
                let transcripts = transcripts?;
                print("")?;
                transcripts
            }
        }
    } else {
        let bar = console.bar(dialogues.len(), "answering");
        generate(&model, &dialogues, &options, &mut chain, &mut |done| bar.done(done))?
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
            true => print_exact(serde_json::to_string(transcript)?)?,
            false => print(&transcript.text)?,
        }
    }
    Ok(Outcome::Done)
}

/// The trace of each transcript: every token with the steps that were taken at it.
fn traces(
    model: &Model,
    transcripts: &[Transcript],
    dialogues: &[pearlpoint::dialogue::Dialogue],
    steps: Vec<TraceEntry>,
    thinking: Option<bool>,
) -> pearlpoint::Result<Vec<steering_trace::Trace>> {
    let mut steps_at: BTreeMap<(usize, usize), Vec<serde_json::Value>> = BTreeMap::new();
    for step in steps {
        let value = serde_json::to_value(&step)
            .map_err(|error| Error::input("trace", error, "numbers that JSON can hold"))?;
        steps_at.entry((step.row, step.position)).or_default().push(value);
    }
    let trace = |(row, (transcript, dialogue)): (usize, (&Transcript, &pearlpoint::dialogue::Dialogue))| {
        let mut tokens = model.chat.tokens(dialogue, row, thinking)?;
        let mut continuation = model.chat.continuation(&tokens);
        tokens.extend(transcript.tokens.iter().map(|id| continuation.next(*id)));
        let traced = tokens.iter().map(|token| {
            Ok(steering_trace::Token {
                position: token.position,
                id: token.id,
                text: model.chat.decode(&[token.id], false)?,
                generated: token.generated,
                phase: format!("{:?}", token.phase).to_lowercase(),
                steps: steps_at.remove(&(row, token.position)).unwrap_or_default(),
            })
        });
        Ok(steering_trace::Trace {
            id: transcript.id.clone(),
            tokens: traced.collect::<pearlpoint::Result<_>>()?,
        })
    };
    transcripts.iter().zip(dialogues).enumerate().map(trace).collect()
}
