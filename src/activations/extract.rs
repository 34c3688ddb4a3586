//! Extraction in memory: dialogues and a [`Request`] in, [`Activations`] out.

use rayon::prelude::*;

use super::activations::Activations;
use super::batching::{Extractor, TokenisedDialogue};
use super::request::Request;
use super::steering::Steering;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::{Model, PromptCache, Selector};

/// Dialogues that are tokenised and grouped at a time.
const CHUNK: usize = 1024;

/// Records activations of dialogues. `on_progress` gets the number of dialogues done, and stops the run by returning
/// false.
///
/// # Errors
/// A dialogue that the template refuses or that is longer than the model's context; a stopped run.
pub fn extract(
    model: &Model,
    dialogues: &[Dialogue],
    request: &Request,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Activations> {
    Ok(extract_each(model, dialogues, request, &[], on_progress)?.remove(0))
}

/// Records the same sites for several selectors in one run: the request's own first, then `others`.
///
/// # Errors
/// As [`extract`].
pub fn extract_each(
    model: &Model,
    dialogues: &[Dialogue],
    request: &Request,
    others: &[Selector],
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Activations>> {
    extract_with(Extractor::new(model, request, others), dialogues, on_progress)
}

/// As [`extract`], of a model that is steered while it is read.
///
/// # Errors
/// As [`extract`]; steering that can't be applied to some dialogue.
pub fn extract_steered(
    model: &Model,
    dialogues: &[Dialogue],
    request: &Request,
    steering: Option<&Steering>,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Activations> {
    let extractor = Extractor::new(model, request, &[]).steered(steering);
    Ok(extract_with(extractor, dialogues, on_progress)?.remove(0))
}

/// As [`extract`], for rounds of dialogues: each begins with the keys and values that `prompts` has of it, and is kept there. The numbers are
/// the same, up to rounding.
///
/// # Errors
/// As [`extract`].
pub fn extract_after(
    model: &Model,
    dialogues: &[Dialogue],
    request: &Request,
    prompts: &mut PromptCache,
) -> Result<Activations> {
    Ok(extract_with(Extractor::new(model, request, &[]).after(prompts), dialogues, &mut |_| true)?.remove(0))
}

/// As [`extract`], of dialogues that were cut into tokens before.
///
/// # Errors
/// As [`extract`], but for dialogues that the template refuses.
pub fn extract_tokenised(
    model: &Model,
    dialogues: &[TokenisedDialogue],
    request: &Request,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Activations> {
    Ok(Extractor::new(model, request, &[]).extract(dialogues, on_progress)?.remove(0))
}

fn extract_with(
    mut extractor: Extractor,
    dialogues: &[Dialogue],
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Activations>> {
    let mut all = extractor.extract(&[], &mut |_| true)?;
    for (begin, dialogues) in (0..).step_by(CHUNK).zip(dialogues.chunks(CHUNK)) {
        let rows = dialogues
            .par_iter()
            .enumerate()
            .map(|(index, dialogue)| extractor.tokenise(begin + index, dialogue))
            .collect::<Result<Vec<_>>>()?;
        let part = extractor.extract(&rows, &mut |done| on_progress(begin + done))?;
        for (all, part) in all.iter_mut().zip(&part) {
            all.append(part)?;
        }
    }
    Ok(all)
}
