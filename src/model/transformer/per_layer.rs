//! Embeddings of tokens that each block reads for itself (Gemma 3n and 4): of the token alone, and a projection of its embedding in the
//! stream.

use candle_core::{Result, Tensor};

use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;
use crate::model::token::Token;

/// The layers of the embeddings of all blocks.
pub(crate) struct PerLayerEmbed {
    /// Its number of embeddings, beyond which tokens have the first one's.
    pub vocabulary: usize,
    /// `[vocabulary, blocks × read width]`
    pub words: Linear,
    /// From the stream, `[blocks × read width, width]`.
    pub projection: Linear,
    /// Of what one block reads of the projection.
    pub norm: Norm,
}

impl PerLayerEmbed {
    /// What the blocks read, `[tokens, blocks × read width]`; `x`: the stream that enters the first, `[tokens, width]`.
    pub fn forward(&self, tokens: &[Token], x: &Tensor) -> Result<Tensor> {
        let ids: Vec<u32> = tokens
            .iter()
            .map(|token| if (token.id as usize) < self.vocabulary { token.id } else { 0 })
            .collect();
        let own = (self.words.rows(&ids)? * (self.norm.width() as f64).sqrt())?;
        let projected = (self.projection.forward(x)? * (x.dim(1)? as f64).powf(-0.5))?;
        let shape = projected.dims2()?;
        let normed = self.norm.forward(&projected.reshape(((), self.norm.width()))?)?.reshape(shape)?;
        (normed + own)? * 0.5f64.sqrt()
    }
}
