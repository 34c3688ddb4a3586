//! Similarity of an aim's steps to the aim itself, in a model's hidden states or an encoder's; what the pace of an agent goes by.

use crate::activations::{Request, extract};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Site};
use crate::stats;

use super::aim::Aim;

/// `[aims][steps]`: cosines between the mean state of each step, said alone, and of the whole aim.
pub type Similarities = Vec<Vec<f64>>;

/// Similarities at a site of a model; any model that reads chat messages, or an encoder.
///
/// # Errors
/// A site that the model hasn't; a text that its template refuses.
pub fn similarities(model: &Model, aims: &[Aim], site: Site, thinking: Option<bool>) -> Result<Similarities> {
    let mut texts = Vec::new();
    for aim in aims {
        texts.push(Dialogue::prompt("", aim.whole()));
        texts.extend(aim.steps.iter().map(|step| Dialogue::prompt("", step.as_str())));
    }
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let request = Request::new([site]).tokens("mean(user)".parse()?).thinking(thinking);
    let states = extract(model, &texts, &request, &mut |_| true)?;
    if states.example.len() != texts.len() {
        let found = format!("{} states of {} texts", states.example.len(), texts.len());
        return Err(Error::input("pace", found, "a word in every step"));
    }
    let rows = states.at(site)?;
    let mut begin = 0;
    let mut similarities = Vec::with_capacity(aims.len());
    for aim in aims {
        let whole = begin;
        begin += 1 + aim.steps.len();
        let cosines = (whole + 1..begin).map(|row| stats::cosine(rows.row(row), rows.row(whole)));
        similarities.push(cosines.collect::<Result<Vec<f64>>>()?);
    }
    Ok(similarities)
}
