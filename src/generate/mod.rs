//! Text generation: dialogues in, an answer to each out, decoded in batches with a key–value cache under any hook.

mod sampling;
mod logits_processor;
mod options;
mod token_logits;
mod transcript;
mod sequence;

pub use logits_processor::LogitsProcessor;
pub use options::GenerateOptions;
pub use sampling::Sampling;
pub use token_logits::{KeptLogits, TokenLogits};
pub use transcript::{Finish, Transcript};

use sequence::Sequence;

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Cache, Hook, Model, Token};

/// Answers every dialogue. The rows that the hook sees are the dialogues' indices. `on_progress` gets the number of
/// dialogues that are answered, after each batch and each token, and stops the run by returning false.
///
/// # Errors
/// Options that [`GenerateOptions::check`] refuses; a dialogue that is longer than the model's context; a chat template that fails; [`Error::Stopped`].
pub fn generate(
    model: &Model,
    dialogues: &[Dialogue],
    options: &GenerateOptions,
    hook: &mut dyn Hook,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Transcript>> {
    collect(model, dialogues, options, hook, on_progress, &mut |_, _| true, false)
}

/// As [`generate`], and `on_token` gets each dialogue's index and the text that was added to its answer, as it is decoded; it
/// stops the run by returning false.
///
/// # Errors
/// As [`generate`].
pub fn generate_streaming(
    model: &Model,
    dialogues: &[Dialogue],
    options: &GenerateOptions,
    hook: &mut dyn Hook,
    on_progress: &mut dyn FnMut(usize) -> bool,
    on_token: &mut dyn FnMut(usize, &str) -> bool,
) -> Result<Vec<Transcript>> {
    collect(model, dialogues, options, hook, on_progress, on_token, true)
}

/// The transcripts, where no answer was stopped.
fn collect(
    model: &Model,
    dialogues: &[Dialogue],
    options: &GenerateOptions,
    hook: &mut dyn Hook,
    on_progress: &mut dyn FnMut(usize) -> bool,
    on_token: &mut dyn FnMut(usize, &str) -> bool,
    stream: bool,
) -> Result<Vec<Transcript>> {
    let mut transcripts = Vec::with_capacity(dialogues.len());
    let mut listener = |event: Event| match event {
        Event::Answers(new) => {
            transcripts.extend(new);
            on_progress(transcripts.len())
        }
        Event::Token => on_progress(transcripts.len()),
        Event::Text(row, text) => on_token(row, text),
    };
    answer_each(model, dialogues, options, hook, &mut listener, stream)?;
    let is_stopped = |transcript: &Transcript| transcript.finish == Finish::Stopped;
    match transcripts.len() < dialogues.len() || transcripts.iter().any(is_stopped) {
        true => Err(Error::Stopped),
        false => Ok(transcripts),
    }
}

/// What happens while dialogues are answered.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was decoded: a token of every answer of the batch that isn't complete.
    Token,
    /// Text was added to the answer of the dialogue with this index.
    Text(usize, &'a str),
    /// The answers of a batch: whole ones, or as far as they came where the listener stopped the run.
    Answers(Vec<Transcript>),
}

/// Answers dialogues batch by batch. `listener` hears of each [`Event`], of texts where `stream` is set; it stops the run by returning
/// false: the answers that have begun are then the last event, with [`Finish::Stopped`].
///
/// # Errors
/// As [`generate`], but for a stop.
pub fn answer_each(
    model: &Model,
    dialogues: &[Dialogue],
    options: &GenerateOptions,
    hook: &mut dyn Hook,
    listener: &mut dyn FnMut(Event) -> bool,
    stream: bool,
) -> Result<()> {
    options.check()?;
    model.decoder.expect_logits()?;
    if !options.beginnings.is_empty() && options.beginnings.len() != dialogues.len() {
        let found = format!("{} beginnings of {} answers", options.beginnings.len(), dialogues.len());
        return Err(Error::input("generate", found, "one an answer, or none"));
    }
    // Before anything is computed.
    for dialogue in dialogues {
        if let Some(tokens) = model.excess(dialogue, options.thinking)? {
            return Err(model.decoder.architecture().too_long(dialogue, tokens));
        }
    }
    let closing = match options.think_budget {
        None => Vec::new(),
        Some(_) => model.chat.close_thinking()?,
    };
    let mut begin = 0;
    for batch in dialogues.chunks(options.batch_rows.max(1)) {
        let mut sequences = Vec::new();
        for (row, dialogue) in (begin..).zip(batch) {
            let prompt = model.chat.tokens(dialogue, row, options.thinking)?;
            let mut sequence = Sequence::new(row, prompt, &model.chat, options, &closing, stream);
            sequence.begin(options.beginnings.get(row).map_or(&[], Vec::as_slice));
            sequences.push(sequence);
        }
        let is_stopped = !decode(model, &mut sequences, options.max_tokens, hook, listener)?;
        let mut transcripts = Vec::with_capacity(batch.len());
        for (sequence, dialogue) in sequences.into_iter().zip(batch) {
            if !is_stopped || sequence.has_begun() {
                transcripts.push(sequence.into_transcript(dialogue, is_stopped)?);
            }
        }
        begin += batch.len();
        if !listener(Event::Answers(transcripts)) || is_stopped {
            return Ok(());
        }
    }
    Ok(())
}

/// Decodes the sequences of a batch side by side, until each is finished. False where the listener stopped it.
fn decode(
    model: &Model,
    sequences: &mut [Sequence],
    max_tokens: usize,
    hook: &mut dyn Hook,
    listener: &mut dyn FnMut(Event) -> bool,
) -> Result<bool> {
    let mut tokens: Vec<Token> = sequences.iter().flat_map(|sequence| sequence.tokens.clone()).collect();
    let mut cache = Cache::default();
    let mut is_stopped = false;
    for _ in 0..max_tokens {
        let is_last = |&index: &usize| tokens.get(index + 1).is_none_or(|next| next.row != tokens[index].row);
        let last: Vec<usize> = (0..tokens.len()).filter(is_last).collect();
        let logits: Vec<Vec<f32>> =
            model.decoder.forward(&tokens, Some(&mut cache), &last, hook)?.to_vec2()?;
        let mut next: Vec<Token> = Vec::new();
        let mut goes_on = true;
        for (sequence, logits) in sequences.iter_mut().filter(|sequence| !sequence.is_finished()).zip(logits)
        {
            sequence.step(logits, &mut |row, text| goes_on &= listener(Event::Text(row, text)))?;
            if sequence.is_finished() {
                continue;
            }
            if model.decoder.rereads(cache.length(sequence.row), sequence.tokens.len()) {
                cache.forget(sequence.row);
                next.extend_from_slice(&sequence.tokens);
            } else {
                next.extend(sequence.tokens.last().cloned());
            }
        }
        if next.is_empty() {
            break;
        }
        if !goes_on || !listener(Event::Token) {
            is_stopped = true;
            break;
        }
        tokens = next;
    }
    for sequence in sequences.iter_mut() {
        sequence.flush_text(&mut |row, text| _ = listener(Event::Text(row, text)));
    }
    Ok(!is_stopped)
}
