//! Text generation: dialogues in, an answer to each out, decoded in batches with a key–value cache under any hook.

mod sampling;
mod logits_processor;
mod options;
mod token_logits;
mod transcript;
mod sequence;
mod batch;

pub use batch::{Batch, Decoded, Joining};
pub use logits_processor::LogitsProcessor;
pub use options::GenerateOptions;
pub use sampling::Sampling;
pub use token_logits::{KeptLogits, TokenLogits};
pub use transcript::{Finish, Transcript};

use std::sync::Arc;

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Hook, Model, PromptCache, Token};

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

/// As [`generate`], for rounds of dialogues: each prompt begins with the keys and values that `prompts` has of its dialogue, and is kept there. The
/// answers are the same. What a hook changed is taken only where the same hook would change it alike ([`Hook::prompt_steering`]).
///
/// # Errors
/// As [`generate`], but for a stop.
pub fn generate_after(
    model: &Model,
    dialogues: &[Dialogue],
    options: &GenerateOptions,
    hook: &mut dyn Hook,
    prompts: &mut PromptCache,
) -> Result<Vec<Transcript>> {
    let mut transcripts = Vec::with_capacity(dialogues.len());
    let mut listener = |event: Event| {
        if let Event::Answers(new) = event {
            transcripts.extend(new);
        }
        true
    };
    answer_after(model, dialogues, options, hook, &mut listener, (false, Some(prompts)))?;
    Ok(transcripts)
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
    answer_after(model, dialogues, options, hook, listener, (stream, None))
}

fn answer_after(
    model: &Model,
    dialogues: &[Dialogue],
    options: &GenerateOptions,
    hook: &mut dyn Hook,
    listener: &mut dyn FnMut(Event) -> bool,
    (stream, mut prompts): (bool, Option<&mut PromptCache>),
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
    if options.think_budget.is_some() {
        model.chat.close_thinking()?;
    }
    let shared = Arc::new(options.clone());
    let mut begin = 0;
    for dialogues in dialogues.chunks(options.batch_rows.max(1)) {
        let (mut batch, mut taken) = (Batch::new(model), Vec::with_capacity(dialogues.len()));
        for (row, dialogue) in (begin..).zip(dialogues) {
            let prompt = model.chat.tokens(dialogue, row, options.thinking)?;
            if prompt.is_empty() {
                let place = format!("dialogue {}", dialogue.id);
                return Err(Error::input(
                    place,
                    "a prompt without a token",
                    "one that the tokenizer cuts into tokens",
                ));
            }
            let random_stream = shared.first_row + row;
            let options = shared.clone();
            let beginning = options.beginnings.get(row).cloned().unwrap_or_default();
            let steering = hook.prompt_steering(row, &prompt);
            let prefix = prompts
                .as_ref()
                .and_then(|prompts| prompts.find(&model.decoder, &dialogue.id, &prompt, steering));
            taken.push((steering, prefix.map_or(0, |(_, takes)| takes)));
            batch.join(Joining {
                prompt,
                beginning,
                options,
                random_stream,
                stream,
                whole: true,
                prefix: prefix.map(|(prefix, takes)| (prefix, takes, steering.key)),
            })?;
        }
        let rows = begin..begin + dialogues.len();
        let is_stopped = !decode(&mut batch, rows.clone(), hook, listener)?;
        let mut transcripts = Vec::with_capacity(dialogues.len());
        for ((row, dialogue), (steering, takes)) in rows.zip(dialogues).zip(taken) {
            let read = prompts.as_ref().and_then(|_| batch.prompt(row).map(<[Token]>::to_vec));
            let all = batch.row(row).map_or(0, |(tokens, _)| tokens.len());
            if (!is_stopped || batch.has_begun(row))
                && let Some((transcript, prefix)) = batch.leave(row, dialogue)?
            {
                if let (Some(prompts), Some(tokens)) = (&mut prompts, read) {
                    prompts.count(all - takes);
                    prompts.keep(&dialogue.id, tokens, steering, prefix);
                }
                transcripts.push(transcript);
            }
        }
        begin += dialogues.len();
        if !listener(Event::Answers(transcripts)) || is_stopped {
            return Ok(());
        }
    }
    Ok(())
}

/// Decodes the rows of a batch, until each is complete. False where the listener stopped it.
fn decode(
    batch: &mut Batch,
    mut rows: std::ops::Range<usize>,
    hook: &mut dyn Hook,
    listener: &mut dyn FnMut(Event) -> bool,
) -> Result<bool> {
    let mut goes_on = true;
    while goes_on && !batch.is_finished() {
        batch.step(hook, &mut |decoded| {
            if !decoded.text.is_empty() {
                goes_on &= listener(Event::Text(decoded.row, &decoded.text));
            }
        })?;
        goes_on &= batch.is_finished() || listener(Event::Token);
    }
    rows.all(|row| {
        let text = batch.flush_text(row);
        text.is_empty() || listener(Event::Text(row, &text))
    });
    Ok(goes_on || batch.is_finished())
}
