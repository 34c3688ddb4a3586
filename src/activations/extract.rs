//! From dialogues to activations: the run over the data in ragged batches, no deeper than the last site wanted.
//! It knows nothing of what the activations are for.

use ndarray::Array2;

use super::recorder::{Place, Recorder};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site, Token};

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
    let mut batch: Vec<Token> = Vec::new();
    let mut count = 0;
    for (row, dialogue) in dialogues.iter().enumerate() {
        let tokens = model.chat.tokens(dialogue, row, reading.thinking)?;
        if !batch.is_empty() && batch.len() + tokens.len() > reading.batch_tokens {
            model.decoder.forward(&batch, None, &[], &mut recorder)?;
            batch.clear();
            if !tell(row) {
                return Err(Error::Stopped);
            }
        }
        count += tokens.len();
        batch.extend(tokens);
    }
    model.decoder.forward(&batch, None, &[], &mut recorder)?;
    tell(dialogues.len());
    let (places, sites) = recorder.finish();
    let shaped = sites.into_iter().map(|(site, numbers)| {
        let shape = (places.len(), model.decoder.width(site));
        let rows = Array2::from_shape_vec(shape, numbers);
        rows.map(|rows| (site, rows))
            .map_err(|error| Error::input(format!("site {site}"), error, "whole rows"))
    });
    let position = |place: &Place| place.position;
    Ok(Activations {
        sites: shaped.collect::<Result<_>>()?,
        example: places.iter().map(|place| place.row).collect(),
        position: places.iter().map(position).collect(),
        tokens: count,
    })
}
