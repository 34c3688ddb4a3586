//! CPU kernels of rotary position embedding (Su et al., RoFormer, arXiv 2104.09864): the two halves of a head's rotated part
//! form the pairs.

use candle_core::{CpuStorage, CustomOp1, Error, InplaceOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::norms::rms_scale;
use super::tensor_slice;
use super::vector_math::simd_dispatch;
use crate::model::compute::rotary::Angles;

/// Rotates one head. If it is wider than twice the pairs, its last elements stay unchanged.
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
    /// −1 for the gradient, which rotates back.
    direction: f32,
}

/// Rotates `x`, f32 `[tokens, heads, head width]`. If a head is wider than twice the rotated pairs, its last elements stay
/// unchanged.
pub(crate) fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
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

/// RMS norm and rotation of heads, in place.
struct InPlace<'a> {
    /// Weight and epsilon of the RMS norm; the weight is as wide as one head or as all.
    norm: Option<(&'a [f32], f32)>,
    angles: Option<&'a Angles>,
    head_width: usize,
}

/// Normalises and rotates `x`, f32 `[tokens, heads × head width]`, in place and without a gradient: the caller must hold the only
/// reference. `norm`: weight, as wide as one head or as all, and epsilon of an RMS norm.
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
            return Err(Error::Msg("the heads are not contiguous f32".into()));
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
