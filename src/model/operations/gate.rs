//! The gated activation of an MLP: `silu(gate) · up` (Shazeer, arXiv 2002.05202).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::lanes::{sigmoid, wide};
use super::slice;

/// Numbers a thread takes at once.
const CHUNK: usize = 4096;

struct GatedSilu;

/// `gate` and `up`: f32 of one shape.
pub fn gated_silu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.contiguous()?.apply_op2(&up.contiguous()?, GatedSilu)
}

impl CustomOp2 for GatedSilu {
    fn name(&self) -> &'static str {
        "gated_silu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice::view(s1, l1)?, slice::view(s2, l2)?);
        let mut out = vec![0f32; gate.len()];
        out.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK))).for_each(
            |(out, (gate, up))| {
                wide(|| {
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = gate * sigmoid(*gate) * up;
                    }
                })
            },
        );
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (for_gate, for_up) = slice::with([gate, up, gradient], |[gate, up, gradient]| {
            let (mut for_gate, mut for_up) = (vec![0f32; gate.len()], vec![0f32; gate.len()]);
            for_gate.par_chunks_mut(CHUNK).zip(for_up.par_chunks_mut(CHUNK)).enumerate().for_each(
                |(chunk, (for_gate, for_up))| {
                    let at = chunk * CHUNK..chunk * CHUNK + for_gate.len();
                    let (gate, up, gradient) = (&gate[at.clone()], &up[at.clone()], &gradient[at]);
                    wide(|| {
                        for i in 0..for_gate.len() {
                            let sigmoid = sigmoid(gate[i]);
                            let slope = sigmoid * (1.0 + gate[i] * (1.0 - sigmoid));
                            for_gate[i] = gradient[i] * up[i] * slope;
                            for_up[i] = gradient[i] * gate[i] * sigmoid;
                        }
                    })
                },
            );
            Ok((for_gate, for_up))
        })?;
        Ok((
            Some(Tensor::from_vec(for_gate, gate.shape(), gate.device())?),
            Some(Tensor::from_vec(for_up, up.shape(), up.device())?),
        ))
    }
}
