//! Cosine and sine tables of rotary position embedding (Su et al., RoFormer, arXiv 2104.09864).

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

/// Cosine and sine of each token's angles, `[tokens, 2, pairs]`, shared by all blocks of a pass.
#[derive(Clone)]
pub struct Angles {
    table: Arc<Vec<f32>>,
    pairs: usize,
    /// The same as two tensors `[tokens, pairs]`, made when candle's operations need them.
    tensors: Arc<OnceLock<[Tensor; 2]>>,
}

impl Angles {
    /// `tokens`: position and index of the frequency list of each token; `lists`: radians per position, one per pair, and the
    /// factor of cosine and sine.
    pub fn new(tokens: impl Iterator<Item = (usize, usize)>, lists: &[(Vec<f64>, f64)]) -> Angles {
        let pairs = lists.first().map_or(0, |(frequencies, _)| frequencies.len());
        let mut table = Vec::with_capacity(2 * pairs * tokens.size_hint().0);
        for (position, list) in tokens {
            // transformers computes the angle in f32; the same rounding keeps long contexts equal.
            let (frequencies, scale) = &lists[list];
            let scale = *scale as f32;
            let angles = frequencies.iter().map(|frequency| position as f32 * *frequency as f32);
            table.extend(angles.clone().map(|angle| angle.cos() * scale));
            table.extend(angles.map(|angle| angle.sin() * scale));
        }
        Angles { table: Arc::new(table), pairs, tensors: Arc::default() }
    }

    /// Cosines and sines, each `[tokens, pairs]`, on the device.
    pub(crate) fn tensors(&self, device: &Device) -> Result<&[Tensor; 2]> {
        if let Some(tensors) = self.tensors.get() {
            return Ok(tensors);
        }
        let shape = (self.table.len() / (2 * self.pairs).max(1), 2, self.pairs);
        let table = Tensor::from_slice(&self.table, shape, device)?;
        let part = |which: usize| table.narrow(1, which, 1)?.squeeze(1)?.contiguous();
        let made = [part(0)?, part(1)?];
        Ok(self.tensors.get_or_init(|| made))
    }

    /// Cosines and sines of each token, on the CPU.
    pub(crate) fn tokens(&self) -> impl IndexedParallelIterator<Item = (&[f32], &[f32])> {
        self.table.par_chunks((2 * self.pairs).max(1)).map(|token| token.split_at(self.pairs))
    }
}
