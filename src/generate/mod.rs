//! Answers to dialogues, token by token, under any hook.
//! It knows nothing of what the hook reads or steers.

mod sampling;
mod transcript;

use rand::SeedableRng;
use rand::rngs::StdRng;

pub use sampling::Sampling;
pub use transcript::{Finish, Transcript};

use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Cache, Continuation, Hook, Model, Token};

/// How answers are generated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub sampling: Sampling,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// Each row draws from a stream of its own, made of this seed and the row's number.
    pub seed: u64,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
    /// Rows that are decoded side by side.
    pub batch_rows: usize,
}

/// A row while it is being answered.
struct Row<'a> {
    number: usize,
    continuation: Continuation<'a>,
    rng: StdRng,
    /// All of the row, so that it can be read anew.
    tokens: Vec<Token>,
    made: Vec<u32>,
    finish: Option<Finish>,
}

/// Answers every dialogue. Tokens that the hook sees carry the dialogue's number as their row.
/// `tell` hears how many dialogues are answered, and stops the run by giving false.
pub fn generate(
    model: &Model,
    dialogues: &[Dialogue],
    options: &Options,
    hook: &mut dyn Hook,
    tell: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Transcript>> {
    let mut transcripts = Vec::with_capacity(dialogues.len());
    for batch in dialogues.chunks(options.batch_rows.max(1)) {
        let begin = transcripts.len();
        for row in answer(model, batch, begin, options, hook)? {
            let text = model.chat.decode(&row.made, true)?;
            let finish = row.finish.unwrap_or(Finish::Length);
            transcripts.push(Transcript::new(&dialogues[row.number], text, row.made, finish));
        }
        if !tell(transcripts.len()) && transcripts.len() < dialogues.len() {
            return Err(Error::Stopped);
        }
    }
    Ok(transcripts)
}

fn answer<'a>(
    model: &'a Model,
    dialogues: &[Dialogue],
    begin: usize,
    options: &Options,
    hook: &mut dyn Hook,
) -> Result<Vec<Row<'a>>> {
    let (mut rows, mut tokens) = (Vec::new(), Vec::new());
    for (number, dialogue) in (begin..).zip(dialogues) {
        let prompt = model.chat.tokens(dialogue, number, options.thinking)?;
        rows.push(Row {
            number,
            continuation: model.chat.continuation(&prompt),
            rng: StdRng::seed_from_u64(options.seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            tokens: prompt.clone(),
            made: Vec::new(),
            finish: None,
        });
        tokens.extend(prompt);
    }
    let mut cache = Cache::default();
    for _ in 0..options.max_tokens {
        let ends =
            (0..tokens.len()).filter(|&at| tokens.get(at + 1).is_none_or(|next| next.row != tokens[at].row));
        let ends: Vec<usize> = ends.collect();
        let logits: Vec<Vec<f32>> =
            model.decoder.forward(&tokens, Some(&mut cache), &ends, hook)?.to_vec2()?;
        let mut next: Vec<Token> = Vec::new();
        for (row, logits) in rows.iter_mut().filter(|row| row.finish.is_none()).zip(logits) {
            let id = options.sampling.next(&logits, &mut row.rng);
            if model.chat.eos().contains(&id) {
                row.finish = Some(Finish::Stop);
                continue;
            }
            row.made.push(id);
            let token = row.continuation.next(id);
            row.tokens.push(token.clone());
            if model.decoder.rereads(cache.length(row.number), row.tokens.len()) {
                cache.forget(row.number);
                next.extend_from_slice(&row.tokens);
            } else {
                next.push(token);
            }
        }
        if next.is_empty() {
            break;
        }
        tokens = next;
    }
    Ok(rows)
}
