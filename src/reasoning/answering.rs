//! Forward pass of the organism's chains: a chain in, the answer that the model gives after it, with both losses, out; and the hidden states
//! at which that answer is decided.

use ndarray::Array2;

use super::chain::Chain;
use super::lingo_bp::{Forward, Losses, Outcome};
use super::organism::Stated;
use crate::activations::Recorder;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Transcript, generate};
use crate::judge::{Scorer, UNPARSED};
use crate::model::{Model, Selector, Site, Token};

/// Tokens of an answer behind its thinking part, at most.
const ANSWER_TOKENS: usize = 16;
/// Rows of a pass.
const ROWS: usize = 64;

/// A user, the model that answers him, and the judge.
pub struct Answering<'a> {
    /// The model.
    pub model: &'a Model,
    /// The judge.
    pub judge: &'a dyn Scorer,
    /// The dialogue.
    pub dialogue: &'a Dialogue,
    /// What the thinking part states about him.
    pub stated: &'a Stated,
}

impl Forward for Answering<'_> {
    fn forward(&mut self, chain: &Chain) -> Result<Option<Outcome>> {
        let thinking = [self.stated.write(chain)?];
        let answers = answers(self.model, std::slice::from_ref(self.dialogue), &thinking)?;
        outcome(self.judge, self.dialogue, &answers[0])
    }
}

/// The token ids of a thinking part with its end.
fn beginning(model: &Model, thinking: &str) -> Result<Vec<u32>> {
    let mut ids = model.chat.encode(thinking)?;
    ids.extend(model.chat.close_thinking()?);
    Ok(ids)
}

/// The likeliest answer to each dialogue after its thinking part.
///
/// # Errors
/// A dialogue that is too long; a thinking part that can't be encoded.
pub fn answers(model: &Model, dialogues: &[Dialogue], thinking: &[String]) -> Result<Vec<Transcript>> {
    let beginnings = thinking.iter().map(|text| beginning(model, text)).collect::<Result<_>>()?;
    let options =
        GenerateOptions::default().greedy().max_tokens(ANSWER_TOKENS).beginnings(beginnings).batch_rows(ROWS);
    generate(model, dialogues, &options, &mut (), &mut |_| true)
}

/// The losses of an answer; none where the judge's verdict can't be parsed. A broken answer has both: what it would have risked isn't known.
///
/// # Errors
/// A judge that does not appraise answers, or can't judge this one.
pub fn outcome(judge: &dyn Scorer, dialogue: &Dialogue, transcript: &Transcript) -> Result<Option<Outcome>> {
    let Some(appraisal) = judge.appraise(dialogue, transcript)? else {
        if judge.score(dialogue, transcript)?.strategy == UNPARSED {
            return Ok(None);
        }
        return Err(Error::input("judge", judge.name(), "a judge that appraises satisfaction and safety"));
    };
    let losses = match appraisal.risk() {
        Some(safety) => Losses { safety, satisfaction: (1.0 - appraisal.satisfaction()) / 2.0 },
        None => Losses { safety: 1.0, satisfaction: 1.0 },
    };
    Ok(Some(Outcome { answer: transcript.text.clone(), losses, reason: appraisal.reason }))
}

/// The tokens of a row: the prompt, and the thinking part with its end.
///
/// # Errors
/// As [`answers`].
pub fn read_tokens(model: &Model, dialogue: &Dialogue, thinking: &str, row: usize) -> Result<Vec<Token>> {
    let mut tokens = model.chat.tokens(dialogue, row, None)?;
    let mut continuation = model.chat.continuation(&tokens);
    tokens.extend(beginning(model, thinking)?.into_iter().map(|id| continuation.next(id)));
    Ok(tokens)
}

/// Hidden states `[rows, width]` at the end of each thinking part, where the answer's first word is decided; a table a site, in the
/// order of the forward pass.
///
/// # Errors
/// As [`answers`].
pub fn states(
    model: &Model,
    dialogues: &[&Dialogue],
    thinking: &[String],
    sites: &[Site],
) -> Result<Vec<(Site, Array2<f32>)>> {
    let mut tables: Vec<(Site, Vec<f32>)> = Vec::new();
    for (own, texts) in dialogues.chunks(ROWS).zip(thinking.chunks(ROWS)) {
        let mut tokens: Vec<Token> = Vec::new();
        for (row, (dialogue, text)) in own.iter().zip(texts).enumerate() {
            tokens.extend(read_tokens(model, dialogue, text, row)?);
        }
        let mut recorder = Recorder::new(sites.to_vec(), Selector::Last);
        model.decoder.forward(&tokens, None, &[], &mut recorder)?;
        for (number, (site, values)) in recorder.finish().1.into_iter().enumerate() {
            match tables.get_mut(number) {
                Some((_, table)) => table.extend(values),
                None => tables.push((site, values)),
            }
        }
    }
    let shaped = |(site, values): (Site, Vec<f32>)| {
        let width = values.len() / dialogues.len().max(1);
        let table = Array2::from_shape_vec((dialogues.len(), width), values)
            .map_err(|error| Error::input("chain", error, "a row a dialogue"))?;
        Ok((site, table))
    };
    tables.into_iter().map(shaped).collect()
}
