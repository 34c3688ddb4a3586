//! Elementwise sum of two tensors, on all threads.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::tensor_slice;

/// Elements that a thread takes at once.
const CHUNK: usize = 1 << 14;

/// `a + b`, f32 of one shape, with its gradient if either tracks one.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.track_op() || b.track_op() || a.elem_count() < 2 * CHUNK {
        return a + b;
    }
    let out = tensor_slice::with([a, b], |[a, b]| {
        let mut out = Vec::with_capacity(a.len());
        a.par_iter().zip(b).with_min_len(CHUNK).map(|(a, b)| a + b).collect_into_vec(&mut out);
        Ok(out)
    })?;
    Tensor::from_vec(out, a.shape(), a.device())
}
