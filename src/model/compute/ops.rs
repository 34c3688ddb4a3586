//! The operations of a transformer block other than matrix products. Each runs on the backend of its tensors: the CPU
//! kernels of [`super::cpu`], or candle's operations, which run on any device.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::activation::Activation;
use super::backend::uses_candle;
use super::candle::ops as candle_ops;
use super::cpu;
use super::heads::Heads;
use super::rotary::Angles;

/// RMS norm over the last dimension (Zhang & Sennrich, arXiv 1910.07467): `x / sqrt(mean(x²) + ε) · weight`.
/// `x`: f32 `[…, width]`; `weight`: f32 `[width]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    match uses_candle(x) {
        true => candle_ops::rms_norm(x, weight, epsilon as f32),
        false => cpu::norms::rms_norm(x, weight, epsilon),
    }
}

/// Layer norm over the last dimension (Ba et al., arXiv 1607.06450):
/// `(x − mean(x)) / sqrt(variance(x) + ε) · weight + bias`. The CPU kernel has no gradient; where one is tracked, candle computes it.
/// `x`: f32 `[…, width]`; `weight` and `bias`: f32 `[width]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    match uses_candle(x) || x.track_op() {
        true => candle_ops::layer_norm(x, weight, bias, epsilon as f32),
        false => cpu::norms::layer_norm(x, weight, bias, epsilon),
    }
}

/// `f(x)`, f32, in the shape of `x`.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match uses_candle(x) {
        true => candle_ops::activate(x, activation),
        false => cpu::activation::activate(x, activation),
    }
}

/// `f(gate) · up` (Shazeer, arXiv 2002.05202), f32; both inputs have one shape.
pub fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    match uses_candle(gate) {
        true => candle_ops::activate(gate, activation)? * up,
        false => cpu::activation::gated(gate, up, activation),
    }
}

/// Rotary position embedding of `x`, f32 `[tokens, heads, head width]`. If a head is wider than twice the rotated pairs, its
/// last elements stay unchanged.
pub fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    match uses_candle(x) {
        true => candle_ops::rotate(x, angles.tensors(x.device())?),
        false => cpu::rotary::rotate(x, angles),
    }
}

/// `a + b`, f32 of one shape, with its gradient if either tracks one.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match uses_candle(a) {
        true => a + b,
        false => cpu::add::add(a, b),
    }
}

/// Attention within each row of a ragged batch, without a cache.
/// `queries`: f32 `[tokens, query heads, head width]`; `keys` and `values`: f32 `[tokens, key heads, head width]`; `rows`: the
/// range of tokens of each row; `sinks`: a score for each query head that takes its share of the weights and has no value (gpt-oss).
/// The result has the shape of `queries`.
pub fn attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    heads: Heads,
    sinks: Option<&Arc<[f32]>>,
    rows: Vec<Range<usize>>,
) -> Result<Tensor> {
    // The CPU kernel has no gradient of capped scores.
    let is_tracked = [queries, keys, values].iter().any(|tensor| tensor.track_op());
    if !(uses_candle(queries) || is_tracked && heads.cap.is_some()) {
        return cpu::attention::attention(queries, keys, values, heads, sinks, rows);
    }
    let part = |tensor: &Tensor, row: &Range<usize>| tensor.narrow(0, row.start, row.len());
    let segment = |row: Range<usize>| -> Result<candle_ops::KvSegment> {
        Ok(candle_ops::KvSegment { keys: part(keys, &row)?, values: part(values, &row)?, tokens: row })
    };
    let segments: Vec<_> = rows.into_iter().map(segment).collect::<Result<_>>()?;
    candle_ops::attend(queries, heads, sinks.map(|sinks| &**sinks), &segments)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::cpu::attention::attend;
    use super::cpu::kv_segment::KvSegment;
    use super::*;

    fn variable(shape: &[usize], seed: usize) -> Var {
        let count = shape.iter().product::<usize>();
        let numbers: Vec<f32> = (0..count).map(|i| ((i * 37 + seed * 11) as f32 * 0.7).sin()).collect();
        Var::from_tensor(&Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()).unwrap()
    }

    /// The gradient of a fixed mix of the outputs, against central differences.
    fn check(name: &str, inputs: &[Var], run: impl Fn(&[Tensor]) -> Tensor) {
        let mix = |out: &Tensor| {
            let mixed = variable(out.dims(), 5).as_tensor() * out;
            mixed.unwrap().sum_all().unwrap()
        };
        let tensors: Vec<Tensor> = inputs.iter().map(|input| input.as_tensor().clone()).collect();
        let gradients = mix(&run(&tensors)).backward().unwrap();
        for (which, input) in inputs.iter().enumerate() {
            let gradient: Vec<f32> = gradients.get(input).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let numbers: Vec<f32> = input.flatten_all().unwrap().to_vec1().unwrap();
            for at in (0..numbers.len()).step_by(3) {
                let shifted = |by: f32| {
                    let mut numbers = numbers.clone();
                    numbers[at] += by;
                    let mut tensors = tensors.clone();
                    tensors[which] = Tensor::from_vec(numbers, input.shape(), &Device::Cpu).unwrap();
                    mix(&run(&tensors)).to_scalar::<f32>().unwrap()
                };
                let expected = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
                let found = gradient[at];
                assert!(
                    (found - expected).abs() < 5e-3 * (1.0 + expected.abs()),
                    "{name} {which} {at}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let heads = Heads::causal(4, 2, 6);
        let inputs = [variable(&[7, 4, 6], 1), variable(&[7, 2, 6], 2), variable(&[7, 2, 6], 3)];
        check("attention", &inputs, |t| {
            attention(&t[0], &t[1], &t[2], heads, None, vec![0..3, 3..7]).unwrap()
        });
        let sinks = Arc::from([0.3f32, -0.5, 1.0, 0.1]);
        check("attention with sinks", &inputs, |t| {
            attention(&t[0], &t[1], &t[2], heads, Some(&sinks), vec![0..3, 3..7]).unwrap()
        });
        check("rms_norm", &[variable(&[5, 8], 1), variable(&[8], 2)], |t| {
            rms_norm(&t[0], &t[1], 1e-6).unwrap()
        });
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            check("gated", &[variable(&[5, 8], 1), variable(&[5, 8], 2)], |t| {
                gated(&t[0], &t[1], activation).unwrap()
            });
            check("activate", &[variable(&[5, 8], 1)], |t| activate(&t[0], activation).unwrap());
        }
        let angles = Angles::new((0..5).map(|position| (position, 0)), &[(vec![1.0, 0.3], 1.0)]);
        // The first four numbers of each head turn, the last two stay.
        check("rotate", &[variable(&[5, 2, 6], 1)], |t| rotate(&t[0], &angles).unwrap());
    }

    #[test]
    fn windows_caps_and_encoders_see_what_they_should() {
        let (queries, keys) = ([1.0; 6], [0.5; 6]);
        let values = [1.0, 0.0, 3.0, 2.0, 11.0, 4.0];
        let seen = |heads: Heads| {
            let segment = KvSegment { tokens: 0..3, keys: &keys, values: &values };
            attend(&queries, heads, None, &[segment])
        };
        let heads = Heads::causal(1, 1, 2);
        let close = |found: Vec<f32>, expected: [f32; 6]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        };
        close(seen(Heads { window: Some(2), ..heads }), [1.0, 0.0, 2.0, 1.0, 7.0, 3.0]);
        close(seen(Heads { causal: false, ..heads }), [5.0, 2.0, 5.0, 2.0, 5.0, 2.0]);
        // Scores 0 and 2 under a cap of 1: weights of exp(0) and exp(tanh 2).
        let (queries, keys, values) = ([1.0, 1.0], [0.0, 2.0], [0.0, 1.0]);
        let segment = KvSegment { tokens: 0..2, keys: &keys, values: &values };
        let found = attend(&queries, Heads { cap: Some(1.0), ..Heads::causal(1, 1, 1) }, None, &[segment])[1];
        let weight = 2f32.tanh().exp();
        assert!((found - weight / (1.0 + weight)).abs() < 1e-6, "{found}");
    }

    #[test]
    fn a_token_sees_itself_and_what_came_before_it_in_its_row() {
        let heads = Heads::causal(1, 1, 2);
        // Equal keys: every visible value counts the same.
        let (queries, keys) = ([1.0; 8], [0.5; 8]);
        let values = [1.0, 0.0, 3.0, 2.0, 10.0, 0.0, 20.0, 4.0];
        let rows = [(0..2, 0..4), (2..4, 4..8)];
        let segments =
            rows.map(|(tokens, at)| KvSegment { tokens, keys: &keys[at.clone()], values: &values[at] });
        assert_eq!(attend(&queries, heads, None, &segments), [1.0, 0.0, 2.0, 1.0, 10.0, 0.0, 15.0, 2.0]);
    }
}
