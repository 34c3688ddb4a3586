//! `pearl generate`: answers, steered or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use ndarray::Array2;
use serde::Serialize;

use super::console::Console;
use super::dialogues::Prompts;
use super::model::ModelChoice;
use super::output::{Outcome, header, print, print_exact, write_stdout};
use pearlpoint::artifact::{self, Header, Numbers, Part, ShardRow};
use pearlpoint::constructive::{Ablation, Policy};
use pearlpoint::dialogue::Dialogue;
use pearlpoint::error::Error;
use pearlpoint::generate::{
    Event, Finish, GenerateOptions, KeptLogits, LogitsProcessor, Sampling, Transcript, answer_each,
};
use pearlpoint::model::{Chain, Hook, Model, TooLong};
use pearlpoint::printable::printable;
use pearlpoint::report::pages::steering_trace;
use pearlpoint::steer::{Intervention, Plan, TraceEntry};

#[derive(Args)]
#[command(after_help = "Example:
  pearl generate --data data.jsonl --limit 2 --vector trust.safetensors:0.5n@3.resid_post
  pearl generate --data data.jsonl --limit 2 --constructive organism
  pearl generate --data data.jsonl --json --shard 1/2")]
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
    /// A policy of `pearl constructive fit`, or `organism`, the embedded model's: it reads each prompt, plays the game and steers the answer
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["vectors", "plan"])]
    constructive: Option<PathBuf>,
    /// A part of the policy that is taken away: game, belief, reasoning or face; may be repeated
    #[arg(long, value_name = "PART", requires = "constructive")]
    ablate: Vec<Ablation>,
    /// What happens to a dialogue with more tokens than the model's context: error or skip
    #[arg(long, default_value = "error")]
    too_long: TooLong,
    #[command(flatten)]
    decoding: Decoding,
    /// Print transcripts as JSON Lines
    #[arg(long)]
    json: bool,
    /// Answer only part I of N, counted from 1, of about equally many tokens; `pearl merge` joins the parts
    #[arg(long, value_name = "I/N", requires_all = ["json", "data"], conflicts_with_all = ["logits", "trace"])]
    shard: Option<Part>,
    /// Write the logits that each token was chosen by, before temperature and cuts, as safetensors: `logits` [tokens, vocabulary]
    #[arg(long, value_name = "FILE.safetensors", conflicts_with = "top_logprobs")]
    logits: Option<PathBuf>,
    /// Add to each transcript the log-probability of every token and of the likeliest ones, as `logprobs`
    #[arg(long, value_name = "NUMBER", requires = "json")]
    top_logprobs: Option<usize>,
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
    let kept = match (&arguments.logits, arguments.top_logprobs) {
        (Some(_), _) => KeptLogits::All,
        (None, Some(count)) => KeptLogits::Top(count),
        (None, None) => KeptLogits::None,
    };
    let options = arguments.decoding.options(thinking)?.logits(kept);
    let model = arguments.model.load(console)?;
    model.decoder.expect_logits()?;
    let mut best_sites = Vec::new();
    for intervention in arguments.vectors {
        let is_named = intervention.sites.is_some() || intervention.from.is_some();
        let intervention = intervention.at_best_site(&model)?;
        best_sites.extend(intervention.sites.clone().filter(|_| !is_named));
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
    let (dialogues, rows, first_row) = own_part(&model, dialogues, arguments.shard, &options)?;
    let options = options.first_row(first_row);
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
    if arguments.logits.is_some() {
        check_logits(&model, dialogues.len(), options.max_tokens)?;
    }
    let decisions = match &arguments.constructive {
        Some(folder) => {
            let policy = Policy::named(folder)?;
            let decisions = policy.decide(&model, &dialogues, &arguments.ablate, options.seed)?;
            plan = policy.plan(&decisions, &arguments.ablate)?;
            for decision in decisions.iter().filter(|_| !arguments.json) {
                console.say_lines(&format!("{}:\n{}", decision.id, decision.card));
            }
            decisions.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?
        }
        None => Vec::new(),
    };
    plan.doubts(&model)?.iter().for_each(|doubt| console.say(format!("doubt: {doubt}")));
    let mut hooks = plan.hooks(&model, &dialogues, thinking)?;
    best_sites.iter().for_each(|site| console.say(format!("steered at {site}, the vector's best site")));
    if arguments.trace.is_some() {
        hooks = hooks.into_iter().enumerate().map(|(number, hook)| hook.traced(number)).collect();
    }
    let said = Said {
        json: arguments.json,
        model: &model.name,
        model_hash: &model.hash,
        seed: options.seed,
        // A policy's directions are in memory; its decisions say what was steered.
        plan: (!plan.interventions.is_empty() && arguments.constructive.is_none()).then_some(&plan),
        shard: arguments.shard.map(|part| ShardRow { part, row: first_row, rows }),
    };
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    let bar = (!arguments.stream).then(|| console.bar(dialogues.len(), "answering"));
    // A trace is put together at the end; without one, answers are printed batch by batch.
    let prints = arguments.trace.is_none() && !arguments.stream;
    let (mut transcripts, mut failed) = (Vec::new(), None);
    let mut listener = |event: Event| {
        match event {
            Event::Token => {}
            Event::Text(_, text) => {
                let written = write_stdout(format_args!("{}", printable(text)));
                failed = failed.take().or(written.err());
            }
            Event::Answers(mut new) => {
                for (transcript, decision) in new.iter_mut().zip(decisions.iter().skip(transcripts.len())) {
                    transcript.decision = Some(decision.clone());
                }
                // What is printed now is not cut by Ctrl-C.
                if !console.should_continue() {
                    console.end();
                }
                if prints {
                    let print =
                        || (transcripts.len()..).zip(&new).try_for_each(|(row, one)| said.print(row, one));
                    let written = bar.as_ref().map_or_else(print, |bar| bar.bar.suspend(print));
                    failed = failed.take().or(written.err());
                }
                transcripts.extend(new);
            }
        }
        bar.as_ref().iter().for_each(|bar| _ = bar.done(transcripts.len()));
        // Nobody reads on where stdout is closed.
        failed.is_none() && console.should_continue()
    };
    answer_each(&model, &dialogues, &options, &mut chain, &mut listener, arguments.stream)?;
    drop(bar);
    if let Some(error) = failed {
        return Err(error);
    }
    if arguments.stream {
        print("")?;
    }
    if let Some(path) = &arguments.logits {
        let header = Header { seed: Some(options.seed), ..header("logits", &model) };
        save_logits(path, header, &transcripts)?;
    }
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
        let mut shown = (0..).zip(&transcripts).filter(|_| !arguments.stream);
        shown.try_for_each(|(row, transcript)| said.print(row, transcript))?;
    }
    let whole = transcripts.iter().filter(|transcript| transcript.finish != Finish::Stopped).count();
    if whole < dialogues.len() {
        let (begun, total) = (transcripts.len() - whole, dialogues.len());
        console.say(format!("stopped: {whole} of {total} answers are whole, and {begun} end early"));
        return Ok(Outcome::Stopped);
    }
    Ok(Outcome::Done)
}

/// How answers are printed, and what is said beside each.
struct Said<'a> {
    json: bool,
    model: &'a str,
    model_hash: &'a str,
    seed: u64,
    plan: Option<&'a Plan>,
    /// The place of the first answer, where this is a part of a run.
    shard: Option<ShardRow>,
}

impl Said<'_> {
    /// Prints the answer of this number of the run's own.
    fn print(&self, row: usize, transcript: &Transcript) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            transcript: &'a Transcript,
            model: &'a str,
            model_hash: &'a str,
            seed: u64,
            plan: Option<&'a Plan>,
        }
        let Said { json, model, model_hash, seed, plan, shard } = *self;
        match json {
            true => {
                let line = serde_json::to_string(&Line { transcript, model, model_hash, seed, plan })?;
                match shard {
                    None => print_exact(line),
                    Some(first) => print_exact(ShardRow { row: first.row + row, ..first }.mark(&line)?),
                }
            }
            false => print(&transcript.text),
        }
    }
}

/// The dialogues of a part, the number of all, and the place of the part's first. A dialogue weighs as many tokens as its prompt has,
/// and as its answer may have.
fn own_part(
    model: &Model,
    mut dialogues: Vec<Dialogue>,
    part: Option<Part>,
    options: &GenerateOptions,
) -> pearlpoint::Result<(Vec<Dialogue>, usize, usize)> {
    let rows = dialogues.len();
    let Some(part) = part else { return Ok((dialogues, rows, 0)) };
    let weight = |dialogue: &Dialogue| -> pearlpoint::Result<usize> {
        Ok(model.chat.tokens(dialogue, 0, options.thinking)?.len().saturating_add(options.max_tokens))
    };
    let weights = dialogues.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
    let own = part.range(&weights);
    dialogues.truncate(own.end);
    Ok((dialogues.split_off(own.start), rows, own.start))
}

/// The most bytes of logits that are held.
const MOST_LOGITS: usize = 2 << 30;

/// Refuses more logits than are held.
fn check_logits(model: &Model, dialogues: usize, max_tokens: usize) -> pearlpoint::Result<()> {
    let token = 4 * model.decoder.architecture().vocabulary;
    let most = MOST_LOGITS / token.max(1);
    if dialogues.saturating_mul(max_tokens) > most {
        let found = format!("{dialogues} answers of {max_tokens} tokens, {token} bytes of logits each");
        let expected = format!("{most} tokens at most (--limit, --max-tokens), or --top-logprobs");
        return Err(Error::input("--logits", found, expected));
    }
    Ok(())
}

/// Writes `logits` `[tokens, vocabulary]` with the answer and the id of each token.
fn save_logits(path: &Path, header: Header, transcripts: &[Transcript]) -> anyhow::Result<()> {
    let rows: Vec<&Vec<f32>> = transcripts.iter().flat_map(|transcript| &transcript.logits).collect();
    let shape = (rows.len(), rows.first().map_or(0, |row| row.len()));
    let values = Array2::from_shape_vec(shape, rows.into_iter().flatten().copied().collect())?;
    let answers = transcripts.iter().enumerate();
    let answer = answers.flat_map(|(number, own)| own.tokens.iter().map(move |_| number as i64));
    let tokens = transcripts.iter().flat_map(|own| own.tokens.iter().map(|id| i64::from(*id)));
    let ids: Vec<&str> = transcripts.iter().map(|transcript| transcript.id.as_str()).collect();
    let tensors = [
        ("logits".to_owned(), Numbers::floats(&values)),
        ("answer".to_owned(), Numbers::integers(&answer.collect::<Vec<_>>())),
        ("token".to_owned(), Numbers::integers(&tokens.collect::<Vec<_>>())),
    ];
    let metadata = [("ids".to_owned(), serde_json::to_string(&ids)?)];
    Ok(artifact::write_tensors(path, &header, &metadata.into(), tensors.into())?)
}

/// The trace of each transcript: every token with the steps that were taken at it.
fn traces(
    model: &Model,
    transcripts: &[Transcript],
    dialogues: &[Dialogue],
    steps: Vec<TraceEntry>,
    thinking: Option<bool>,
) -> pearlpoint::Result<Vec<steering_trace::Trace>> {
    let mut steps_at: BTreeMap<(usize, usize), Vec<serde_json::Value>> = BTreeMap::new();
    for step in steps {
        let value = serde_json::to_value(&step)
            .map_err(|error| Error::input("trace", error, "numbers that JSON can hold"))?;
        steps_at.entry((step.row, step.position)).or_default().push(value);
    }
    let trace = |(row, (transcript, dialogue)): (usize, (&Transcript, &Dialogue))| {
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
