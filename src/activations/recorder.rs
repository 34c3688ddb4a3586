//! Recorder: a hook that copies the activations of picked tokens, and changes nothing.
//!
//! Activations `[tokens, width]` at each site go in; tables `[rows, width]`, one per selector and site, come out. A row is
//! a token, or the mean or maximum over several tokens of one dialogue.

use std::ops::Range;

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::model::{Hook, Pooling, Selector, Site, Token};

/// A hook that records activations over one or more forward passes.
pub struct Recorder {
    /// In the order of the forward pass.
    sites: Vec<Site>,
    source: PickSource,
    /// One per selector.
    tables: Vec<Table>,
    /// The origin of each row of the first table, if it grows.
    origins: Vec<RowOrigin>,
}

/// Where the picked tokens of a pass come from.
enum PickSource {
    /// The selector picks among the tokens of each pass; the table grows.
    Selector(Selector),
    /// The caller has picked, before it cut and batched the tokens; the tables have all their rows.
    Given {
        /// One per table.
        picks: Vec<Picks>,
        /// Indices of all picked tokens in the batch, ascending.
        needed: Vec<usize>,
    },
}

/// The token that a row of activations was recorded at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOrigin {
    /// Row of the batch.
    pub row: usize,
    /// Position of the token in that row; none when pooled over several.
    pub position: Option<usize>,
}

/// Row-major values `[rows, width]` for each site.
pub(super) type Table = Vec<Vec<f32>>;

impl Recorder {
    /// A recorder whose selector picks among the tokens of each pass.
    pub fn new(mut sites: Vec<Site>, selector: Selector) -> Recorder {
        sites.sort_unstable();
        sites.dedup();
        let tables = vec![vec![Vec::new(); sites.len()]];
        Recorder { sites, source: PickSource::Selector(selector), tables, origins: Vec::new() }
    }

    /// A recorder into tables that have all their rows, one table per selector, with the sites in ascending order. See
    /// [`Recorder::set_picks`].
    pub(super) fn into_tables(sites: Vec<Site>, tables: Vec<Table>) -> Recorder {
        let source = PickSource::Given { picks: Vec::new(), needed: Vec::new() };
        Recorder { sites, source, tables, origins: Vec::new() }
    }

    /// Sets the picked tokens of the next pass, one [`Picks`] per table.
    pub(super) fn set_picks(&mut self, picks: Vec<Picks>) {
        let mut needed: Vec<usize> = picks.iter().flat_map(|picks| &picks.tokens).copied().collect();
        needed.sort_unstable();
        needed.dedup();
        self.source = PickSource::Given { picks, needed };
    }

    /// The recorded rows: their origins, and the row-major values `[rows, width]` of each site.
    pub fn finish(self) -> (Vec<RowOrigin>, Vec<(Site, Vec<f32>)>) {
        let values = self.tables.into_iter().next().unwrap_or_default();
        (self.origins, self.sites.into_iter().zip(values).collect())
    }

    /// The tables of [`Recorder::into_tables`].
    pub(super) fn finish_tables(self) -> Vec<Table> {
        self.tables
    }
}

impl Hook for Recorder {
    fn token_indices(&self) -> Option<Vec<usize>> {
        match &self.source {
            PickSource::Selector(_) => None,
            PickSource::Given { needed, .. } => Some(needed.clone()),
        }
    }

    fn wants(&self, site: Site) -> bool {
        self.sites.binary_search(&site).is_ok()
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let Ok(number) = self.sites.binary_search(&site) else {
            return Ok(activations);
        };
        let width = activations.dim(D::Minus1)?;
        match &self.source {
            PickSource::Selector(selector) => {
                let table = &mut self.tables[0][number];
                let (picks, origins) = Picks::of_batch(selector, tokens, table.len() / width.max(1));
                table.resize(table.len() + picks.rows.len() * width, 0.0);
                picks.copy(&activations, &picks.tokens, table)?;
                // Every site of a pass has the same rows.
                if number == 0 {
                    self.origins.extend(origins);
                }
            }
            PickSource::Given { picks, needed } => {
                for (picks, table) in picks.iter().zip(&mut self.tables) {
                    // The activations are of all tokens of the batch, or of the needed ones alone.
                    let index = |token: &usize| needed.partition_point(|needed| needed < token);
                    match tokens.len() == needed.len() {
                        true => {
                            let tokens: Vec<usize> = picks.tokens.iter().map(index).collect();
                            picks.copy(&activations, &tokens, &mut table[number])?;
                        }
                        false => picks.copy(&activations, &picks.tokens, &mut table[number])?,
                    }
                }
            }
        }
        Ok(activations)
    }
}

/// The picked tokens of a batch, and the rows of a table that they become.
pub(super) struct Picks {
    pooling: Pooling,
    /// Indices into the batch.
    tokens: Vec<usize>,
    /// Ranges of `tokens`, each with the row of the table that it is pooled into.
    rows: Vec<(Range<usize>, usize)>,
}

impl Picks {
    /// No tokens yet, of this selector.
    pub fn new(selector: &Selector) -> Picks {
        Picks { pooling: selector.pooling(), tokens: Vec::new(), rows: Vec::new() }
    }

    /// The tokens that a selector picks in a batch, as rows from `first_row` on, and the origin of each row.
    fn of_batch(selector: &Selector, tokens: &[Token], first_row: usize) -> (Picks, Vec<RowOrigin>) {
        let mut picks = Picks::new(selector);
        let mut origins = Vec::new();
        let picked = selector.pick(tokens);
        for dialogue in picked.chunk_by(|&a, &b| tokens[a].row == tokens[b].row) {
            picks.add(dialogue.iter().copied(), first_row + origins.len());
            let row = tokens[dialogue[0]].row;
            match picks.pooling {
                Pooling::Each => {
                    let position = |&index: &usize| Some(tokens[index].position);
                    origins.extend(dialogue.iter().map(|i| RowOrigin { row, position: position(i) }));
                }
                _ => origins.push(RowOrigin { row, position: None }),
            }
        }
        (picks, origins)
    }

    /// Adds the picked tokens of one dialogue, as rows of the table from `first_row` on.
    pub fn add(&mut self, picked: impl Iterator<Item = usize>, first_row: usize) {
        let begin = self.tokens.len();
        self.tokens.extend(picked);
        let new = begin..self.tokens.len();
        match self.pooling {
            Pooling::Each => {
                self.rows.extend(new.zip(first_row..).map(|(token, row)| (token..token + 1, row)))
            }
            _ if new.is_empty() => (),
            _ => self.rows.push((new, first_row)),
        }
    }

    /// Copies activations `[tokens, width]` at `tokens`, one for each of [`Picks::tokens`], to the rows of a table.
    fn copy(&self, activations: &Tensor, tokens: &[usize], table: &mut [f32]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let width = activations.dim(D::Minus1)?;
        let values = gather(activations, tokens)?;
        for (from, row) in &self.rows {
            let values = &values[from.start * width..from.end * width];
            pool(values, self.pooling, &mut table[row * width..(row + 1) * width]);
        }
        Ok(())
    }
}

/// The activations of these tokens, row-major `[tokens, width]`.
fn gather(activations: &Tensor, tokens: &[usize]) -> Result<Vec<f32>> {
    if tokens.len() == activations.dim(0)? && tokens.is_sorted_by(|a, b| a < b) {
        return Ok(activations.flatten_all()?.to_vec1()?);
    }
    let indices: Vec<u32> = tokens.iter().map(|&token| token as u32).collect();
    let indices = Tensor::new(indices, activations.device())?;
    Ok(activations.index_select(&indices, 0)?.flatten_all()?.to_vec1()?)
}

/// Pools rows `[count, width]` into one row `[width]`; a single row is copied as it is.
fn pool(rows: &[f32], pooling: Pooling, row: &mut [f32]) {
    let count = rows.len() / row.len().max(1);
    let rows = rows.chunks_exact(row.len().max(1));
    match pooling {
        Pooling::Each => rows.for_each(|values| row.copy_from_slice(values)),
        Pooling::Mean => {
            row.fill(0.0);
            rows.for_each(|values| row.iter_mut().zip(values).for_each(|(sum, value)| *sum += value));
            row.iter_mut().for_each(|sum| *sum /= count as f32);
        }
        Pooling::Max => {
            row.fill(f32::NEG_INFINITY);
            rows.for_each(|values| {
                row.iter_mut().zip(values).for_each(|(most, value)| *most = most.max(*value))
            });
        }
    }
}
