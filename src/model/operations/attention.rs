//! Causal attention with grouped keys over a ragged batch (Ainslie et al., arXiv 2305.13245).
//! Each stretch of tokens sees its own row only; no mask and no padding stand in memory.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::slice;

/// How many heads of which width.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub queries: usize,
    /// Heads that keys and values have; divides `queries`.
    pub keys: usize,
    pub width: usize,
}

impl Heads {
    fn group(&self) -> usize {
        self.queries / self.keys
    }
}

/// The new tokens of one row, and all keys and values of that row, the new ones last.
pub struct Stretch<'a> {
    /// Where the new tokens stand among the batch's.
    pub tokens: Range<usize>,
    /// `[past + new, key heads, head width]`.
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

/// One key head of a stretch, where it lies.
struct Head<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    heads: Heads,
    number: usize,
    past: usize,
}

impl<'a> Head<'a> {
    fn new(stretch: &Stretch<'a>, heads: Heads, number: usize) -> Head<'a> {
        let held = stretch.keys.len() / (heads.keys * heads.width);
        let past = held - stretch.tokens.len();
        Head { keys: stretch.keys, values: stretch.values, heads, number, past }
    }

    /// This head's part of each token that a new token sees, itself included.
    fn seen<'b>(&self, of: &'b [f32], position: usize) -> impl Iterator<Item = &'b [f32]> {
        let (width, begin) = (self.heads.width, self.number * self.heads.width);
        let tokens = of.chunks_exact(self.heads.keys * width).take(self.past + position + 1);
        tokens.map(move |token| &token[begin..begin + width])
    }

    /// The weights that one query gives to the tokens it sees.
    fn weights(&self, query: &[f32], position: usize, weights: &mut Vec<f32>) {
        let scale = 1.0 / (query.len() as f32).sqrt();
        weights.clear();
        weights.extend(self.seen(self.keys, position).map(|key| dot(query, key) * scale));
        let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for weight in weights.iter_mut() {
            *weight = (*weight - largest).exp();
            sum += *weight;
        }
        for weight in weights.iter_mut() {
            *weight /= sum;
        }
    }
}

/// The heads' outputs `[tokens, query heads, head width]`, given as one flat vector.
/// `queries`: `[tokens, query heads, head width]`, already rotated, as the keys are.
pub fn attend(queries: &[f32], heads: Heads, stretches: &[Stretch]) -> Vec<f32> {
    let (width, row) = (heads.width, heads.queries * heads.width);
    let done: Vec<Vec<f32>> = tasks(stretches, heads)
        .into_par_iter()
        .map(|(stretch, key_head)| {
            let keys = Head::new(stretch, heads, key_head);
            let group = heads.group();
            let mut out = vec![0f32; stretch.tokens.len() * group * width];
            let mut weights = Vec::new();
            for (slot, out) in out.chunks_exact_mut(width).enumerate() {
                let (position, head) = (slot / group, key_head * group + slot % group);
                let at = (stretch.tokens.start + position) * row + head * width;
                keys.weights(&queries[at..at + width], position, &mut weights);
                for (weight, value) in weights.iter().zip(keys.seen(keys.values, position)) {
                    add_scaled(out, *weight, value);
                }
            }
            out
        })
        .collect();
    let mut out = vec![0f32; queries.len()];
    for ((stretch, key_head), part) in tasks(stretches, heads).into_iter().zip(done) {
        scatter(&part, &mut out, stretch.tokens.clone(), heads.queries, heads.group(), width, key_head);
    }
    out
}

fn tasks<'a, 'b>(stretches: &'a [Stretch<'b>], heads: Heads) -> Vec<(&'a Stretch<'b>, usize)> {
    let of = |stretch| (0..heads.keys).map(move |head| (stretch, head));
    stretches.iter().flat_map(of).collect()
}

/// Puts `[tokens, group, width]` where the heads of one group stand in `[tokens, heads, width]`.
fn scatter(
    part: &[f32],
    out: &mut [f32],
    tokens: Range<usize>,
    heads: usize,
    group: usize,
    width: usize,
    at: usize,
) {
    for (token, part) in tokens.zip(part.chunks_exact(group * width)) {
        let begin = (token * heads + at * group) * width;
        out[begin..begin + group * width].copy_from_slice(part);
    }
}

/// In eight sums side by side, so that the compiler may use vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a_whole, a_rest) = a.as_chunks::<8>();
    let (b_whole, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn add_scaled(out: &mut [f32], scale: f32, x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += scale * x;
    }
}

struct Attention {
    heads: Heads,
    rows: Vec<Range<usize>>,
}

/// Attention within each row of a batch whose rows are whole: nothing is taken from a cache.
/// `queries`: `[tokens, query heads, head width]`; `keys`, `values`: `[tokens, key heads, head width]`; f32.
/// `rows` says where each row stands. The result has the queries' shape.
pub fn attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    heads: Heads,
    rows: Vec<Range<usize>>,
) -> Result<Tensor> {
    let operation = Attention { heads, rows };
    queries.contiguous()?.apply_op3(&keys.contiguous()?, &values.contiguous()?, operation)
}

impl Attention {
    fn stretches<'a>(&self, keys: &'a [f32], values: &'a [f32]) -> Vec<Stretch<'a>> {
        let token = self.heads.keys * self.heads.width;
        let stretch = |row: &Range<usize>| Stretch {
            tokens: row.clone(),
            keys: &keys[row.start * token..row.end * token],
            values: &values[row.start * token..row.end * token],
        };
        self.rows.iter().map(stretch).collect()
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
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
        let (queries, keys, values) = (slice::view(s1, l1)?, slice::view(s2, l2)?, slice::view(s3, l3)?);
        let out = attend(queries, self.heads, &self.stretches(keys, values));
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let heads = self.heads;
        let (width, group) = (heads.width, heads.group());
        let parts = slice::with([queries, keys, values, out, gradient], |[q, k, v, out, gradient]| {
            let stretches = self.stretches(k, v);
            let tasks = tasks(&stretches, heads);
            let parts = tasks.into_par_iter().map(|(stretch, key_head)| {
                let keys = Head::new(stretch, heads, key_head);
                let scale = 1.0 / (width as f32).sqrt();
                let mut for_q = vec![0f32; stretch.tokens.len() * group * width];
                let held = stretch.tokens.len() * width;
                let (mut for_k, mut for_v) = (vec![0f32; held], vec![0f32; held]);
                let mut weights = Vec::new();
                for (slot, for_q) in for_q.chunks_exact_mut(width).enumerate() {
                    let (position, head) = (slot / group, key_head * group + slot % group);
                    let at = ((stretch.tokens.start + position) * heads.queries + head) * width;
                    let (q, out, gradient) =
                        (&q[at..at + width], &out[at..at + width], &gradient[at..at + width]);
                    keys.weights(q, position, &mut weights);
                    let mean = dot(out, gradient);
                    let seen = keys.seen(keys.keys, position).zip(keys.seen(keys.values, position));
                    for (token, (weight, (key, value))) in weights.iter().zip(seen).enumerate() {
                        let at = token * width..(token + 1) * width;
                        let pull = weight * (dot(gradient, value) - mean) * scale;
                        add_scaled(for_q, pull, key);
                        add_scaled(&mut for_k[at.clone()], pull, q);
                        add_scaled(&mut for_v[at], *weight, gradient);
                    }
                }
                (for_q, for_k, for_v)
            });
            Ok(parts.collect::<Vec<_>>())
        })?;
        let mut for_q = vec![0f32; queries.elem_count()];
        let (mut for_k, mut for_v) = (vec![0f32; keys.elem_count()], vec![0f32; keys.elem_count()]);
        let places = self.rows.iter().flat_map(|row| (0..heads.keys).map(move |head| (row.clone(), head)));
        for ((row, head), (q, k, v)) in places.zip(parts) {
            scatter(&q, &mut for_q, row.clone(), heads.queries, group, width, head);
            scatter(&k, &mut for_k, row.clone(), heads.keys, 1, width, head);
            scatter(&v, &mut for_v, row, heads.keys, 1, width, head);
        }
        let tensor =
            |numbers, like: &Tensor| Tensor::from_vec(numbers, like.shape(), like.device()).map(Some);
        Ok((tensor(for_q, queries)?, tensor(for_k, keys)?, tensor(for_v, values)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::{Angles, gated_silu, rms_norm, rotate};
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
        let heads = Heads { queries: 4, keys: 2, width: 6 };
        let inputs = [variable(&[7, 4, 6], 1), variable(&[7, 2, 6], 2), variable(&[7, 2, 6], 3)];
        check("attention", &inputs, |t| attention(&t[0], &t[1], &t[2], heads, vec![0..3, 3..7]).unwrap());
        check("rms_norm", &[variable(&[5, 8], 1), variable(&[8], 2)], |t| {
            rms_norm(&t[0], &t[1], 1e-6).unwrap()
        });
        check("gated_silu", &[variable(&[5, 8], 1), variable(&[5, 8], 2)], |t| {
            gated_silu(&t[0], &t[1]).unwrap()
        });
        let angles = Angles::new(0..5, &[1.0, 0.3]);
        check("rotate", &[variable(&[5, 2, 4], 1)], |t| rotate(&t[0], &angles).unwrap());
    }

    #[test]
    fn a_token_sees_itself_and_what_came_before_it_in_its_row() {
        let heads = Heads { queries: 1, keys: 1, width: 2 };
        // Equal keys: every visible value counts the same.
        let (queries, keys) = ([1.0; 8], [0.5; 8]);
        let values = [1.0, 0.0, 3.0, 2.0, 10.0, 0.0, 20.0, 4.0];
        let rows = [(0..2, 0..4), (2..4, 4..8)];
        let stretches =
            rows.map(|(tokens, at)| Stretch { tokens, keys: &keys[at.clone()], values: &values[at] });
        assert_eq!(attend(&queries, heads, &stretches), [1.0, 0.0, 2.0, 1.0, 10.0, 0.0, 15.0, 2.0]);
    }
}
