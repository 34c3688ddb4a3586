//! Rotary position embedding over a ragged batch: each token's heads are turned by the angles of its own position
//! (Su et al., RoFormer, arXiv 2104.09864; halves of a head rotated against each other).

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::slice;

/// Cosine and sine of every rotated pair, `[tokens, pairs]`, shared by all blocks of a pass.
#[derive(Clone)]
pub struct Angles {
    table: Arc<Vec<[f32; 2]>>,
    pairs: usize,
}

impl Angles {
    /// `tokens`: each token's position and which of the lists of frequencies is its own; `frequencies`: radians a
    /// position, one a pair. `scale` multiplies cosine and sine.
    pub fn new(tokens: impl Iterator<Item = (usize, usize)>, frequencies: &[Vec<f64>], scale: f64) -> Angles {
        let table = tokens.flat_map(|(position, list)| {
            frequencies[list].iter().map(move |frequency| {
                // transformers forms the angle in f32; the same rounding here keeps long contexts equal.
                let angle = position as f32 * *frequency as f32;
                [angle.cos() * scale as f32, angle.sin() * scale as f32]
            })
        });
        Angles { table: Arc::new(table.collect()), pairs: frequencies.first().map_or(0, Vec::len) }
    }
}

struct Rotation {
    angles: Angles,
    /// −1 turns back: the gradient's way.
    direction: f32,
}

/// `x`: `[tokens, heads, head width]`, f32. Where a head is wider than the pairs, its last numbers stay as they are.
pub fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    turn(x, angles, 1.0)
}

fn turn(x: &Tensor, angles: &Angles, direction: f32) -> Result<Tensor> {
    let operation = Rotation { angles: angles.clone(), direction };
    x.contiguous()?.apply_op1(operation)
}

impl CustomOp1 for Rotation {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice::view(storage, layout)?;
        let (_, heads, head_width) = layout.shape().dims3()?;
        let mut out = x.to_vec();
        let pairs = self.angles.pairs;
        out.par_chunks_mut(heads * head_width)
            .zip(self.angles.table.par_chunks(pairs))
            .with_min_len(16)
            .for_each(|(token, angles)| {
                for head in token.chunks_mut(head_width) {
                    for (i, [cosine, sine]) in angles.iter().enumerate() {
                        let (a, b, sine) = (head[i], head[i + pairs], sine * self.direction);
                        head[i] = a * cosine - b * sine;
                        head[i + pairs] = b * cosine + a * sine;
                    }
                }
            });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        turn(gradient, &self.angles, -self.direction).map(Some)
    }
}
