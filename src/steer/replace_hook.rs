//! A hook that replaces the hidden states `[width]` of some tokens of each row, at one site (activation patching).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use candle_core::Tensor;

use super::row_edit::edit_rows;
use crate::error::{Error, Result};
use crate::model::{Decoder, Hook, Site, Token};

/// Replaces the states at some positions of each row, at one site.
pub struct ReplaceHook {
    site: Site,
    /// `[width]` by row and position.
    states: BTreeMap<(usize, usize), Vec<f32>>,
}

impl ReplaceHook {
    /// The hook. `states`: by row of the batch and position, the new state; tokens without one are left alone.
    ///
    /// # Errors
    /// A state of another width than the model's at the site.
    pub fn new(
        decoder: &Decoder,
        site: Site,
        states: BTreeMap<(usize, usize), Vec<f32>>,
    ) -> Result<ReplaceHook> {
        let width = decoder.architecture().site_width(site);
        match states.values().find(|state| state.len() != width) {
            None => Ok(ReplaceHook { site, states }),
            Some(state) => {
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
        let is_replaced = |token: &Token| self.states.contains_key(&(token.row, token.position));
        let picked: Vec<usize> = (0..tokens.len()).filter(|&at| is_replaced(&tokens[at])).collect();
        edit_rows(activations, &picked, |place, h| {
            // The picked rows all have a state.
            let token = &tokens[picked[place]];
            if let Some(state) = self.states.get(&(token.row, token.position)) {
                h.copy_from_slice(state);
            }
        })
    }

    fn cache_key(&self, row: usize) -> u64 {
        let mut own = self.states.range((row, 0)..=(row, usize::MAX)).peekable();
        if own.peek().is_none() {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        self.site.hash(&mut hasher);
        for ((_, position), state) in own {
            position.hash(&mut hasher);
            state.iter().for_each(|number| number.to_bits().hash(&mut hasher));
        }
        hasher.finish().max(1)
    }
}
