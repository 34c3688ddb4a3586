//! From dialogues to activations: the run over the data in ragged batches, no deeper than the last site wanted.
//! It knows nothing of what the activations are for.

use ndarray::Array2;

use super::recorder::{Place, Recorder};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Chain, Hook, Model, Selector, Site, Token};

/// Activations in memory, a row a picked token (or a dialogue, when pooled).
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    /// `[rows, width]` a site, in the order of the forward pass.
    pub sites: Vec<(Site, Array2<f32>)>,
    /// Number of the dialogue that each row belongs to.
    pub example: Vec<usize>,
    /// Absolute index of the token; none when pooled.
    pub position: Vec<Option<usize>>,
    /// Tokens that were run through the model.
    pub tokens: usize,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub sites: Vec<Site>,
    pub tokens: Selector,
    /// Passed to chat templates that know a thinking and a plain mode.
    pub thinking: Option<bool>,
    /// Tokens of a batch, at most, unless one dialogue alone is longer.
    pub batch_tokens: usize,
}

impl Activations {
    /// The activations at one site, `[rows, width]`.
    pub fn at(&self, site: Site) -> Result<&Array2<f32>> {
        let found = self.sites.iter().find(|(other, _)| *other == site);
        found.map(|(_, rows)| rows).ok_or_else(|| {
            let sites = self.sites.iter().map(|(site, _)| site.to_string()).collect::<Vec<_>>();
            Error::input(format!("site {site}"), "not among the activations", sites.join(", "))
        })
    }
}

/// Reads activations of dialogues. `tell` hears how many dialogues are done, and stops the run by giving false.
pub fn extract(
    model: &Model,
    dialogues: &[Dialogue],
    reading: &Reading,
    tell: &mut dyn FnMut(usize) -> bool,
) -> Result<Activations> {
    let mut recorder = Recorder::new(reading.sites.clone(), reading.tokens.clone());
    let tokens = pass_over(model, dialogues, reading, &mut recorder, tell)?;
    gather(model, recorder, tokens)
}

/// Reads the same sites by several selectors in one run, those of `others` after the reading's own.
pub fn extract_each(
    model: &Model,
    dialogues: &[Dialogue],
    reading: &Reading,
    others: &[Selector],
    tell: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Activations>> {
    let selectors = std::iter::once(&reading.tokens).chain(others);
    let mut recorders: Vec<Recorder> =
        selectors.map(|selector| Recorder::new(reading.sites.clone(), selector.clone())).collect();
    let mut chain = Chain(recorders.iter_mut().map(|recorder| recorder as &mut dyn Hook).collect());
    let tokens = pass_over(model, dialogues, reading, &mut chain, tell)?;
    recorders.into_iter().map(|recorder| gather(model, recorder, tokens)).collect()
}

/// Runs the dialogues through the model in batches and gives the number of their tokens.
fn pass_over(
    model: &Model,
    dialogues: &[Dialogue],
    reading: &Reading,
    hook: &mut dyn Hook,
    tell: &mut dyn FnMut(usize) -> bool,
) -> Result<usize> {
    let mut batch: Vec<Token> = Vec::new();
    let mut count = 0;
    for (row, dialogue) in dialogues.iter().enumerate() {
        let tokens = model.chat.tokens(dialogue, row, reading.thinking)?;
        if !batch.is_empty() && batch.len() + tokens.len() > reading.batch_tokens {
            model.decoder.forward(&batch, None, &[], hook)?;
            batch.clear();
            if !tell(row) {
                return Err(Error::Stopped);
            }
        }
        count += tokens.len();
        batch.extend(tokens);
    }
    model.decoder.forward(&batch, None, &[], hook)?;
    tell(dialogues.len());
    Ok(count)
}

/// A recorder's rows as matrices.
fn gather(model: &Model, recorder: Recorder, tokens: usize) -> Result<Activations> {
    let (places, sites) = recorder.finish();
    let shaped = sites.into_iter().map(|(site, numbers)| {
        let shape = (places.len(), model.decoder.architecture().site_width(site));
        let rows = Array2::from_shape_vec(shape, numbers);
        rows.map(|rows| (site, rows))
            .map_err(|error| Error::input(format!("site {site}"), error, "whole rows"))
    });
    Ok(Activations {
        sites: shaped.collect::<Result<_>>()?,
        example: places.iter().map(|place: &Place| place.row).collect(),
        position: places.iter().map(|place| place.position).collect(),
        tokens,
    })
}
