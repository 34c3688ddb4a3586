//! CPU kernels of RMS norm (Zhang & Sennrich, arXiv 1910.07467), with a gradient, and layer norm (Ba et al., arXiv 1607.06450),
//! without one.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::tensor_slice;
use super::vector_math::{simd_dispatch, sum};

/// Rows that a thread takes at once.
const ROWS: usize = 64;

struct RmsNorm {
    epsilon: f32,
}

/// `x / sqrt(mean(x²) + ε) · weight`. `x`: `[…, width]`; `weight`: `[width]`; both f32.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let operation = RmsNorm { epsilon: epsilon as f32 };
    x.contiguous()?.apply_op2(weight, operation)
}

/// `1 / sqrt(mean(x²) + ε)` of a row.
#[inline(always)]
pub(crate) fn rms_scale(row: &[f32], epsilon: f32) -> f32 {
    let square = sum(row.len(), |i| row[i] * row[i]);
    1.0 / (square / row.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
pub(crate) fn rms_row(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = rms_scale(x, epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
pub(crate) fn layer_row(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = x.len();
    let mean = sum(width, |i| x[i]) / width as f32;
    let variance = sum(width, |i| (x[i] - mean) * (x[i] - mean)) / width as f32;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * scale * weight + bias;
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (tensor_slice::view(s1, l1)?, tensor_slice::view(s2, l2)?);
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(weight.len())
            .zip(x.par_chunks(weight.len()))
            .with_min_len(ROWS)
            .for_each(|(out, x)| simd_dispatch!(rms_row(x, weight, self.epsilon, out)));
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (for_x, for_weight) = tensor_slice::with([x, weight, gradient], |[x, weight, gradient]| {
            let width = weight.len();
            let mut for_x = vec![0f32; x.len()];
            // In chunks of fixed size, summed in order: the result doesn't depend on the number of threads.
            let parts = for_x.par_chunks_mut(width * ROWS).enumerate().map(|(chunk, out)| {
                let mut for_weight = vec![0f32; width];
                for (row, out) in out.chunks_mut(width).enumerate() {
                    let at = (chunk * ROWS + row) * width..(chunk * ROWS + row + 1) * width;
                    let (x, gradient) = (&x[at.clone()], &gradient[at]);
                    simd_dispatch!({
                        let scale = rms_scale(x, self.epsilon);
                        let along = sum(width, |i| gradient[i] * weight[i] * x[i]);
                        let pull = along * scale * scale * scale / width as f32;
                        for i in 0..width {
                            out[i] = gradient[i] * weight[i] * scale - x[i] * pull;
                            for_weight[i] += gradient[i] * x[i] * scale;
                        }
                    })
                }
                for_weight
            });
            let parts: Vec<Vec<f32>> = parts.collect();
            let mut for_weight = vec![0f32; width];
            for part in parts {
                for_weight.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            Ok((for_x, for_weight))
        })?;
        Ok((
            Some(Tensor::from_vec(for_x, x.shape(), x.device())?),
            Some(Tensor::from_vec(for_weight, weight.shape(), x.device())?),
        ))
    }
}

struct LayerNorm {
    epsilon: f32,
}

/// `(x − mean(x)) / sqrt(variance(x) + ε) · weight + bias`. `x`: `[…, width]`; `weight` and `bias`: `[width]`; all f32.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op3(weight, bias, LayerNorm { epsilon: epsilon as f32 })
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) =
            (tensor_slice::view(s1, l1)?, tensor_slice::view(s2, l2)?, tensor_slice::view(s3, l3)?);
        let width = weight.len();
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(width)
            .zip(x.par_chunks(width))
            .with_min_len(ROWS)
            .for_each(|(out, x)| simd_dispatch!(layer_row(x, weight, bias, self.epsilon, out)));
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}
