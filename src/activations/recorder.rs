//! A hook that keeps the activations of the tokens that a selector picks, and changes nothing.
//! It knows nothing of files or of dialogues: rows are numbers.

use candle_core::Tensor;

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
        let at = Tensor::new(picked.iter().map(|&at| at as u32).collect::<Vec<_>>(), activations.device())?;
        let rows: Vec<Vec<f32>> = activations.index_select(&at, 0)?.to_vec2()?;
        let pooling = self.selector.pooling();
        // The first site of a pass tells where its rows come from; the others have the same.
        let first = number == 0;
        let mut begin = 0;
        for group in picked.chunk_by(|&a, &b| pooling != Pooling::Each && tokens[a].row == tokens[b].row) {
            let token = &tokens[group[0]];
            self.kept[number].extend(pool(&rows[begin..begin + group.len()], pooling));
            begin += group.len();
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

/// One row from several of the same width; one alone stays as it is.
fn pool(rows: &[Vec<f32>], pooling: Pooling) -> Vec<f32> {
    let column = |at: usize| rows.iter().map(move |row| row[at]);
    let columns = 0..rows[0].len();
    match pooling {
        Pooling::Each => rows[0].clone(),
        Pooling::Mean => columns.map(|at| column(at).sum::<f32>() / rows.len() as f32).collect(),
        Pooling::Max => columns.map(|at| column(at).fold(f32::NEG_INFINITY, f32::max)).collect(),
    }
}
