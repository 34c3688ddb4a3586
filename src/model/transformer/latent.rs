//! Latent attention (DeepSeek-V2, arXiv 2405.04434): queries, keys and values from narrow vectors. Keys and values are expanded before
//! they are cached; attention itself is the usual one, over heads whose first elements are rotated.

use candle_core::{Result, Tensor};

use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::compute::{Heads, Input};

/// The projections through narrow vectors.
pub(crate) struct Latent {
    /// To the vector that queries are projected from, and its norm.
    pub query_down: Option<(Linear, Norm)>,
    /// To the vector that keys and values are projected from, then the rotated part of the keys, `[rank + rotated, width]`.
    pub down: Linear,
    /// Norm of the first of the two.
    pub norm: Norm,
    /// Unrotated elements of all keys, `[heads × plain, rank]`.
    pub key: Linear,
    /// `[heads × value width, rank]`
    pub value: Linear,
}

impl Latent {
    /// Queries, keys and values, `[tokens, heads × head width]` each; the last elements of a head's values are 0.
    pub fn forward(&self, query: &Linear, x: &Input, heads: Heads) -> Result<[Tensor; 3]> {
        let (query, both) = match &self.query_down {
            Some((down, norm)) => {
                let [narrow, both] = Linear::forward_all([down, &self.down], x)?;
                (query.forward(&norm.forward(&narrow)?)?, both)
            }
            None => Linear::forward_all([query, &self.down], x)?.into(),
        };
        let (count, all) = both.dims2()?;
        let rank = self.norm.width();
        let narrow = self.norm.forward(&both.narrow(1, 0, rank)?.contiguous()?)?;
        let [plain, value] = Linear::forward_all([&self.key, &self.value], &(&narrow).into())?;
        let shared = both.narrow(1, rank, all - rank)?.unsqueeze(1)?;
        let shared = shared.broadcast_as((count, heads.keys, all - rank))?;
        let key = Tensor::cat(&[&shared, &plain.reshape((count, heads.keys, ()))?], 2)?;
        let value = value.reshape((count, heads.keys, ()))?;
        let missing = heads.width - value.dim(2)?;
        let value = value.pad_with_zeros(2, 0, missing)?;
        let flat = |heads_of: Tensor| heads_of.contiguous()?.reshape((count, heads.keys * heads.width));
        Ok([query, flat(key)?, flat(value)?])
    }
}
