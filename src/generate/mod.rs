//! Text generation: dialogues in, an answer to each out, decoded in batches with a key–value cache under any hook.

mod sampling;
mod logits_processor;
mod options;
mod transcript;
mod sequence;

pub use logits_processor::LogitsProcessor;
pub use options::GenerateOptions;
pub use sampling::Sampling;
pub use transcript::{Finish, Transcript};

use sequence::Sequence;

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Cache, Hook, Model, Token};

/// Answers every dialogue. The rows that the hook sees are the dialogues' indices. `on_progress` gets the number of
/// dialogues that are answered after each batch, and stops the run by returning false.
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
    answer_all(model, dialogues, options, hook, on_progress, &mut |_, _| true, false)
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
    answer_all(model, dialogues, options, hook, on_progress, on_token, true)
}

fn answer_all(
    model: &Model,
    dialogues: &[Dialogue],
    options: &GenerateOptions,
    hook: &mut dyn Hook,
    on_progress: &mut dyn FnMut(usize) -> bool,
    on_token: &mut dyn FnMut(usize, &str) -> bool,
    stream: bool,
) -> Result<Vec<Transcript>> {
    options.check()?;
    model.decoder.expect_logits()?;
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
    let mut transcripts = Vec::with_capacity(dialogues.len());
    for batch in dialogues.chunks(options.batch_rows.max(1)) {
        let begin = transcripts.len();
        let mut sequences = Vec::new();
        for (row, dialogue) in (begin..).zip(batch) {
            let prompt = model.chat.tokens(dialogue, row, options.thinking)?;
            sequences.push(Sequence::new(row, prompt, &model.chat, options, &closing, stream));
        }
        decode(model, &mut sequences, options.max_tokens, hook, on_token)?;
        for (sequence, dialogue) in sequences.into_iter().zip(batch) {
            transcripts.push(sequence.into_transcript(dialogue)?);
        }
        if !on_progress(transcripts.len()) && transcripts.len() < dialogues.len() {
            return Err(Error::Stopped);
        }
    }
    Ok(transcripts)
}

/// Decodes the sequences of a batch side by side, until each is finished.
fn decode(
    model: &Model,
    sequences: &mut [Sequence],
    max_tokens: usize,
    hook: &mut dyn Hook,
    on_token: &mut dyn FnMut(usize, &str) -> bool,
) -> Result<()> {
    let mut tokens: Vec<Token> = sequences.iter().flat_map(|sequence| sequence.tokens.clone()).collect();
    let mut cache = Cache::default();
    let mut goes_on = true;
    for _ in 0..max_tokens {
        let is_last = |&index: &usize| tokens.get(index + 1).is_none_or(|next| next.row != tokens[index].row);
        let last: Vec<usize> = (0..tokens.len()).filter(is_last).collect();
        let logits: Vec<Vec<f32>> =
            model.decoder.forward(&tokens, Some(&mut cache), &last, hook)?.to_vec2()?;
        let mut next: Vec<Token> = Vec::new();
        for (sequence, logits) in sequences.iter_mut().filter(|sequence| !sequence.is_finished()).zip(logits)
        {
            sequence.step(logits, &mut |row, text| goes_on &= on_token(row, text))?;
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
        if !goes_on {
            return Err(Error::Stopped);
        }
        if next.is_empty() {
            break;
        }
        tokens = next;
    }
    sequences.iter_mut().for_each(|sequence| sequence.flush_text(&mut |row, text| _ = on_token(row, text)));
    Ok(())
}
