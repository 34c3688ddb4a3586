//! The seam between the forward pass and whoever reads or changes it.
//! It knows nothing of what a hook is for.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::site::Site;
use crate::model::token::Token;

/// Called by the forward pass at the sites that it wants.
pub trait Hook: Send {
    /// Whether the forward pass should call at this site. A site that nobody wants costs nothing.
    fn wants(&self, site: Site) -> bool;

    /// Takes the activations `[tokens, width]` (f32) at `site` and gives them back, changed or not.
    /// `tokens` holds a record for each row of the activations, in the same order. Whoever keeps them has to copy them:
    /// the next hook may change them where they lie.
    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor>;

    /// Which tokens of the batch it looks at, ascending; none where it looks at all of them. Past the attention of the last block
    /// that is run, a pass without logits then makes these alone, and calls the hook with these alone.
    fn token_indices(&self) -> Option<Vec<usize>> {
        None
    }

    /// Stands for all that the hook changes in a row; 0 where it changes nothing. A cache remembers it, so that keys and
    /// values that were made under one steering are never read under another.
    fn cache_key(&self, _row: usize) -> u64 {
        0
    }
}

/// No hook.
impl Hook for () {
    fn wants(&self, _: Site) -> bool {
        false
    }

    fn call(&mut self, _: Site, activations: Tensor, _: &[Token]) -> Result<Tensor> {
        Ok(activations)
    }
}

/// Several hooks, called in order, each with what the one before it gave back.
#[derive(Default)]
pub struct Chain<'a>(pub Vec<&'a mut dyn Hook>);

impl Hook for Chain<'_> {
    fn wants(&self, site: Site) -> bool {
        self.0.iter().any(|hook| hook.wants(site))
    }

    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor> {
        let wanting = self.0.iter_mut().filter(|hook| hook.wants(site));
        wanting.into_iter().try_fold(activations, |activations, hook| hook.call(site, activations, tokens))
    }

    fn cache_key(&self, row: usize) -> u64 {
        // In order: the same changes the other way round are others.
        let marks = self.0.iter().map(|hook| hook.cache_key(row)).filter(|mark| *mark != 0);
        marks.fold(0, |all, mark| (all ^ mark).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).max(1))
    }
}
