//! Activation patching: which hidden state of a prompt, put into another prompt's pass, brings the first one's answer.
//!
//! Two prompts of equally many tokens and two answers in; for every site and position the difference of the answers' logits at the
//! last token, when the corrupted prompt runs with the clean prompt's state there, out (Vig et al. 2020, arXiv 2004.12265; Zhang &
//! Nanda 2023, arXiv 2309.16042).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::logit_lens::{check_length, first_token, log_softmax};
use super::token_readout::ReadToken;
use crate::activations::Recorder;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site, Token};
use crate::progress::Progress;
use crate::steer::ReplaceHook;

/// Tokens of a batch, at most.
const BATCH: usize = 2048;

/// What is patched.
#[derive(Clone, Debug)]
pub struct PatchOptions {
    /// Sites to patch at, each alone.
    pub sites: Vec<Site>,
    /// Text whose first token is the clean prompt's answer; where none is given, the next token that tells the clean prompt most from the
    /// corrupted one: the largest term of the Kullback–Leibler divergence.
    pub answer: Option<String>,
    /// The same of the corrupted prompt.
    pub other: Option<String>,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
}

/// Logit differences by site and position (JSON, kind `patching`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patching {
    /// Tokens of the clean prompt.
    pub clean: Vec<ReadToken>,
    /// Tokens of the corrupted prompt.
    pub corrupted: Vec<ReadToken>,
    /// Text of the clean prompt's answer token.
    pub answer: String,
    /// Text of the corrupted prompt's.
    pub other: String,
    /// Sites, in the order of the forward pass.
    pub sites: Vec<Site>,
    /// Logit of `answer` less that of `other` at the clean prompt's last token.
    pub clean_difference: f64,
    /// The same of the corrupted prompt.
    pub corrupted_difference: f64,
    /// `[sites, tokens]`: the same of the corrupted prompt with the clean state at this site and position.
    pub differences: Vec<Vec<f64>>,
}

impl Patching {
    /// The share of the way from the corrupted prompt's difference to the clean one's, by site and position.
    pub fn shares(&self) -> Vec<Vec<f64>> {
        let way = self.clean_difference - self.corrupted_difference;
        let share = |&difference: &f64| (difference - self.corrupted_difference) / way;
        self.differences.iter().map(|row| row.iter().map(share).collect()).collect()
    }
}

/// Patches every site and position, one at a time. `on_progress` is told of patches done and of all.
///
/// # Errors
/// Prompts of different numbers of tokens, or of the same tokens; answers of one token, or that the prompts don't tell apart; a model without logits; a run that was
/// stopped.
pub fn patch(
    model: &Model,
    [clean, corrupted]: [&Dialogue; 2],
    options: &PatchOptions,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Patching> {
    model.decoder.expect_logits()?;
    let tokens = |dialogue: &Dialogue| model.chat.tokens(dialogue, 0, options.thinking);
    let (clean, corrupted) = (tokens(clean)?, tokens(corrupted)?);
    let ids = |tokens: &[Token]| tokens.iter().map(|token| token.id).collect::<Vec<_>>();
    if clean.len() != corrupted.len() {
        let found = format!("{} and {} tokens", clean.len(), corrupted.len());
        return Err(Error::input("the two prompts", found, "equally many, so that positions match"));
    }
    if ids(&clean) == ids(&corrupted) {
        return Err(Error::input("the two prompts", "the same tokens", "two prompts that differ"));
    }
    check_length(model, "the two prompts", clean.len())?;
    let last = clean.len() - 1;
    let mut recorder = Recorder::new(options.sites.clone(), Selector::All);
    let of_clean = model.decoder.forward(&clean, None, &[last], &mut recorder)?.to_vec2::<f32>()?;
    let of_corrupted = model.decoder.forward(&corrupted, None, &[last], &mut ())?.to_vec2::<f32>()?;
    let (log_clean, log_corrupted) = (log_softmax(&of_clean[0]), log_softmax(&of_corrupted[0]));
    let named = |given: &Option<String>, own: &[f64], of_other: &[f64]| match given {
        Some(text) => first_token(model, text),
        None => Ok(most_telling(own, of_other)),
    };
    let answer = named(&options.answer, &log_clean, &log_corrupted)?;
    let other = named(&options.other, &log_corrupted, &log_clean)?;
    if answer == other {
        let found = format!("the token {:?} for both", model.chat.decode(&[answer], false)?);
        return Err(Error::input(
            "the two answers",
            found,
            "--answer and --other that begin with different tokens",
        ));
    }
    let difference = |logits: &[f32]| f64::from(logits[answer as usize]) - f64::from(logits[other as usize]);
    if difference(&of_clean[0]) == difference(&of_corrupted[0]) {
        let found = "the same logit difference of the answers after both";
        return Err(Error::input("the two prompts", found, "--answer and --other that tell them apart"));
    }
    let (_, states) = recorder.finish();
    let rows = (BATCH / clean.len()).clamp(1, clean.len());
    let all = states.len() * clean.len();
    let mut differences = Vec::new();
    for (place, (site, flat)) in states.iter().enumerate() {
        let width = flat.len() / clean.len();
        let mut of_site = Vec::new();
        let positions: Vec<usize> = (0..clean.len()).collect();
        for batch in positions.chunks(rows) {
            let state =
                |(row, &at): (usize, &usize)| ((row, at), flat[at * width..(at + 1) * width].to_vec());
            let new: BTreeMap<(usize, usize), Vec<f32>> = batch.iter().enumerate().map(state).collect();
            let mut hook = ReplaceHook::new(&model.decoder, *site, new)?;
            let copy = |row| corrupted.iter().map(move |token| Token { row, ..token.clone() });
            let copies: Vec<Token> = (0..batch.len()).flat_map(copy).collect();
            let ends: Vec<usize> = (0..batch.len()).map(|row| (row + 1) * clean.len() - 1).collect();
            let logits = model.decoder.forward(&copies, None, &ends, &mut hook)?.to_vec2::<f32>()?;
            of_site.extend(logits.iter().map(|row| difference(row)));
            let done = place * clean.len() + of_site.len();
            if !on_progress(Progress { stage: "patching", done, total: all }) {
                return Err(Error::Stopped);
            }
        }
        differences.push(of_site);
    }
    let read = |tokens: &[Token]| -> Result<Vec<ReadToken>> {
        tokens.iter().map(|token| ReadToken::of(&model.chat, token)).collect()
    };
    Ok(Patching {
        clean: read(&clean)?,
        corrupted: read(&corrupted)?,
        answer: model.chat.decode(&[answer], false)?,
        other: model.chat.decode(&[other], false)?,
        sites: states.iter().map(|(site, _)| *site).collect(),
        clean_difference: difference(&of_clean[0]),
        corrupted_difference: difference(&of_corrupted[0]),
        differences,
    })
}

/// The token with the largest term of the Kullback–Leibler divergence of another distribution from its own, both logarithms of
/// probabilities: likely here, and less likely there.
fn most_telling(own: &[f64], other: &[f64]) -> u32 {
    let terms = own.iter().zip(other).map(|(own, other)| own.exp() * (own - other));
    terms
        .enumerate()
        .fold((0, f64::NEG_INFINITY), |best, (id, term)| if term > best.1 { (id, term) } else { best })
        .0 as u32
}
