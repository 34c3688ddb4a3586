//! Norms, activations, rotation and attention by candle's operations. Without a gradient, candle's fused kernels are used, which
//! record none.

use std::ops::Range;

use candle_core::{D, Result, Tensor};
use candle_nn::{ops, rotary_emb};

use crate::model::compute::activation::Activation;
use crate::model::compute::heads::Heads;

pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
    match x.track_op() || weight.track_op() {
        true => ops::rms_norm_slow(x, weight, epsilon),
        false => ops::rms_norm(&x.contiguous()?, weight, epsilon),
    }
}

pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    match x.track_op() || weight.track_op() || bias.track_op() {
        true => ops::layer_norm_slow(x, weight, bias, epsilon),
        false => ops::layer_norm(&x.contiguous()?, weight, bias, epsilon),
    }
}

pub(crate) fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
    }
}

/// `x`: `[tokens, heads, head width]`; `cosines` and `sines`: `[tokens, pairs]`.
pub(crate) fn rotate(x: &Tensor, [cosines, sines]: &[Tensor; 2]) -> Result<Tensor> {
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

/// The new tokens of one row, with all keys and values of that row, the new ones last.
pub struct KvSegment {
    /// Range of the new tokens in the batch.
    pub tokens: Range<usize>,
    /// `[past + new, key heads, head width]`.
    pub keys: Tensor,
    /// `[past + new, key heads, head width]`.
    pub values: Tensor,
}

/// New tokens of a row whose scores are in memory at once.
const TOKENS: usize = 256;

/// Outputs of attention, `[tokens, query heads, head width]`, the shape of `queries`. The segments are the batch's rows; `sinks`: a score
/// for each query head that takes its share of the weights and has no value (gpt-oss).
pub fn attend(
    queries: &Tensor,
    heads: Heads,
    sinks: Option<&[f32]>,
    segments: &[KvSegment],
) -> Result<Tensor> {
    let mut parts = Vec::new();
    let group = heads.group_size();
    let sinks = sinks.map(|sinks| Tensor::from_slice(sinks, (heads.keys, 1, group, 1), queries.device()));
    let sinks = sinks.transpose()?;
    for KvSegment { tokens, keys, values } in segments {
        let (held, [keys, values]) = (keys.dim(0)?, [keys, values].map(|side| side.transpose(0, 1)));
        let (keys, values, past) = (keys?, values?, held - tokens.len());
        for begin in tokens.clone().step_by(TOKENS) {
            let count = TOKENS.min(tokens.end - begin);
            let first = past + begin - tokens.start;
            let seen = heads.visible(first, held).start..heads.visible(first + count - 1, held).end;
            let part = |side: &Tensor| side.narrow(1, seen.start, seen.len())?.contiguous();
            let queries = queries.narrow(0, begin, count)?;
            parts.push(block(
                &queries,
                heads,
                sinks.as_ref(),
                [part(&keys)?, part(&values)?],
                first,
                &seen,
                held,
            )?);
        }
    }
    Tensor::cat(&parts, 0)
}

/// Attention of some tokens. `queries`: `[tokens, query heads, head width]`, the first at position `first`; keys and values of the
/// tokens `seen`: `[key heads, seen, head width]`.
fn block(
    queries: &Tensor,
    heads: Heads,
    sinks: Option<&Tensor>,
    [keys, values]: [Tensor; 2],
    first: usize,
    seen: &Range<usize>,
    held: usize,
) -> Result<Tensor> {
    let (count, group) = (queries.dim(0)?, heads.group_size());
    // The query heads of a key head are adjacent, and are multiplied with it together.
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
    if let Some(sinks) = sinks {
        let shape = (heads.keys, count, group, 1);
        let column = sinks.broadcast_as(shape)?.reshape((heads.keys, count * group, 1))?;
        scores = Tensor::cat(&[&scores, &column], D::Minus1)?;
    }
    let weights = match scores.track_op() {
        true => ops::softmax(&scores, D::Minus1)?,
        false => ops::softmax_last_dim(&scores)?,
    };
    let weights = match sinks {
        Some(_) => weights.narrow(D::Minus1, 0, seen.len())?.contiguous()?,
        None => weights,
    };
    let mixed = weights.matmul(&values)?.reshape((heads.keys, count, group, heads.width))?;
    mixed.transpose(0, 1)?.contiguous()?.reshape((count, heads.queries, heads.width))
}

/// The mask that is added to the scores; none if every token attends to all of `seen`.
fn hidden(heads: Heads, positions: Range<usize>, seen: &Range<usize>, held: usize) -> Option<Vec<f32>> {
    if positions.clone().all(|position| heads.visible(position, held) == *seen) {
        return None;
    }
    let row = |position: usize| {
        let sees = heads.visible(position, held);
        seen.clone().map(move |at| if sees.contains(&at) { 0.0 } else { f32::NEG_INFINITY })
    };
    Some(positions.flat_map(row).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;

    use super::*;
    use crate::model::compute::ops as compute;
    use crate::model::compute::rotary::Angles;

    fn random(shape: &[usize], seed: u64) -> Tensor {
        let count = shape.iter().product::<usize>() as u64;
        let numbers: Vec<f32> = (0..count).map(|i| ((i * 37 + seed * 101) as f32 * 0.61).sin()).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    fn agree(name: &str, found: Tensor, expected: Tensor) {
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let [found, expected]: [Vec<f32>; 2] =
            [found, expected].map(|tensor| tensor.flatten_all().unwrap().to_vec1().unwrap());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-5, "{name}: {found}, not {expected}");
        }
    }

    #[test]
    fn attention_agrees_with_ours_whatever_a_token_sees() {
        let plain = Heads::causal(6, 2, 8);
        let all = [
            ("causal", plain),
            ("window", Heads { window: Some(5), ..plain }),
            ("chunks", Heads { chunk: Some(7), ..plain }),
            ("cap", Heads { cap: Some(0.5), ..plain }),
            ("encoder", Heads { causal: false, ..plain }),
        ];
        // Rows shorter than a block of tokens, and longer.
        let rows = [0..1, 1..20, 20..20 + TOKENS + 30];
        let count = rows[2].end;
        let [queries, keys, values] = [([count, 6, 8], 1), ([count, 2, 8], 2), ([count, 2, 8], 3)]
            .map(|(shape, seed)| random(&shape, seed));
        for (name, heads) in all {
            let segment = |row: &Range<usize>| KvSegment {
                tokens: row.clone(),
                keys: keys.narrow(0, row.start, row.len()).unwrap(),
                values: values.narrow(0, row.start, row.len()).unwrap(),
            };
            let segments: Vec<KvSegment> = rows.iter().map(segment).collect();
            for sinks in [None, Some(Arc::from([0.2f32, -1.0, 2.0, 0.0, 0.7, 1.1]))] {
                let found = attend(&queries, heads, sinks.as_deref(), &segments).unwrap();
                let ours = compute::attention(&queries, &keys, &values, heads, sinks.as_ref(), rows.to_vec());
                agree(name, found, ours.unwrap());
            }
        }
    }

    #[test]
    fn norms_rotations_and_activations_agree_with_ours() {
        let (x, [weight, bias]) = (random(&[5, 12], 1), [2, 3].map(|seed| random(&[12], seed)));
        agree(
            "rms_norm",
            rms_norm(&x, &weight, 1e-5).unwrap(),
            compute::rms_norm(&x, &weight, 1e-5).unwrap(),
        );
        let ours = compute::layer_norm(&x, &weight, &bias, 1e-5).unwrap();
        agree("layer_norm", layer_norm(&x, &weight, &bias, 1e-5).unwrap(), ours);
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            let ours = compute::activate(&x, activation).unwrap();
            agree("activate", activate(&x, activation).unwrap(), ours);
        }
        // The first eight elements of each head rotate, the last four don't; with a gradient and without.
        let frequencies = vec![1.0, 0.5, 0.1, 0.03];
        let angles = Angles::new((3..8).map(|position| (position, 0)), &[(frequencies, 1.2)]);
        let heads = random(&[5, 3, 12], 4);
        let tensors = angles.tensors(&Device::Cpu).unwrap();
        let ours = compute::rotate(&heads, &angles).unwrap();
        let traced = candle_core::Var::from_tensor(&heads).unwrap();
        agree("rotate", rotate(&heads, tensors).unwrap(), ours.clone());
        agree("rotate", rotate(&traced, tensors).unwrap(), ours);
    }
}
