//! Causal attention with grouped keys over a ragged batch (Ainslie et al., arXiv 2305.13245).
//! Each stretch of tokens sees its own row only; no mask and no padding stand in memory.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::candle::ops;
use super::cpu::attention_decode;
#[cfg(target_arch = "x86_64")]
use super::cpu::attention_prefill_amx;
use super::cpu::small_matmul::{View, product};
use super::cpu::tensor_slice;
use super::cpu::vector_math;
use super::cpu::vector_math::simd_dispatch;
use crate::model::compute::backend::{Backend, uses_candle};

/// How many heads of which width, and what they see.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub queries: usize,
    /// Heads that keys and values have; divides `queries`.
    pub keys: usize,
    pub width: usize,
    /// Multiplies each query's product with a key.
    pub scale: f32,
    /// A token sees itself and what came before it; without this, its whole row (encoders).
    pub causal: bool,
    /// A token sees so many tokens only, itself included (Mistral, arXiv 2310.06825).
    pub window: Option<usize>,
    /// Scores are held inside ±cap: `cap · tanh(score / cap)` (Gemma 2, arXiv 2408.00118).
    pub cap: Option<f32>,
    /// Where the processor has tiles of bf16, all that is multiplied is rounded to it once, as what it was made of was.
    pub rounded: bool,
}

impl Heads {
    /// Causal heads that see all that came before, scores scaled by `1/√width`.
    pub fn causal(queries: usize, keys: usize, width: usize) -> Heads {
        let scale = 1.0 / (width as f32).sqrt();
        Heads { queries, keys, width, scale, causal: true, window: None, cap: None, rounded: false }
    }

    pub(crate) fn group(&self) -> usize {
        self.queries / self.keys
    }

    /// The tokens that the one at `position` sees, in a row that holds `held`.
    pub(crate) fn seen(&self, position: usize, held: usize) -> Range<usize> {
        let end = if self.causal { position + 1 } else { held };
        let begin = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        begin..end
    }
}

/// The new tokens of one row, and all keys and values of that row, the new ones last.
pub struct KvSegment<'a> {
    /// Where the new tokens stand among the batch's.
    pub tokens: Range<usize>,
    /// `[past + new, key heads, head width]`.
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

/// Query rows (a token's heads that share a key head, token after token) that are worked on at once.
const ROWS: usize = 128;

/// New tokens of a stretch below which keys and values are read as they stand.
const FEW: usize = 16;

/// Some new tokens of a stretch under one key head: small enough that their scores stay in a core's cache.
struct Block<'a> {
    heads: Heads,
    key_head: usize,
    /// Among the batch's tokens.
    tokens: Range<usize>,
    /// Position of the first of them in its row.
    position: usize,
    /// The stretch's tokens that any of them sees.
    seen: Range<usize>,
    keys: View<'a>,
    values: View<'a>,
}

impl<'a> Block<'a> {
    /// All blocks of a batch: stretch after stretch, key head after key head.
    fn all<'b>(stretches: impl Iterator<Item = &'b KvSegment<'a>>, heads: Heads) -> Vec<Block<'a>>
    where
        'a: 'b,
    {
        let many = (ROWS / heads.group()).max(1);
        let each = |stretch: &KvSegment<'a>| {
            let (keys, values, tokens) = (stretch.keys, stretch.values, stretch.tokens.clone());
            let held = keys.len() / (heads.keys * heads.width);
            let past = held - tokens.len();
            (0..heads.keys).flat_map(move |key_head| {
                let tokens = tokens.clone();
                tokens.clone().step_by(many).map(move |begin| {
                    let end = (begin + many).min(tokens.end);
                    let position = past + begin - tokens.start;
                    let last = heads.seen(position + end - begin - 1, held);
                    let seen = heads.seen(position, held).start..last.end;
                    let part = |of: &'a [f32]| {
                        let stride = heads.keys * heads.width;
                        View::new(
                            &of[seen.start * stride + key_head * heads.width..],
                            seen.len(),
                            heads.width,
                            stride,
                        )
                    };
                    let (keys, values) = (part(keys), part(values));
                    Block { heads, key_head, tokens: begin..end, position, seen, keys, values }
                })
            })
        };
        stretches.flat_map(each).collect()
    }

    fn rows(&self) -> usize {
        self.tokens.len() * self.heads.group()
    }

    /// This block's part of `[tokens, query heads, head width]`, end to end.
    fn gather(&self, of: &[f32]) -> Vec<f32> {
        let mut part = Vec::with_capacity(self.rows() * self.heads.width);
        for place in self.places() {
            part.extend_from_slice(&of[place]);
        }
        part
    }

    /// Puts this block's part where it stands in `[tokens, query heads, head width]`.
    fn scatter(&self, part: &[f32], of: &mut [f32]) {
        let many = self.heads.group() * self.heads.width;
        for (place, part) in self.places().zip(part.chunks_exact(many)) {
            of[place].copy_from_slice(part);
        }
    }

    fn places(&self) -> impl Iterator<Item = Range<usize>> {
        let (many, row) = (self.heads.group() * self.heads.width, self.heads.queries * self.heads.width);
        let begin = self.key_head * many;
        self.tokens.clone().map(move |token| token * row + begin..token * row + begin + many)
    }

    /// The weights `[rows, seen]` that the queries (this block's part) give to what they see.
    fn weights(&self, queries: &[f32]) -> Vec<f32> {
        let (heads, seen) = (self.heads, self.seen.len());
        let mut weights = vec![0f32; self.rows() * seen];
        let queries = View::new(queries, self.rows(), heads.width, heads.width);
        product(&mut weights, seen, queries, self.keys.transposed(), heads.scale, false);
        simd_dispatch!({
            for (slot, row) in weights.chunks_exact_mut(seen).enumerate() {
                let sees = heads.seen(self.position + slot / heads.group(), self.seen.end);
                let sees = sees.start - self.seen.start..sees.end - self.seen.start;
                row[..sees.start].fill(0.0);
                row[sees.end..].fill(0.0);
                vector_math::softmax(&mut row[sees], heads.cap);
            }
        });
        weights
    }
}

/// The heads' outputs `[tokens, query heads, head width]`, given as one flat vector.
/// `queries`: `[tokens, query heads, head width]`, already rotated, as the keys are.
pub fn attend(queries: &[f32], heads: Heads, stretches: &[KvSegment]) -> Vec<f32> {
    let mut out = Vec::with_capacity(queries.len());
    let place = Out(out.as_mut_ptr());
    let (few, many): (Vec<_>, Vec<_>) = stretches.iter().partition(|stretch| stretch.tokens.len() < FEW);
    // SAFETY: the stretches are the batch's rows, each token in one of them, and the queries are theirs.
    unsafe {
        attention_decode::attend(queries, heads, &few, place);
        match Backend::current() {
            #[cfg(target_arch = "x86_64")]
            Backend::Amx => attention_prefill_amx::attend(queries, heads, &many, place),
            _ => blocks(queries, heads, &many, place),
        }
        out.set_len(queries.len());
    }
    out
}

/// As [`attend`], by products of f32 matrices.
///
/// # Safety
/// `out` must have room for every token of the stretches; no other thread may write there.
unsafe fn blocks(queries: &[f32], heads: Heads, stretches: &[&KvSegment], out: Out) {
    let blocks = Block::all(stretches.iter().copied(), heads);
    blocks.par_iter().for_each(|block| {
        let (width, seen) = (heads.width, block.seen.len());
        let weights = block.weights(&block.gather(queries));
        let mut part = vec![0f32; block.rows() * width];
        product(&mut part, width, View::new(&weights, block.rows(), seen, seen), block.values, 1.0, false);
        let many = heads.group() * width;
        for (place, part) in block.places().zip(part.chunks_exact(many)) {
            // SAFETY: the token's heads have their place in `out`, and are this block's alone.
            unsafe { out.slice(place) }.copy_from_slice(part);
        }
    });
}

/// The result's first number: threads write side by side into it, each to places of its own, which slices can't say.
#[derive(Clone, Copy)]
pub(crate) struct Out(*mut f32);

// SAFETY: no two threads have the same place.
unsafe impl Sync for Out {}
unsafe impl Send for Out {}

impl Out {
    /// # Safety
    /// The place must be there, and be no other thread's.
    pub(crate) unsafe fn slice<'a>(self, place: Range<usize>) -> &'a mut [f32] {
        unsafe { std::slice::from_raw_parts_mut(self.0.add(place.start), place.len()) }
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
    if uses_candle(queries) {
        let part = |of: &Tensor, row: &Range<usize>| of.narrow(0, row.start, row.len());
        let stretch = |row: Range<usize>| -> Result<ops::KvSegment> {
            Ok(ops::KvSegment { keys: part(keys, &row)?, values: part(values, &row)?, tokens: row })
        };
        let stretches: Vec<_> = rows.into_iter().map(stretch).collect::<Result<_>>()?;
        return ops::attend(queries, heads, &stretches);
    }
    let operation = Attention { heads, rows };
    queries.contiguous()?.apply_op3(&keys.contiguous()?, &values.contiguous()?, operation)
}

impl Attention {
    fn stretches<'a>(&self, keys: &'a [f32], values: &'a [f32]) -> Vec<KvSegment<'a>> {
        let token = self.heads.keys * self.heads.width;
        let stretch = |row: &Range<usize>| KvSegment {
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
        let (queries, keys, values) =
            (tensor_slice::view(s1, l1)?, tensor_slice::view(s2, l2)?, tensor_slice::view(s3, l3)?);
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
        if self.heads.cap.is_some() {
            return Err(Error::Msg("attention with capped scores has no gradient here".into()));
        }
        let heads = self.heads;
        let width = heads.width;
        let (mut for_q, mut for_k, mut for_v) = (zeros(queries), zeros(keys), zeros(values));
        tensor_slice::with([queries, keys, values, out, gradient], |[q, k, v, out, gradient]| {
            let blocks = Block::all(self.stretches(k, v).iter(), heads);
            let work = |block: &Block| {
                let (rows, seen) = (block.rows(), block.seen.len());
                let (q, out, gradient) = (block.gather(q), block.gather(out), block.gather(gradient));
                let weights = block.weights(&q);
                let [q, gradient_rows] = [&q, &gradient].map(|part| View::new(part, rows, width, width));
                let mut pull = vec![0f32; rows * seen];
                product(&mut pull, seen, gradient_rows, block.values.transposed(), 1.0, false);
                simd_dispatch!({
                    for (row, pull) in pull.chunks_exact_mut(seen).enumerate() {
                        let at = row * width;
                        let mean = vector_math::sum(width, |i| out[at + i] * gradient[at + i]);
                        for (pull, weight) in pull.iter_mut().zip(&weights[row * seen..]) {
                            *pull = weight * (*pull - mean) * heads.scale;
                        }
                    }
                });
                let (mut for_q, mut for_k) = (vec![0f32; rows * width], vec![0f32; seen * width]);
                let mut for_v = for_k.clone();
                let [pull, weights] = [&pull, &weights].map(|part| View::new(part, rows, seen, seen));
                product(&mut for_q, width, pull, block.keys, 1.0, false);
                product(&mut for_k, width, pull.transposed(), q, 1.0, false);
                product(&mut for_v, width, weights.transposed(), gradient_rows, 1.0, false);
                (for_q, for_k, for_v)
            };
            let parts: Vec<_> = blocks.par_iter().map(work).collect();
            for (block, (q, k, v)) in blocks.iter().zip(parts) {
                block.scatter(&q, &mut for_q);
                // Whole rows: the stretch of a block begins where its positions are counted from.
                let begin = block.tokens.start - block.position + block.seen.start;
                for (part, whole) in [(k, &mut for_k), (v, &mut for_v)] {
                    for (token, part) in (begin..).zip(part.chunks_exact(width)) {
                        let at = (token * heads.keys + block.key_head) * width;
                        whole[at..at + width].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    }
                }
            }
            Ok(())
        })?;
        let tensor =
            |numbers, like: &Tensor| Tensor::from_vec(numbers, like.shape(), like.device()).map(Some);
        Ok((tensor(for_q, queries)?, tensor(for_k, keys)?, tensor(for_v, values)?))
    }
}

fn zeros(like: &Tensor) -> Vec<f32> {
    vec![0f32; like.elem_count()]
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::{Activation, Angles, activate, gated, rms_norm, rotate};
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
        check("attention", &inputs, |t| attention(&t[0], &t[1], &t[2], heads, vec![0..3, 3..7]).unwrap());
        check("rms_norm", &[variable(&[5, 8], 1), variable(&[8], 2)], |t| {
            rms_norm(&t[0], &t[1], 1e-6).unwrap()
        });
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            check("gated", &[variable(&[5, 8], 1), variable(&[5, 8], 2)], |t| {
                gated(&t[0], &t[1], activation).unwrap()
            });
            check("activate", &[variable(&[5, 8], 1)], |t| activate(&t[0], activation).unwrap());
        }
        let angles = Angles::new((0..5).map(|position| (position, 0)), &[vec![1.0, 0.3]], 1.0);
        // The first four numbers of each head turn, the last two stay.
        check("rotate", &[variable(&[5, 2, 6], 1)], |t| rotate(&t[0], &angles).unwrap());
    }

    #[test]
    fn windows_caps_and_encoders_see_what_they_should() {
        let (queries, keys) = ([1.0; 6], [0.5; 6]);
        let values = [1.0, 0.0, 3.0, 2.0, 11.0, 4.0];
        let seen = |heads: Heads| {
            let stretch = KvSegment { tokens: 0..3, keys: &keys, values: &values };
            attend(&queries, heads, &[stretch])
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
        let stretch = KvSegment { tokens: 0..2, keys: &keys, values: &values };
        let found = attend(&queries, Heads { cap: Some(1.0), ..Heads::causal(1, 1, 1) }, &[stretch])[1];
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
        let stretches =
            rows.map(|(tokens, at)| KvSegment { tokens, keys: &keys[at.clone()], values: &values[at] });
        assert_eq!(attend(&queries, heads, &stretches), [1.0, 0.0, 2.0, 1.0, 10.0, 0.0, 15.0, 2.0]);
    }
}
