//! CPU kernels of the MLP activations, plain (`f(x)`) and gated (`f(gate) · up`, Shazeer, arXiv 2002.05202), with gradients.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::tensor_slice;
use super::vector_math::{erfc, exp, sigmoid, simd_dispatch};
use crate::model::compute::activation::Activation;

/// Elements that a thread takes at once.
const CHUNK: usize = 4096;

/// An activation function and its derivative.
trait Curve: Copy + Sync {
    fn value(x: f32) -> f32;
    fn slope(x: f32) -> f32;
}

#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct Gelu;
#[derive(Clone, Copy)]
struct GeluTanh;
#[derive(Clone, Copy)]
struct Relu;

impl Curve for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x)
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let share = sigmoid(x);
        share * (1.0 + x * (1.0 - share))
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        // Of values far below 0, `1 + erf(x)` would leave rounding alone, which a norm of them would make large.
        let tail = 0.5 * x * erfc(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
        if x < 0.0 { tail } else { x - tail }
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let density = exp(-0.5 * x * x) * 0.398_942_3;
        let tail = 0.5 * erfc(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
        let share = if x < 0.0 { tail } else { 1.0 - tail };
        share + x * density
    }
}

/// √(2/π)
const SPREAD: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

impl Curve for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        // ½ (1 + tanh(y)) is the sigmoid of 2 y, which keeps its digits far below 0.
        x * sigmoid(2.0 * SPREAD * (x + CUBIC * x * x * x))
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let share = sigmoid(2.0 * SPREAD * (x + CUBIC * x * x * x));
        let inner = SPREAD * (1.0 + 3.0 * CUBIC * x * x);
        share + 2.0 * x * share * (1.0 - share) * inner
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x.max(0.0)
    }
    #[inline(always)]
    fn slope(x: f32) -> f32 {
        if x > 0.0 { 1.0 } else { 0.0 }
    }
}

/// Calls a function that is generic over the activation.
macro_rules! with_curve {
    ($activation:expr, $function:ident($($argument:expr),*)) => {
        match $activation {
            Activation::Silu => $function::<Silu>($($argument),*),
            Activation::Gelu => $function::<Gelu>($($argument),*),
            Activation::GeluTanh => $function::<GeluTanh>($($argument),*),
            Activation::Relu => $function::<Relu>($($argument),*),
        }
    };
}

#[inline(always)]
pub(crate) fn active_row(x: &[f32], activation: Activation, out: &mut [f32]) {
    #[inline(always)]
    fn row<C: Curve>(x: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = C::value(*x));
    }
    with_curve!(activation, row(x, out))
}

#[inline(always)]
pub(crate) fn gated_row(gate: &[f32], up: &[f32], activation: Activation, out: &mut [f32]) {
    #[inline(always)]
    fn row<C: Curve>(gate: &[f32], up: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(gate).zip(up).for_each(|((out, gate), up)| *out = C::value(*gate) * up);
    }
    with_curve!(activation, row(gate, up, out))
}

/// `f(gate) · up`, written over `gate`.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn gate_in_place(gate: &mut [f32], up: &[f32], activation: Activation) {
    #[inline(always)]
    fn row<C: Curve>(gate: &mut [f32], up: &[f32]) {
        gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = C::value(*gate) * up);
    }
    with_curve!(activation, row(gate, up))
}

/// `f(x)`, f32, in the shape of `x`.
pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Plain(activation))
}

/// `f(gate) · up`, f32; both inputs have one shape.
pub(crate) fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    gate.contiguous()?.apply_op2(&up.contiguous()?, Gated(activation))
}

struct Plain(Activation);

struct Gated(Activation);

fn values(x: &[f32], activation: Activation) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    chunks.for_each(|(out, x)| simd_dispatch!(active_row(x, activation, out)));
    out
}

fn pulled<C: Curve>(x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    let inputs = x.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK));
    out.par_chunks_mut(CHUNK).zip(inputs).for_each(|(out, (x, gradient))| {
        simd_dispatch!({
            for ((out, x), gradient) in out.iter_mut().zip(x).zip(gradient) {
                *out = gradient * C::slope(*x);
            }
        })
    });
    out
}

fn gated_values(gate: &[f32], up: &[f32], activation: Activation) -> Vec<f32> {
    let mut out = vec![0f32; gate.len()];
    let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK));
    let chunks = out.par_chunks_mut(CHUNK).zip(inputs);
    chunks.for_each(|(out, (gate, up))| simd_dispatch!(gated_row(gate, up, activation, out)));
    out
}

fn gated_pulled<C: Curve>(gate: &[f32], up: &[f32], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut for_gate, mut for_up) = (vec![0f32; gate.len()], vec![0f32; gate.len()]);
    let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)).zip(gradient.par_chunks(CHUNK));
    let outputs = for_gate.par_chunks_mut(CHUNK).zip(for_up.par_chunks_mut(CHUNK));
    outputs.zip(inputs).for_each(|((for_gate, for_up), ((gate, up), gradient))| {
        simd_dispatch!({
            for i in 0..for_gate.len() {
                for_gate[i] = gradient[i] * up[i] * C::slope(gate[i]);
                for_up[i] = gradient[i] * C::value(gate[i]);
            }
        })
    });
    (for_gate, for_up)
}

impl CustomOp1 for Plain {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = tensor_slice::view(storage, layout)?;
        Ok((CpuStorage::F32(values(x, self.0)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let out =
            tensor_slice::with([x, gradient], |[x, gradient]| Ok(with_curve!(self.0, pulled(x, gradient))))?;
        Tensor::from_vec(out, x.shape(), x.device()).map(Some)
    }
}

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (tensor_slice::view(s1, l1)?, tensor_slice::view(s2, l2)?);
        Ok((CpuStorage::F32(gated_values(gate, up, self.0)), l1.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (for_gate, for_up) = tensor_slice::with([gate, up, gradient], |[gate, up, gradient]| {
            Ok(with_curve!(self.0, gated_pulled(gate, up, gradient)))
        })?;
        Ok((
            Some(Tensor::from_vec(for_gate, gate.shape(), gate.device())?),
            Some(Tensor::from_vec(for_up, up.shape(), up.device())?),
        ))
    }
}
