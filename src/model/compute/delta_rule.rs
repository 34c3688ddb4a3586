//! The gated delta rule (Yang et al., arXiv 2412.06464): a causal convolution, then a state of fixed size that each token changes in
//! turn and reads.
//!
//! Tokens are taken one after another, so that a row's numbers don't depend on where its passes begin and end. The work is parallel over
//! rows and heads.

use std::ops::Range;

use rayon::prelude::*;

use super::activation::Activation;
use super::cpu::activation::active_row;
use super::cpu::vector_math::{exp, sigmoid, simd_dispatch};

/// ε of the norms of queries and keys.
const EPSILON: f32 = 1e-6;

/// The heads of a gated delta net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    /// Query and key heads; each serves `values / keys` value heads.
    pub keys: usize,
    /// Value heads, each with a state of its own.
    pub values: usize,
    /// Width of a query or key.
    pub key_width: usize,
    /// Width of a value.
    pub value_width: usize,
    /// Tokens that the convolution spans.
    pub span: usize,
}

impl DeltaShape {
    /// Width of all keys.
    pub fn keys_width(&self) -> usize {
        self.keys * self.key_width
    }

    /// Width of all values, and of the concatenated head outputs.
    pub fn values_width(&self) -> usize {
        self.values * self.value_width
    }

    /// Channels of the convolution: queries, keys and values.
    pub fn channels(&self) -> usize {
        2 * self.keys_width() + self.values_width()
    }

    /// Numbers of a row's state: the last `span - 1` inputs of the convolution, then `[key width, value width]` of each value head.
    pub fn state(&self) -> usize {
        self.convolved() + self.values * self.head_state()
    }

    /// The elements of the head outputs in the order in which the first value head of every key head comes first, then the second
    /// ones, and so on (GGUF).
    pub fn tiled(&self) -> impl Iterator<Item = usize> + use<> {
        let DeltaShape { keys, values, value_width, .. } = *self;
        let served = values / keys.max(1);
        (0..served)
            .flat_map(move |which| (0..keys).map(move |key| key * served + which))
            .flat_map(move |head| head * value_width..(head + 1) * value_width)
    }

    fn convolved(&self) -> usize {
        self.span.saturating_sub(1) * self.channels()
    }

    fn head_state(&self) -> usize {
        self.key_width * self.value_width
    }
}

/// The learned numbers of a gated delta net beside its projections.
pub(crate) struct DeltaWeights {
    /// Factors of the convolution, `[span, channels]`.
    pub filter: Vec<f32>,
    /// Logarithm of each value head's decay at a step of 1, below 0.
    pub decay: Vec<f32>,
    /// Added to the step of each value head.
    pub step_bias: Vec<f32>,
    /// Weight of the norm of a head's output, `[value width]`.
    pub norm: Vec<f32>,
    /// ε of that norm.
    pub epsilon: f32,
    /// Activation of what was convolved.
    pub activation: Activation,
}

/// The projections of the tokens of all rows, flat.
pub(crate) struct DeltaInput<'a> {
    /// Queries, keys and values before the convolution, `[tokens, channels]`.
    pub mixed: &'a [f32],
    /// Gates of the head outputs, `[tokens, value heads × value width]`.
    pub gate: &'a [f32],
    /// Rates of what is written to the state, before the sigmoid, `[tokens, value heads]`.
    pub rate: &'a [f32],
    /// Steps of the decay, before the softplus, `[tokens, value heads]`.
    pub step: &'a [f32],
}

/// The gated head outputs, `[tokens, value heads × value width]`. `rows`: each row's tokens, and its state after the tokens before them,
/// which becomes that after them.
pub(crate) fn gated_delta_rule(
    shape: DeltaShape,
    weights: &DeltaWeights,
    input: &DeltaInput,
    rows: Vec<(Range<usize>, &mut [f32])>,
) -> Vec<f32> {
    let width = shape.values_width();
    let mut out = vec![0f32; input.gate.len()];
    let (mut convolved, mut jobs) = (Vec::with_capacity(rows.len()), Vec::new());
    for (tokens, state) in rows {
        let (before, heads) = state.split_at_mut(shape.convolved());
        let mixed = &input.mixed[tokens.start * shape.channels()..tokens.end * shape.channels()];
        convolved.push(convolve(shape, weights, mixed, before));
        let heads = heads.chunks_mut(shape.head_state().max(1)).enumerate();
        let row = convolved.len() - 1;
        jobs.extend(heads.map(|(head, state)| (row, tokens.clone(), head, state)));
    }
    let heads: Vec<_> = jobs
        .into_par_iter()
        .map(|(row, tokens, head, state)| {
            let own =
                Head { shape, weights, input, convolved: &convolved[row], tokens: tokens.clone(), head };
            (tokens, head, simd_dispatch!(own.run(state)))
        })
        .collect();
    for (tokens, head, given) in heads {
        for (token, given) in tokens.zip(given.chunks(shape.value_width.max(1))) {
            out[token * width + head * shape.value_width..][..shape.value_width].copy_from_slice(given);
        }
    }
    out
}

/// The activated convolution of one row's `mixed`, `[tokens, channels]`. `before`: the inputs of the last `span - 1` tokens, the oldest
/// first, which become those after the row.
fn convolve(shape: DeltaShape, weights: &DeltaWeights, mixed: &[f32], before: &mut [f32]) -> Vec<f32> {
    let (channels, held) = (shape.channels().max(1), shape.span.saturating_sub(1));
    let whole: Vec<f32> = before.iter().chain(mixed).copied().collect();
    let mut out = vec![0f32; mixed.len()];
    out.par_chunks_mut(channels).enumerate().for_each(|(token, out)| {
        let mut sum = vec![0f32; channels];
        let window = whole[token * channels..].chunks(channels).zip(weights.filter.chunks(channels));
        simd_dispatch!({
            for (input, factors) in window.take(shape.span) {
                for ((sum, input), factor) in sum.iter_mut().zip(input).zip(factors) {
                    *sum += input * factor;
                }
            }
            active_row(&sum, weights.activation, out);
        });
    });
    before.copy_from_slice(&whole[whole.len() - held * channels..]);
    out
}

/// One value head of one row.
struct Head<'a> {
    shape: DeltaShape,
    weights: &'a DeltaWeights,
    input: &'a DeltaInput<'a>,
    /// Of the row's tokens alone.
    convolved: &'a [f32],
    tokens: Range<usize>,
    head: usize,
}

impl Head<'_> {
    /// The gated outputs, `[tokens, value width]`; `state`: `[key width, value width]`.
    #[inline(always)]
    fn run(&self, state: &mut [f32]) -> Vec<f32> {
        let DeltaShape { keys, values, key_width, value_width, .. } = self.shape;
        let key_head = self.head / (values / keys.max(1)).max(1);
        let mut out = vec![0f32; self.tokens.len() * value_width];
        let (mut query, mut key) = (vec![0f32; key_width], vec![0f32; key_width]);
        let mut change = vec![0f32; value_width];
        let scale = (key_width as f32).powf(-0.5);
        for ((token, all), out) in self
            .tokens
            .clone()
            .zip(self.convolved.chunks(self.shape.channels().max(1)))
            .zip(out.chunks_mut(value_width.max(1)))
        {
            let part = |begin: usize, width: usize| &all[begin..begin + width];
            unit(part(key_head * key_width, key_width), scale, &mut query);
            unit(part(self.shape.keys_width() + key_head * key_width, key_width), 1.0, &mut key);
            let value = part(2 * self.shape.keys_width() + self.head * value_width, value_width);
            let at = token * values + self.head;
            let step = softplus(self.input.step[at] + self.weights.step_bias[self.head]);
            let decay = (self.weights.decay[self.head] * step).exp();
            let rate = sigmoid(self.input.rate[at]);
            change.fill(0.0);
            for (row, key) in state.chunks_mut(value_width.max(1)).zip(&key) {
                for (state, change) in row.iter_mut().zip(&mut change) {
                    *state *= decay;
                    *change += *state * key;
                }
            }
            for (change, value) in change.iter_mut().zip(value) {
                *change = (value - *change) * rate;
            }
            for ((row, key), query) in state.chunks_mut(value_width.max(1)).zip(&key).zip(&query) {
                for ((state, change), out) in row.iter_mut().zip(&change).zip(out.iter_mut()) {
                    *state += key * change;
                    *out += *state * query;
                }
            }
            let gate = &self.input.gate[token * values * value_width + self.head * value_width..];
            let mean = out.iter().map(|x| x * x).sum::<f32>() / value_width as f32;
            let factor = 1.0 / (mean + self.weights.epsilon).sqrt();
            for ((out, weight), gate) in out.iter_mut().zip(&self.weights.norm).zip(gate) {
                *out *= factor * weight * gate * sigmoid(*gate);
            }
        }
        out
    }
}

/// `x` over its length, times `scale`.
#[inline(always)]
fn unit(x: &[f32], scale: f32, to: &mut [f32]) {
    let factor = scale / (x.iter().map(|x| x * x).sum::<f32>() + EPSILON).sqrt();
    to.iter_mut().zip(x).for_each(|(to, x)| *to = x * factor);
}

#[inline(always)]
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { exp(x).ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> DeltaWeights {
        DeltaWeights {
            filter: vec![0.0, 0.0, 0.0, 1.0, 1.0, 1.0],
            decay: vec![-1.0],
            step_bias: vec![0.0],
            norm: vec![1.0],
            epsilon: 0.0,
            activation: Activation::Relu,
        }
    }

    const SHAPE: DeltaShape = DeltaShape { keys: 1, values: 1, key_width: 1, value_width: 1, span: 2 };

    /// One number a head: the state is a scalar, which is followed by hand.
    #[test]
    fn a_state_decays_and_moves_towards_the_value_at_its_rate() {
        let input = DeltaInput {
            mixed: &[1.0, 1.0, 4.0, 1.0, 1.0, 2.0],
            gate: &[1.0, 1.0],
            rate: &[0.0, 0.0],
            step: &[0.0, 0.0],
        };
        let mut state = vec![0.0; SHAPE.state()];
        assert_eq!(state.len(), 4);
        let out = gated_delta_rule(SHAPE, &weights(), &input, vec![(0..2, &mut state)]);
        // softplus(0) = ln 2, so each step halves the state; a rate of ½ then takes half of the way to the value.
        let first = 0.5 * 4.0;
        let second = 0.5 * first + 0.5 * (2.0 - 0.5 * first);
        assert!((state[3] - second).abs() < 1e-5, "{state:?}");
        assert_eq!(state[..3], [1.0, 1.0, 2.0]);
        // A norm of one number is its sign; the gate of 1 gives silu(1).
        assert!(out.iter().all(|out| (out - 0.731_058_6).abs() < 1e-5), "{out:?}");
    }

    #[test]
    fn a_row_in_parts_or_beside_another_is_the_row_alone() {
        let shape = DeltaShape { keys: 2, values: 4, key_width: 3, value_width: 2, span: 3 };
        let numbers = |count: usize, seed: usize| -> Vec<f32> {
            (0..count).map(|at| ((at * 7 + seed) as f32 * 0.37).sin()).collect()
        };
        let weights = DeltaWeights {
            filter: numbers(3 * shape.channels(), 1),
            decay: vec![-0.5; 4],
            step_bias: numbers(4, 2),
            norm: numbers(2, 3),
            epsilon: 1e-6,
            activation: Activation::Silu,
        };
        let count = 7;
        let (mixed, gate) = (numbers(count * shape.channels(), 4), numbers(count * 8, 5));
        let (rate, step) = (numbers(count * 4, 6), numbers(count * 4, 7));
        let part = |range: Range<usize>, state: &mut [f32]| {
            let of = |x: &'_ [f32], width: usize| x[range.start * width..range.end * width].to_vec();
            let input = DeltaInput {
                mixed: &of(&mixed, shape.channels()),
                gate: &of(&gate, 8),
                rate: &of(&rate, 4),
                step: &of(&step, 4),
            };
            gated_delta_rule(shape, &weights, &input, vec![(0..range.len(), state)])
        };
        let (mut whole, mut parts) = (vec![0.0; shape.state()], vec![0.0; shape.state()]);
        let alone = part(0..count, &mut whole);
        let mut given = part(0..1, &mut parts);
        given.extend(part(1..5, &mut parts));
        given.extend(part(5..count, &mut parts));
        assert_eq!((alone, whole), (given, parts));
    }
}
