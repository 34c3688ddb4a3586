//! A hook that keeps the activations of the tokens that a selector picks, and changes nothing.
//! It knows nothing of files or of dialogues: rows are numbers.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::model::{Hook, Pooling, Selector, Site, Token};

/// Keeps activations in memory, a flat row-major vector a site.
pub struct Recorder {
    selector: Selector,
    /// In the order of the forward pass.
    sites: Vec<Site>,
    /// `[rows, width]` of each site, flat.
    kept: Vec<Vec<f32>>,
    places: Vec<Place>,
}

/// Which token a row of activations was read at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Row of the batch.
    pub row: usize,
    /// Absolute position; none when pooled over several.
    pub position: Option<usize>,
}

impl Recorder {
    pub fn new(mut sites: Vec<Site>, selector: Selector) -> Recorder {
        sites.sort_unstable();
        sites.dedup();
        Recorder { kept: vec![Vec::new(); sites.len()], places: Vec::new(), selector, sites }
    }

    /// What was read: where each row of activations comes from, and each site's rows.
    pub fn finish(self) -> (Vec<Place>, Vec<(Site, Vec<f32>)>) {
        (self.places, self.sites.into_iter().zip(self.kept).collect())
    }
}

impl Hook for Recorder {
    fn wants(&self, site: Site) -> bool {
        self.sites.binary_search(&site).is_ok()
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let Ok(number) = self.sites.binary_search(&site) else {
            return Ok(activations);
        };
        let picked = self.selector.pick(tokens);
        if picked.is_empty() {
            return Ok(activations);
        }
        let width = activations.dim(D::Minus1)?;
        let rows = copied(&activations, &picked)?;
        let pooling = self.selector.pooling();
        // The first site of a pass tells where its rows come from; the others have the same.
        let first = number == 0;
        let mut begin = 0;
        for group in picked.chunk_by(|&a, &b| pooling != Pooling::Each && tokens[a].row == tokens[b].row) {
            let token = &tokens[group[0]];
            let end = begin + group.len() * width;
            let kept = &mut self.kept[number];
            kept.resize(kept.len() + width, 0.0);
            let place = kept.len() - width;
            pool(&rows[begin..end], pooling, &mut kept[place..]);
            begin = end;
            if first {
                self.places.push(Place {
                    row: token.row,
                    position: (pooling == Pooling::Each).then_some(token.position),
                });
            }
        }
        Ok(activations)
    }
}

/// The activations of these tokens, row-major.
pub(super) fn copied(activations: &Tensor, tokens: &[usize]) -> Result<Vec<f32>> {
    if tokens.len() == activations.dim(0)? && tokens.is_sorted_by(|a, b| a < b) {
        return Ok(activations.flatten_all()?.to_vec1()?);
    }
    let at: Vec<u32> = tokens.iter().map(|&at| at as u32).collect();
    let at = Tensor::new(at, activations.device())?;
    Ok(activations.index_select(&at, 0)?.flatten_all()?.to_vec1()?)
}

/// One row from several of its width, which stand end to end; one alone stays as it is.
pub(super) fn pool(rows: &[f32], pooling: Pooling, row: &mut [f32]) {
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
