//! From dialogues to activations in memory.
//! It knows nothing of what the activations are for.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use super::batching::Pass;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};

/// Activations in memory, a row a picked token (or a dialogue, when pooled).
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    /// `[rows, width]` a site, in the order of the forward pass.
    pub sites: Vec<(Site, Array2<f32>)>,
    /// Number of the dialogue that each row belongs to.
    pub example: Vec<usize>,
    /// Absolute index of the token; none when pooled.
    pub position: Vec<Option<usize>>,
    /// Tokens that the dialogues have.
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

    /// These rows alone, in this order.
    pub(super) fn select(&self, rows: &[usize]) -> Activations {
        Activations {
            sites: self.sites.iter().map(|(site, values)| (*site, values.select(Axis(0), rows))).collect(),
            example: rows.iter().map(|&row| self.example[row]).collect(),
            position: rows.iter().map(|&row| self.position[row]).collect(),
            tokens: self.tokens,
        }
    }

    /// Adds the rows of others, read at the same sites.
    fn append(&mut self, others: &Activations) -> Result<()> {
        for ((site, rows), (_, more)) in self.sites.iter_mut().zip(&others.sites) {
            rows.append(Axis(0), more.view())
                .map_err(|error| Error::input(format!("site {site}"), error, "rows of one width"))?;
        }
        self.example.extend(&others.example);
        self.position.extend(&others.position);
        self.tokens += others.tokens;
        Ok(())
    }
}

/// Dialogues whose tokens are in memory at once.
const STRETCH: usize = 1024;

/// Reads activations of dialogues. `tell` hears how many dialogues are done, and stops the run by giving false.
pub fn extract(
    model: &Model,
    dialogues: &[Dialogue],
    reading: &Reading,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Activations> {
    Ok(extract_each(model, dialogues, reading, &[], on_progress)?.remove(0))
}

/// Reads the same sites by several selectors in one run, those of `others` after the reading's own.
pub fn extract_each(
    model: &Model,
    dialogues: &[Dialogue],
    reading: &Reading,
    others: &[Selector],
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Activations>> {
    let mut pass = Pass::new(model, reading, others);
    let mut read = pass.read(&[], &mut |_| true)?;
    for (begin, dialogues) in (0..).step_by(STRETCH).zip(dialogues.chunks(STRETCH)) {
        let rows = dialogues.par_iter().enumerate().map(|(at, dialogue)| pass.row(begin + at, dialogue));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let part = pass.read(&rows, &mut |done| on_progress(begin + done))?;
        for (read, part) in read.iter_mut().zip(&part) {
            read.append(part)?;
        }
    }
    Ok(read)
}
