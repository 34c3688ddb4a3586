//! Grouped-query attention on the CPU over a ragged batch (Ainslie et al., arXiv 2305.13245), with gradients. Each segment
//! attends within its own row; there is no mask and no padding in memory.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::attention_decode;
#[cfg(target_arch = "x86_64")]
use super::attention_prefill_amx;
use super::kv_segment::{HeadOutputs, KvSegment};
use super::small_matmul::{View, product};
use super::tensor_slice;
use super::vector_math::{self, simd_dispatch};
use crate::model::compute::backend::Backend;
use crate::model::compute::heads::Heads;

/// Query rows (a token's heads that share a key head, token by token) of one block of work.
const BLOCK_ROWS: usize = 128;

/// The number of tokens after which the blocks of a segment begin, on every backend of the processor: a segment that is cut after a multiple of
/// it is processed in the same blocks. `group`: query heads that share a key head.
pub(crate) fn block_tokens(group: usize) -> usize {
    let of = |rows: usize| (rows / group.max(1)).max(1);
    let own = of(BLOCK_ROWS);
    #[cfg(target_arch = "x86_64")]
    {
        let amx = of(attention_prefill_amx::BLOCK_ROWS);
        let mut all = own;
        while all % amx != 0 {
            all += own;
        }
        all
    }
    #[cfg(not(target_arch = "x86_64"))]
    own
}

/// New tokens of a segment from which it is processed in blocks; shorter ones read keys and values in place.
pub(crate) const PREFILL_FROM: usize = 16;

/// Some new tokens of a segment under one key head, few enough that their scores stay in a core's cache.
struct Block<'a> {
    heads: Heads,
    key_head: usize,
    /// Range of tokens in the batch.
    tokens: Range<usize>,
    /// Position of its first token in the row.
    position: usize,
    /// The tokens of the segment that any of them attends to.
    seen: Range<usize>,
    keys: View<'a>,
    values: View<'a>,
    /// The score of each query head's sink.
    sinks: Option<&'a [f32]>,
}

impl<'a> Block<'a> {
    /// All blocks of a batch, by segment and key head.
    fn all<'b>(
        segments: impl Iterator<Item = &'b KvSegment<'a>>,
        heads: Heads,
        sinks: Option<&'a [f32]>,
    ) -> Vec<Block<'a>>
    where
        'a: 'b,
    {
        let many = (BLOCK_ROWS / heads.group_size()).max(1);
        let each = |segment: &KvSegment<'a>| {
            let (keys, values, tokens) = (segment.keys, segment.values, segment.tokens.clone());
            let held = keys.len() / (heads.keys * heads.width);
            let past = held - tokens.len();
            (0..heads.keys).flat_map(move |key_head| {
                let tokens = tokens.clone();
                tokens.clone().step_by(many).map(move |begin| {
                    let end = (begin + many).min(tokens.end);
                    let position = past + begin - tokens.start;
                    let last = heads.visible(position + end - begin - 1, held);
                    let seen = heads.visible(position, held).start..last.end;
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
                    Block { heads, key_head, tokens: begin..end, position, seen, keys, values, sinks }
                })
            })
        };
        segments.flat_map(each).collect()
    }

    fn rows(&self) -> usize {
        self.tokens.len() * self.heads.group_size()
    }

    /// Copies this block's part of `[tokens, query heads, head width]`.
    fn gather(&self, of: &[f32]) -> Vec<f32> {
        let mut part = Vec::with_capacity(self.rows() * self.heads.width);
        for place in self.ranges() {
            part.extend_from_slice(&of[place]);
        }
        part
    }

    /// Writes this block's part of `[tokens, query heads, head width]`.
    fn scatter(&self, part: &[f32], of: &mut [f32]) {
        let many = self.heads.group_size() * self.heads.width;
        for (place, part) in self.ranges().zip(part.chunks_exact(many)) {
            of[place].copy_from_slice(part);
        }
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let (many, row) = (self.heads.group_size() * self.heads.width, self.heads.queries * self.heads.width);
        let begin = self.key_head * many;
        self.tokens.clone().map(move |token| token * row + begin..token * row + begin + many)
    }

    /// The attention weights `[rows, seen]` of this block's queries.
    fn weights(&self, queries: &[f32]) -> Vec<f32> {
        let (heads, seen) = (self.heads, self.seen.len());
        let mut weights = vec![0f32; self.rows() * seen];
        let queries = View::new(queries, self.rows(), heads.width, heads.width);
        product(&mut weights, seen, queries, self.keys.transposed(), heads.scale, false);
        simd_dispatch!({
            for (slot, row) in weights.chunks_exact_mut(seen).enumerate() {
                let sink = self
                    .sinks
                    .map(|sinks| sinks[self.key_head * heads.group_size() + slot % heads.group_size()]);
                let sees = heads.visible(self.position + slot / heads.group_size(), self.seen.end);
                let sees = sees.start - self.seen.start..sees.end - self.seen.start;
                row[..sees.start].fill(0.0);
                row[sees.end..].fill(0.0);
                vector_math::softmax(&mut row[sees], heads.cap, sink);
            }
        });
        weights
    }
}

/// Outputs of attention, `[tokens, query heads, head width]`, flat. `queries`: `[tokens, query heads, head width]`, with the
/// rotary embedding applied, as in the keys. `sinks`: a score for each query head that takes its share of the attention weights and has
/// no value (gpt-oss).
pub fn attend(queries: &[f32], heads: Heads, sinks: Option<&[f32]>, segments: &[KvSegment]) -> Vec<f32> {
    let mut out = Vec::with_capacity(queries.len());
    let place = HeadOutputs::new(&mut out);
    let (few, many): (Vec<_>, Vec<_>) =
        segments.iter().partition(|segment| segment.tokens.len() < PREFILL_FROM);
    // SAFETY: the segments are the rows of the batch: each token is in exactly one.
    unsafe {
        attention_decode::attend(queries, heads, sinks, &few, place);
        match Backend::current() {
            #[cfg(target_arch = "x86_64")]
            Backend::Amx => attention_prefill_amx::attend(queries, heads, sinks, &many, place),
            _ => blocks(queries, heads, sinks, &many, place),
        }
        out.set_len(queries.len());
    }
    out
}

/// [`attend`] by f32 matrix products.
///
/// # Safety
/// `out` must have room for every token of the segments, and no other thread may write there.
unsafe fn blocks(
    queries: &[f32],
    heads: Heads,
    sinks: Option<&[f32]>,
    segments: &[&KvSegment],
    out: HeadOutputs,
) {
    let blocks = Block::all(segments.iter().copied(), heads, sinks);
    blocks.par_iter().for_each(|block| {
        let (width, seen) = (heads.width, block.seen.len());
        let weights = block.weights(&block.gather(queries));
        let mut part = vec![0f32; block.rows() * width];
        product(&mut part, width, View::new(&weights, block.rows(), seen, seen), block.values, 1.0, false);
        let many = heads.group_size() * width;
        for (place, part) in block.ranges().zip(part.chunks_exact(many)) {
            // SAFETY: `out` has the token's heads, and only this block writes them.
            unsafe { out.slice(place) }.copy_from_slice(part);
        }
    });
}

struct Attention {
    heads: Heads,
    sinks: Option<Arc<[f32]>>,
    rows: Vec<Range<usize>>,
}

/// Attention within each row of a batch of whole rows, without a cache.
/// `queries`: `[tokens, query heads, head width]`; `keys`, `values`: `[tokens, key heads, head width]`; f32. `rows`: the token
/// range of each row; `sinks`: as of [`attend`]. The result has the shape of `queries`.
pub(crate) fn attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    heads: Heads,
    sinks: Option<&Arc<[f32]>>,
    rows: Vec<Range<usize>>,
) -> Result<Tensor> {
    let operation = Attention { heads, sinks: sinks.cloned(), rows };
    queries.contiguous()?.apply_op3(&keys.contiguous()?, &values.contiguous()?, operation)
}

impl Attention {
    fn segments<'a>(&self, keys: &'a [f32], values: &'a [f32]) -> Vec<KvSegment<'a>> {
        let token = self.heads.keys * self.heads.width;
        let segment = |row: &Range<usize>| KvSegment {
            tokens: row.clone(),
            keys: &keys[row.start * token..row.end * token],
            values: &values[row.start * token..row.end * token],
        };
        self.rows.iter().map(segment).collect()
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
        let out = attend(queries, self.heads, self.sinks.as_deref(), &self.segments(keys, values));
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
            return Err(Error::Msg("attention with capped scores has no gradient on the CPU".into()));
        }
        let heads = self.heads;
        let width = heads.width;
        let (mut for_q, mut for_k, mut for_v) = (zeros(queries), zeros(keys), zeros(values));
        tensor_slice::with([queries, keys, values, out, gradient], |[q, k, v, out, gradient]| {
            let blocks = Block::all(self.segments(k, v).iter(), heads, self.sinks.as_deref());
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
                // Rows are whole: the block's segment begins at its position 0.
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
