//! Conditions that are read once, on the prompt, as the unsteered model reads it (CAST, arXiv 2409.05907).
//! It knows nothing of what is steered.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::Condition;
use super::probe_reader::{Reader, probability};
use crate::activations::{Request, extract};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};

/// Tokens of a batch when prompts are read.
const BATCH_TOKENS: usize = 8192;

/// The rows (numbers of the dialogues) whose prompts meet the condition. `readers` take the readings of its bounds, in
/// their order, each where its probe was fitted.
///
/// # Errors
/// A probe that reads no token of a prompt, or several.
pub fn rows(
    condition: &Condition,
    readers: &[Reader],
    model: &Model,
    dialogues: &[Dialogue],
    thinking: Option<bool>,
) -> Result<BTreeSet<usize>> {
    // Probabilities, one list a reader, one number a dialogue.
    let mut read = vec![vec![0.0; dialogues.len()]; readers.len()];
    let mut selectors: BTreeMap<String, (&Selector, BTreeSet<Site>)> = BTreeMap::new();
    for reader in readers {
        let (_, sites) =
            selectors.entry(reader.tokens.to_string()).or_insert_with(|| (&reader.tokens, BTreeSet::new()));
        sites.insert(reader.site);
    }
    for (tokens, sites) in selectors.into_values() {
        let sites = sites.into_iter().collect();
        let reading = Request { sites, tokens: tokens.clone(), thinking, batch_tokens: BATCH_TOKENS };
        let activations = extract(model, dialogues, &reading, &mut |_| true)?;
        if !activations.example.iter().copied().eq(0..dialogues.len()) {
            let found = format!("{} rows of {} prompts", activations.example.len(), dialogues.len());
            let expected = "a probe of one token a prompt, such as assistant.start";
            return Err(Error::input(format!("when: tokens {tokens}"), found, expected));
        }
        for (reader, read) in readers.iter().zip(&mut read).filter(|(reader, _)| reader.tokens == *tokens) {
            for (h, read) in activations.at(reader.site)?.rows().into_iter().zip(read) {
                let h = h.to_vec();
                *read = probability(reader.log_odds(&h));
            }
        }
    }
    let meets = |row: &usize| condition.holds(|bound| read[bound][*row]);
    Ok((0..dialogues.len()).filter(meets).collect())
}
