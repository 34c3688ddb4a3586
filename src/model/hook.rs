//! The interface between the forward pass and code that reads or changes activations.

use candle_core::Tensor;

use crate::error::Result;
use crate::model::site::Site;
use crate::model::token::Token;

/// Reads or changes the activations at some sites of the forward pass.
pub trait Hook: Send {
    /// Whether the forward pass calls the hook at this site. A site that no hook wants costs nothing.
    fn wants(&self, site: Site) -> bool;

    /// Takes the activations `[tokens, width]` (f32) at `site`, and gives them back, changed or not. `tokens` has a record per row of
    /// the activations, in the same order. A hook that keeps the activations must copy them: the next hook may change them in
    /// place.
    ///
    /// # Errors
    /// Any failure of the hook; it ends the pass.
    fn call(&mut self, site: Site, activations: Tensor, tokens: &[Token]) -> Result<Tensor>;

    /// Indices of the batch's tokens that the hook reads, ascending; none for all. Past the attention of the last block, a pass
    /// without logits computes only these tokens, and calls the hook with only these.
    fn token_indices(&self) -> Option<Vec<usize>> {
        None
    }

    /// A hash of all changes that the hook makes in a row; 0 if there are none. The cache stores it and refuses to continue a row
    /// with another hash.
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

/// Several hooks, called in order, each with the result of the one before.
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
        chain_key(self.0.iter().map(|hook| hook.cache_key(row)))
    }
}

/// The cache key of several hooks, of each one's key. The order counts: the same changes in another order have another hash.
pub fn chain_key(keys: impl Iterator<Item = u64>) -> u64 {
    let marks = keys.filter(|mark| *mark != 0);
    marks.fold(0, |all, mark| (all ^ mark).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).max(1))
}
