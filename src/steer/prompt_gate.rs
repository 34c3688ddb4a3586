//! Conditional steering by the prompt (CAST, arXiv 2409.05907): dialogues and a condition in, the indices of the dialogues
//! whose prompts meet it out. The prompts are read by the unsteered model.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::Condition;
use super::probe_reader::{ProbeReader, probability};
use crate::activations::{Request, extract};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};

/// Tokens a batch.
const BATCH_TOKENS: usize = 8192;

/// The indices of the dialogues whose prompts meet the condition. `readers`: one for each of the condition's bounds, in
/// their order; each reads the site and the token that its probe was fitted on.
///
/// # Errors
/// A probe whose selector picks no token of a prompt, or several.
pub fn gated_rows(
    condition: &Condition,
    readers: &[ProbeReader],
    model: &Model,
    dialogues: &[Dialogue],
    thinking: Option<bool>,
) -> Result<BTreeSet<usize>> {
    // `[readers][dialogues]`.
    let mut probabilities = vec![vec![0.0; dialogues.len()]; readers.len()];
    let mut selectors: BTreeMap<String, (&Selector, BTreeSet<Site>)> = BTreeMap::new();
    for reader in readers {
        let (_, sites) =
            selectors.entry(reader.tokens.to_string()).or_insert_with(|| (&reader.tokens, BTreeSet::new()));
        sites.insert(reader.site);
    }
    for (tokens, sites) in selectors.into_values() {
        let reading = Request::new(Vec::from_iter(sites))
            .tokens(tokens.clone())
            .thinking(thinking)
            .batch_tokens(BATCH_TOKENS);
        let activations = extract(model, dialogues, &reading, &mut |_| true)?;
        if !activations.example.iter().copied().eq(0..dialogues.len()) {
            let found = format!("{} rows of {} prompts", activations.example.len(), dialogues.len());
            let expected = "a probe of one token a prompt, such as assistant.start";
            return Err(Error::input(format!("when: tokens {tokens}"), found, expected));
        }
        for (reader, probabilities) in
            readers.iter().zip(&mut probabilities).filter(|(reader, _)| reader.tokens == *tokens)
        {
            for (h, value) in activations.at(reader.site)?.rows().into_iter().zip(probabilities) {
                *value = probability(reader.log_odds(&h.to_vec()));
            }
        }
    }
    let meets = |row: &usize| condition.holds(|bound| probabilities[bound][*row]);
    Ok((0..dialogues.len()).filter(meets).collect())
}
