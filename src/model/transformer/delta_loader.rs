//! Construction of a gated delta net: which rows of which tensors its projections are.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::architecture;
use super::delta_net::DeltaNet;
use super::loader::{RowRanges, TensorSource, whole_tensor};
use crate::error::Result;
use crate::model::compute::backend::to_compute_device;
use crate::model::compute::delta_rule::{DeltaShape, DeltaWeights};
use crate::model::compute::linear::Linear;
use crate::model::weights::TensorRef;

/// Prefix of its tensors in a block.
const PREFIX: &str = "linear_attn.";

impl TensorSource<'_> {
    pub(super) fn delta_net(&mut self, prefix: &str, delta: architecture::DeltaNet) -> Result<DeltaNet> {
        let a = self.architecture;
        let shape = delta.shape;
        let prefix = format!("{prefix}{PREFIX}");
        let [mixed, gate, rate, step] = match delta.fused {
            true => self.fused_projections(&prefix, shape)?,
            false => {
                let mut linear = |name: &str, outputs: usize| {
                    self.linear(&format!("{prefix}{name}"), a.width, false, whole_tensor(outputs))
                };
                [
                    linear("in_proj_qkv", shape.channels())?,
                    linear("in_proj_z", shape.values_width())?,
                    linear("in_proj_b", shape.values)?,
                    linear("in_proj_a", shape.values)?,
                ]
            }
        };
        let mut floats = |name: &str, dims: &[usize]| -> Result<Vec<f32>> {
            let place = TensorRef::whole(format!("{prefix}{name}"), dims);
            Ok((self.take)(&place)?.floats()?.flatten_all()?.to_vec1()?)
        };
        let channels = shape.channels();
        let filter = floats("conv1d.weight", &[channels, 1, shape.span])?;
        let turned = |at: usize| filter[at % channels * shape.span + at / channels];
        let weights = DeltaWeights {
            filter: (0..filter.len()).map(turned).collect(),
            decay: floats("A_log", &[shape.values])?.into_iter().map(|x| -x.exp()).collect(),
            step_bias: floats("dt_bias", &[shape.values])?,
            norm: floats("norm.weight", &[shape.value_width])?,
            epsilon: a.norm_epsilon as f32,
            activation: a.activation,
        };
        let output =
            self.linear(&format!("{prefix}out_proj"), shape.values_width(), false, whole_tensor(a.width))?;
        let order = match delta.tiled {
            true => {
                let order: Vec<u32> = shape.tiled().map(|column| column as u32).collect();
                Some(to_compute_device(&Tensor::new(order, &Device::Cpu)?)?)
            }
            false => None,
        };
        Ok(DeltaNet { shape, mixed, gate, rate, step, weights, output, order })
    }

    /// Two tensors hold the projections, key head by key head: query, key, values and gates; rates and steps.
    fn fused_projections(&mut self, prefix: &str, shape: DeltaShape) -> Result<[Linear; 4]> {
        let width = self.architecture.width;
        let DeltaShape { keys, key_width, .. } = shape;
        let (values, heads) = (shape.values_width() / keys, shape.values / keys);
        let rows = |stride: usize, begin: usize, count: usize| {
            (0..keys).map(move |head| head * stride + begin..head * stride + begin + count)
        };
        let both = 2 * key_width + 2 * values;
        let of_each = |begin: usize, count: usize| rows(both, begin, count);
        let mixed: Vec<Range<usize>> = of_each(0, key_width)
            .chain(of_each(key_width, key_width))
            .chain(of_each(2 * key_width, values))
            .collect();
        let gate = of_each(2 * key_width + values, values).collect();
        let (rate, step) = (rows(2 * heads, 0, heads).collect(), rows(2 * heads, heads, heads).collect());
        let mut linear = |name: &str, total: usize, rows: Vec<Range<usize>>| {
            self.linear(&format!("{prefix}{name}"), width, false, RowRanges { total, rows })
        };
        Ok([
            linear("in_proj_qkvz", keys * both, mixed)?,
            linear("in_proj_qkvz", keys * both, gate)?,
            linear("in_proj_ba", 2 * shape.values, rate)?,
            linear("in_proj_ba", 2 * shape.values, step)?,
        ])
    }
}
