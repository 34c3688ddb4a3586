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

    /// What the hook does to the prompt of a row: which of its first tokens other prompts may begin with. A hook that says nothing of it shares
    /// no token of a row that it changes.
    fn prompt_steering(&self, row: usize, _prompt: &[Token]) -> PromptSteering {
        match self.cache_key(row) {
            0 => PromptSteering::NONE,
            key => PromptSteering { key, untouched: 0, resumable: 0 },
        }
    }
}

/// What steering does to a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptSteering {
    /// [`Hook::cache_key`] of the row; 0 where it is not steered.
    pub key: u64,
    /// The number of leading tokens that steering neither changes nor reads.
    pub untouched: usize,
    /// The number of leading tokens that may be taken from a prompt of the same key and the same tokens: what steering does there follows
    /// from these tokens alone, and nothing later depends on having seen them.
    pub resumable: usize,
}

impl PromptSteering {
    /// No steering.
    pub const NONE: PromptSteering = PromptSteering { key: 0, untouched: usize::MAX, resumable: usize::MAX };

    /// That of several hooks together, one after the other.
    pub fn of_chain(each: impl Iterator<Item = PromptSteering> + Clone) -> PromptSteering {
        let least = |count: fn(&PromptSteering) -> usize| {
            each.clone().map(|own| count(&own)).min().unwrap_or(usize::MAX)
        };
        let (untouched, resumable) = (least(|own| own.untouched), least(|own| own.resumable));
        PromptSteering { key: chain_key(each.map(|own| own.key)), untouched, resumable }
    }

    /// How many of the `shared` first tokens of two prompts have the same keys and values.
    pub fn same(self, other: PromptSteering, shared: usize) -> usize {
        let untouched = shared.min(self.untouched).min(other.untouched);
        match self.key == other.key {
            true => untouched.max(shared.min(self.resumable).min(other.resumable)),
            false => untouched,
        }
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

    fn prompt_steering(&self, row: usize, prompt: &[Token]) -> PromptSteering {
        PromptSteering::of_chain(self.0.iter().map(|hook| hook.prompt_steering(row, prompt)))
    }
}

/// The cache key of several hooks, of each one's key. The order counts: the same changes in another order have another hash.
pub fn chain_key(keys: impl Iterator<Item = u64>) -> u64 {
    let marks = keys.filter(|mark| *mark != 0);
    marks.fold(0, |all, mark| (all ^ mark).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_one_plan_is_never_anothers() {
        let none = PromptSteering::NONE;
        let a = PromptSteering { key: 1, untouched: 0, resumable: usize::MAX };
        let b = PromptSteering { key: 2, untouched: 0, resumable: usize::MAX };
        assert_eq!((a.same(a, 9), a.same(b, 9), a.same(none, 9)), (9, 0, 0));
        assert_eq!(none.same(none, 9), 9);
        // What no plan touches is every plan's.
        let late = PromptSteering { key: 3, untouched: 6, resumable: usize::MAX };
        assert_eq!((late.same(none, 9), late.same(a, 9), late.same(late, 9)), (6, 0, 9));
        let dosed = PromptSteering { resumable: 6, ..late };
        assert_eq!(dosed.same(dosed, 9), 6);
    }
}
