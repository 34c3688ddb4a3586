//! Rotary position embedding over a ragged batch: each token's heads are turned by the angles of its own position
//! (Su et al., RoFormer, arXiv 2104.09864; halves of a head rotated against each other).

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Device, Error, InplaceOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::candle::ops;
use super::cpu::tensor_slice;
use super::cpu::vector_math::simd_dispatch;
use super::norms::rms_scale;
use crate::model::compute::backend::uses_candle;

/// Cosine and sine of every rotated pair, `[tokens, 2, pairs]`, shared by all blocks of a pass.
#[derive(Clone)]
pub struct Angles {
    table: Arc<Vec<f32>>,
    pairs: usize,
    /// Cosines and sines, each `[tokens, pairs]`, where candle's own operations want them.
    tensors: Arc<OnceLock<[Tensor; 2]>>,
}

impl Angles {
    /// `tokens`: each token's position and which of the lists of frequencies is its own; `frequencies`: radians a
    /// position, one a pair. `scale` multiplies cosine and sine.
    pub fn new(tokens: impl Iterator<Item = (usize, usize)>, frequencies: &[Vec<f64>], scale: f64) -> Angles {
        let pairs = frequencies.first().map_or(0, Vec::len);
        let mut table = Vec::with_capacity(2 * pairs * tokens.size_hint().0);
        for (position, list) in tokens {
            // transformers forms the angle in f32; the same rounding here keeps long contexts equal.
            let angles = frequencies[list].iter().map(|frequency| position as f32 * *frequency as f32);
            table.extend(angles.clone().map(|angle| angle.cos() * scale as f32));
            table.extend(angles.map(|angle| angle.sin() * scale as f32));
        }
        Angles { table: Arc::new(table), pairs, tensors: Arc::default() }
    }

    /// Cosines and sines, each `[tokens, pairs]`, on the device of the pass.
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

    /// Cosines and sines of each token.
    fn tokens(&self) -> impl IndexedParallelIterator<Item = (&[f32], &[f32])> {
        self.table.par_chunks((2 * self.pairs).max(1)).map(|token| token.split_at(self.pairs))
    }
}

/// Turns one head. Where it is wider than the pairs, its last numbers stay as they are.
#[inline(always)]
fn turn_head(head: &mut [f32], (cosines, sines): (&[f32], &[f32]), direction: f32) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        let sine = sine * direction;
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}

struct Rotation {
    angles: Angles,
    /// −1 turns back: the gradient's way.
    direction: f32,
}

/// `x`: `[tokens, heads, head width]`, f32. Where a head is wider than the pairs, its last numbers stay as they are.
pub fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    match uses_candle(x) {
        true => ops::rotate(x, angles.tensors(x.device())?),
        false => turn(x, angles, 1.0),
    }
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
        let x = tensor_slice::view(storage, layout)?;
        let (_, heads, head_width) = layout.shape().dims3()?;
        let mut out = x.to_vec();
        out.par_chunks_mut(heads * head_width).zip(self.angles.tokens()).with_min_len(16).for_each(
            |(token, angles)| {
                simd_dispatch!({
                    for head in token.chunks_mut(head_width) {
                        turn_head(head, angles, self.direction);
                    }
                })
            },
        );
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        turn(gradient, &self.angles, -self.direction).map(Some)
    }
}

/// A norm and a rotation of heads where they stand.
struct InPlace<'a> {
    /// RMS norm's weight, as wide as one head or as all, and its epsilon.
    norm: Option<(&'a [f32], f32)>,
    angles: Option<&'a Angles>,
    head_width: usize,
}

/// Norms and turns `x`, f32 `[tokens, heads × head width]`, where it stands, without a gradient: for a tensor that nobody
/// else holds. `norm`: an RMS norm's weight, as wide as one head or as all, and its epsilon.
pub fn prepare_heads(
    x: &Tensor,
    head_width: usize,
    norm: Option<(&[f32], f32)>,
    angles: Option<&Angles>,
) -> Result<()> {
    x.inplace_op1(&InPlace { norm, angles, head_width })
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "prepare_heads"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (_, width) = layout.shape().dims2()?;
        let whole = layout.contiguous_offsets();
        let (CpuStorage::F32(numbers), Some((begin, end))) = (storage, whole) else {
            return Err(Error::Msg("the heads are not contiguous f32 numbers".into()));
        };
        let work = |token: &mut [f32], angles: Option<(&[f32], &[f32])>| {
            simd_dispatch!({
                if let Some((weight, epsilon)) = self.norm {
                    for part in token.chunks_exact_mut(weight.len()) {
                        let scale = rms_scale(part, epsilon);
                        part.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * scale * weight);
                    }
                }
                if let Some(angles) = angles {
                    token.chunks_exact_mut(self.head_width).for_each(|head| turn_head(head, angles, 1.0));
                }
            })
        };
        let tokens = numbers[begin..end].par_chunks_exact_mut(width.max(1)).with_min_len(16);
        match self.angles {
            Some(angles) => tokens.zip(angles.tokens()).for_each(|(token, angles)| work(token, Some(angles))),
            None => tokens.for_each(|token| work(token, None)),
        }
        Ok(())
    }
}
