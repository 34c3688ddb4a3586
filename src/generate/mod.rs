//! Answers to dialogues, token by token, under any hook.
//! It knows nothing of what the hook reads or steers.

mod sequence;
mod sampling;
mod logits_processor;
mod transcript;

pub use logits_processor::Shape;
pub use sampling::Sampling;
pub use transcript::{Finish, Transcript};

use sequence::Row;

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Cache, Hook, Model, Token};

/// How answers are generated.
#[derive(Clone, Debug)]
pub struct Options {
    pub sampling: Sampling,
    /// Which tokens may be drawn at all.
    pub shape: Shape,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Texts that end an answer; what stands from the first of them on is left out.
    pub stop: Vec<String>,
    /// Tokens of the thinking part, at most: then it is closed, and the answer begins.
    pub think_budget: Option<usize>,
    /// Each row draws from a stream of its own, made of this seed and the row's number.
    pub seed: u64,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
    /// Rows that are decoded side by side.
    pub batch_rows: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sampling: Sampling::Temperature(1.0),
            shape: Shape::default(),
            max_tokens: 128,
            stop: Vec::new(),
            think_budget: None,
            seed: 0,
            thinking: None,
            batch_rows: 32,
        }
    }
}

/// Answers every dialogue. Tokens that the hook sees carry the dialogue's number as their row.
/// `tell` hears how many dialogues are answered, and stops the run by giving false.
pub fn generate(
    model: &Model,
    dialogues: &[Dialogue],
    options: &Options,
    hook: &mut dyn Hook,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Transcript>> {
    answer_all(model, dialogues, options, hook, on_progress, &mut |_, _| (), false)
}

/// The same, and `on_token` hears the answers as they come: the dialogue's number, and what is newly sure of its text.
pub fn generate_heard(
    model: &Model,
    dialogues: &[Dialogue],
    options: &Options,
    hook: &mut dyn Hook,
    on_progress: &mut dyn FnMut(usize) -> bool,
    on_token: &mut dyn FnMut(usize, &str),
) -> Result<Vec<Transcript>> {
    answer_all(model, dialogues, options, hook, on_progress, on_token, true)
}

fn answer_all(
    model: &Model,
    dialogues: &[Dialogue],
    options: &Options,
    hook: &mut dyn Hook,
    on_progress: &mut dyn FnMut(usize) -> bool,
    on_token: &mut dyn FnMut(usize, &str),
    heard: bool,
) -> Result<Vec<Transcript>> {
    options.shape.check()?;
    if options.stop.iter().any(String::is_empty) {
        return Err(Error::input("stop", "an empty text", "a text that ends an answer"));
    }
    let closing = match options.think_budget {
        None => Vec::new(),
        Some(_) => model.chat.close_thinking()?,
    };
    let mut transcripts = Vec::with_capacity(dialogues.len());
    for batch in dialogues.chunks(options.batch_rows.max(1)) {
        let begin = transcripts.len();
        let mut rows = Vec::new();
        for (number, dialogue) in (begin..).zip(batch) {
            let prompt = model.chat.tokens(dialogue, number, options.thinking)?;
            rows.push(Row::new(number, prompt, &model.chat, options, &closing, heard));
        }
        answer(model, &mut rows, options.max_tokens, hook, on_token)?;
        for (row, dialogue) in rows.into_iter().zip(batch) {
            transcripts.push(row.transcript(dialogue)?);
        }
        if !on_progress(transcripts.len()) && transcripts.len() < dialogues.len() {
            return Err(Error::Stopped);
        }
    }
    Ok(transcripts)
}

/// Writes the answers of a batch side by side, until each is over.
fn answer(
    model: &Model,
    rows: &mut [Row],
    max_tokens: usize,
    hook: &mut dyn Hook,
    on_token: &mut dyn FnMut(usize, &str),
) -> Result<()> {
    let mut tokens: Vec<Token> = rows.iter().flat_map(|row| row.tokens.clone()).collect();
    let mut cache = Cache::default();
    for _ in 0..max_tokens {
        let ends =
            (0..tokens.len()).filter(|&at| tokens.get(at + 1).is_none_or(|next| next.row != tokens[at].row));
        let ends: Vec<usize> = ends.collect();
        let logits: Vec<Vec<f32>> =
            model.decoder.forward(&tokens, Some(&mut cache), &ends, hook)?.to_vec2()?;
        let mut next: Vec<Token> = Vec::new();
        for (row, logits) in rows.iter_mut().filter(|row| !row.is_finished()).zip(logits) {
            row.go_on(logits, on_token)?;
            if row.is_finished() {
                continue;
            }
            if model.decoder.rereads(cache.length(row.number), row.tokens.len()) {
                cache.forget(row.number);
                next.extend_from_slice(&row.tokens);
            } else {
                next.extend(row.tokens.last().cloned());
            }
        }
        if next.is_empty() {
            break;
        }
        tokens = next;
    }
    rows.iter_mut().for_each(|row| row.say_rest(on_token));
    Ok(())
}
