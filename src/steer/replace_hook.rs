//! A hook that replaces the hidden state `[width]` of one token of each row, at one site (activation patching).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use candle_core::Tensor;

use super::row_edit::edit_rows;
use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, Site, Token};

/// Replaces the state at one position of each row, at one site.
pub struct ReplaceHook {
    site: Site,
    /// A position and `[width]` a row.
    states: BTreeMap<usize, (usize, Vec<f32>)>,
}

impl ReplaceHook {
    /// The hook. `states`: by row of the batch, the position and its new state; rows without one are left alone.
    ///
    /// # Errors
    /// A state of another width than the model's at the site.
    pub fn new(
        decoder: &Decoder,
        site: Site,
        states: BTreeMap<usize, (usize, Vec<f32>)>,
    ) -> Result<ReplaceHook> {
        let width = decoder.architecture().site_width(site);
        match states.values().find(|(_, state)| state.len() != width) {
            None => Ok(ReplaceHook { site, states }),
            Some((_, state)) => {
                let found = format!("a state of width {}", state.len());
                Err(Error::input(format!("state at {site}"), found, format!("width {width}, the model's")))
            }
        }
    }
}

impl Hook for ReplaceHook {
    fn wants(&self, site: Site) -> bool {
        site == self.site
    }

    fn call(&mut self, _: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let is_replaced = |token: &Token| {
            self.states.get(&token.row).is_some_and(|(position, _)| *position == token.position)
        };
        let picked: Vec<usize> = (0..tokens.len()).filter(|&at| is_replaced(&tokens[at])).collect();
        edit_rows(activations, &picked, |place, h| {
            // The picked rows all have a state.
            if let Some((_, state)) = self.states.get(&tokens[picked[place]].row) {
                h.copy_from_slice(state);
            }
        })
    }

    fn cache_key(&self, row: usize) -> u64 {
        let Some((position, state)) = self.states.get(&row) else { return 0 };
        let mut hasher = DefaultHasher::new();
        (self.site, position).hash(&mut hasher);
        state.iter().for_each(|number| number.to_bits().hash(&mut hasher));
        hasher.finish().max(1)
    }
}
