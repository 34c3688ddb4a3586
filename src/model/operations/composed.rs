//! The same operations, composed of candle's own: they run wherever a tensor lies, and leave a trace for gradients.
//! Where no gradient is asked for, candle's fused forms are used, which leave none.

use std::ops::Range;

use candle_core::{D, Result, Tensor};
use candle_nn::{ops, rotary_emb};

use super::activation::Activation;
use super::attention::Heads;

pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    match x.track_op() || weight.track_op() {
        true => ops::rms_norm_slow(x, weight, epsilon),
        false => ops::rms_norm(&x.contiguous()?, weight, epsilon),
    }
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    match x.track_op() || weight.track_op() || bias.track_op() {
        true => ops::layer_norm_slow(x, weight, bias, epsilon),
        false => ops::layer_norm(&x.contiguous()?, weight, bias, epsilon),
    }
}

pub(super) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
    }
}

/// `x`: `[tokens, heads, head width]`; `cosines` and `sines`: `[tokens, pairs]`.
pub(super) fn rotate(x: &Tensor, [cosines, sines]: &[Tensor; 2]) -> Result<Tensor> {
    let (width, turned) = (x.dim(D::Minus1)?, 2 * cosines.dim(1)?);
    let first = x.narrow(D::Minus1, 0, turned)?;
    let first = match x.track_op() {
        true => {
            let heads = first.transpose(0, 1)?.contiguous()?.unsqueeze(0)?;
            rotary_emb::rope_slow(&heads, cosines, sines)?.squeeze(0)?.transpose(0, 1)?
        }
        false => rotary_emb::rope_thd(&first.contiguous()?.unsqueeze(0)?, cosines, sines)?.squeeze(0)?,
    };
    match width - turned {
        0 => Ok(first),
        rest => Tensor::cat(&[&first, &x.narrow(D::Minus1, turned, rest)?], D::Minus1),
    }
}

/// The new tokens of one row, and all keys and values of that row, the new ones last.
pub struct Stretch {
    /// Where the new tokens stand among the batch's.
    pub tokens: Range<usize>,
    /// `[past + new, key heads, head width]`.
    pub keys: Tensor,
    pub values: Tensor,
}

/// New tokens of a row that are worked on at once: their scores are all that stands in memory.
const TOKENS: usize = 256;

/// The heads' outputs, in the queries' shape, `[tokens, query heads, head width]`; the stretches are the batch's rows.
pub fn attend(queries: &Tensor, heads: Heads, stretches: &[Stretch]) -> Result<Tensor> {
    let mut parts = Vec::new();
    for Stretch { tokens, keys, values } in stretches {
        let (held, [keys, values]) = (keys.dim(0)?, [keys, values].map(|side| side.transpose(0, 1)));
        let (keys, values, past) = (keys?, values?, held - tokens.len());
        for begin in tokens.clone().step_by(TOKENS) {
            let count = TOKENS.min(tokens.end - begin);
            let first = past + begin - tokens.start;
            let seen = heads.seen(first, held).start..heads.seen(first + count - 1, held).end;
            let part = |side: &Tensor| side.narrow(1, seen.start, seen.len())?.contiguous();
            let queries = queries.narrow(0, begin, count)?;
            parts.push(block(&queries, heads, [part(&keys)?, part(&values)?], first, &seen, held)?);
        }
    }
    Tensor::cat(&parts, 0)
}

/// `queries`: `[tokens, query heads, head width]`, the first of them at position `first`; keys and values of what any of
/// them sees: `[key heads, seen, head width]`.
fn block(
    queries: &Tensor,
    heads: Heads,
    [keys, values]: [Tensor; 2],
    first: usize,
    seen: &Range<usize>,
    held: usize,
) -> Result<Tensor> {
    let (count, group) = (queries.dim(0)?, heads.group());
    // The query heads of a key head stand beside each other, and are multiplied with it together.
    let queries = queries.reshape((count, heads.keys, group, heads.width))?.transpose(0, 1)?.contiguous()?;
    let queries = queries.reshape((heads.keys, count * group, heads.width))?;
    let mut scores = (queries.matmul(&keys.t()?)? * heads.scale as f64)?;
    if let Some(cap) = heads.cap {
        scores = ((scores / cap as f64)?.tanh()? * cap as f64)?;
    }
    if let Some(hidden) = hidden(heads, first..first + count, seen, held) {
        let hidden = Tensor::from_vec(hidden, (1, count, 1, seen.len()), scores.device())?;
        let apart = scores.reshape((heads.keys, count, group, seen.len()))?;
        scores = apart.broadcast_add(&hidden)?.reshape(scores.shape())?;
    }
    let weights = match scores.track_op() {
        true => ops::softmax(&scores, D::Minus1)?,
        false => ops::softmax_last_dim(&scores)?,
    };
    let mixed = weights.matmul(&values)?.reshape((heads.keys, count, group, heads.width))?;
    mixed.transpose(0, 1)?.contiguous()?.reshape((count, heads.queries, heads.width))
}

/// What is added to the scores of each token so that it sees only what it should; nothing where all see all.
fn hidden(heads: Heads, positions: Range<usize>, seen: &Range<usize>, held: usize) -> Option<Vec<f32>> {
    if positions.clone().all(|position| heads.seen(position, held) == *seen) {
        return None;
    }
    let row = |position: usize| {
        let sees = heads.seen(position, held);
        seen.clone().map(move |at| if sees.contains(&at) { 0.0 } else { f32::NEG_INFINITY })
    };
    Some(positions.flat_map(row).collect())
}
