//! Construction of what is around the blocks of models with several residual streams, and of the path beside attention.

use super::architecture;
use super::loader::{TensorSource, whole_tensor};
use super::streams::{AltUp, Laurel, Streams};
use crate::error::Result;
use crate::model::weights::TensorRef;

impl TensorSource<'_> {
    pub(super) fn streams(&mut self, shape: architecture::Streams) -> Result<Streams> {
        let width = self.architecture.width;
        let mut all = |name: &str| {
            let one = |number: usize| {
                self.linear(&format!("model.{name}.{number}"), width, false, whole_tensor(width))
            };
            (0..shape.count - 1).map(one).collect::<Result<Vec<_>>>()
        };
        Ok(Streams { into: all("altup_projections")?, from: all("altup_unembed_projections")? })
    }

    pub(super) fn alternating(&mut self, prefix: &str, shape: architecture::Streams) -> Result<AltUp> {
        let a = self.architecture;
        let count = shape.count;
        let name = |name: &str| format!("{prefix}altup.{name}");
        let scale = self.floats(&TensorRef::whole(name("correct_output_scale"), &[a.width]))?;
        Ok(AltUp {
            norm: self.norm_with(&name("router_norm"), a.width, a.norm_epsilon)?,
            router: self.linear(&name("modality_router"), a.width, false, whole_tensor(count))?,
            prediction: self.linear(&name("prediction_coefs"), count, false, whole_tensor(count * count))?,
            correction: self.linear(&name("correction_coefs"), count, false, whole_tensor(count))?,
            scale: shape.scaled.then_some(scale),
        })
    }

    pub(super) fn laurel(&mut self, prefix: &str, rank: usize) -> Result<Laurel> {
        let a = self.architecture;
        let name = |name: &str| format!("{prefix}laurel.{name}");
        Ok(Laurel {
            left: self.linear(&name("linear_left"), a.width, false, whole_tensor(rank))?,
            right: self.linear(&name("linear_right"), rank, false, whole_tensor(a.width))?,
            norm: self.norm_with(&name("post_laurel_norm"), a.width, a.norm_epsilon)?,
        })
    }
}
