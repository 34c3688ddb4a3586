//! A hook that adds an offset `[width]` of its own to each row's hidden states, at one site.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use candle_core::Tensor;

use super::row_edit::edit_rows;
use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, Selector, Site, Token};

/// Adds each row's offset at one site, on the tokens that a selector picks.
pub struct OffsetHook {
    site: Site,
    selector: Selector,
    /// `[width]` a row.
    offsets: BTreeMap<usize, Vec<f32>>,
}

impl OffsetHook {
    /// The hook. `offsets`: by row of the batch; rows without one are left alone.
    ///
    /// # Errors
    /// A selector whose tokens are unknown while generating; an offset of another width than the model's at the site.
    pub fn new(
        decoder: &Decoder,
        site: Site,
        selector: Selector,
        offsets: BTreeMap<usize, Vec<f32>>,
    ) -> Result<OffsetHook> {
        selector.check_steering()?;
        let width = decoder.architecture().site_width(site);
        match offsets.values().find(|offset| offset.len() != width) {
            None => Ok(OffsetHook { site, selector, offsets }),
            Some(offset) => {
                let found = format!("an offset of width {}", offset.len());
                Err(Error::input(format!("offset at {site}"), found, format!("width {width}, the model's")))
            }
        }
    }
}

impl Hook for OffsetHook {
    fn wants(&self, site: Site) -> bool {
        site == self.site
    }

    fn call(&mut self, _: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let mut picked = self.selector.pick(tokens);
        picked.retain(|&at| self.offsets.contains_key(&tokens[at].row));
        edit_rows(activations, &picked, |place, h| {
            // The picked rows all have an offset.
            if let Some(offset) = self.offsets.get(&tokens[picked[place]].row) {
                h.iter_mut().zip(offset).for_each(|(number, offset)| *number += offset);
            }
        })
    }

    fn cache_key(&self, row: usize) -> u64 {
        let Some(offset) = self.offsets.get(&row) else { return 0 };
        let mut hasher = DefaultHasher::new();
        (self.site, &self.selector).hash(&mut hasher);
        offset.iter().for_each(|number| number.to_bits().hash(&mut hasher));
        hasher.finish().max(1)
    }
}
