//! Residual streams that predict and correct each other (AltUp, Baykal et al., arXiv 2301.13310), and a linear path beside attention
//! (LAuReL, Menghani et al., arXiv 2411.07501), as Gemma 3n has them. The first stream is the one that blocks compute on.

use candle_core::{Result, Tensor};

use crate::model::compute::linear::Linear;
use crate::model::compute::norm::Norm;

/// Least mean square of a stream that is scaled.
const SMALLEST: f64 = 1e-5;

/// The streams at both ends of the model.
pub(crate) struct Streams {
    /// From the embedding to each further stream.
    pub into: Vec<Linear>,
    /// From each further stream to the first.
    pub from: Vec<Linear>,
}

impl Streams {
    /// The streams after the first, `x`, each as long as it.
    pub fn begin(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let length = length(x, 0.0)?;
        self.into.iter().map(|linear| scaled(linear.forward(x)?, &length)).collect()
    }

    /// The mean of all streams, each as long as the first, `x`.
    pub fn end(&self, x: Tensor, others: &[Tensor]) -> Result<Tensor> {
        let length = length(&x, 0.0)?;
        let mut sum = x;
        for (linear, other) in self.from.iter().zip(others) {
            sum = (sum + scaled(linear.forward(other)?, &length)?)?;
        }
        sum / (1 + self.from.len()) as f64
    }
}

/// The root mean square of each token, `[tokens, 1]`.
fn length(x: &Tensor, smallest: f64) -> Result<Tensor> {
    x.sqr()?.mean_keepdim(1)?.maximum(smallest)?.sqrt()
}

fn scaled(x: Tensor, to: &Tensor) -> Result<Tensor> {
    let factor = (to / length(&x, SMALLEST)?)?;
    x.broadcast_mul(&factor)
}

/// Prediction and correction of the streams around one block.
pub(crate) struct AltUp {
    /// Of the stream that the router reads.
    pub norm: Norm,
    /// `[streams, width]`
    pub router: Linear,
    /// `[streams², streams]`
    pub prediction: Linear,
    /// `[streams, streams]`
    pub correction: Linear,
    /// Factor `[width]` of the corrected first stream where it gates what is read of the token.
    pub scale: Option<Tensor>,
}

impl AltUp {
    fn modalities(&self, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(1)? as f64;
        self.router.forward(&(self.norm.forward(x)? / width)?)?.tanh()
    }

    /// Predictions of all streams: the first, and the others.
    pub fn predict(&self, x: &Tensor, others: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let factors = self.prediction.forward(&self.modalities(x)?)?;
        let all: Vec<&Tensor> = std::iter::once(x).chain(others).collect();
        let predicted = |stream: usize| -> Result<Tensor> {
            let mut sum = all[stream].clone();
            for (at, other) in all.iter().enumerate() {
                let factor = factors.narrow(1, stream * all.len() + at, 1)?;
                sum = (sum + other.broadcast_mul(&factor)?)?;
            }
            Ok(sum)
        };
        let others = (1..all.len()).map(predicted).collect::<Result<_>>()?;
        Ok((predicted(0)?, others))
    }

    /// All streams after the block has made `made` of the first: the first, and the others.
    pub fn correct(&self, made: &Tensor, first: &Tensor, others: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let factors = (self.correction.forward(&self.modalities(made)?)? + 1.0)?;
        let news = (made - first)?;
        let corrected =
            |(at, stream): (usize, &Tensor)| stream + news.broadcast_mul(&factors.narrow(1, at, 1)?)?;
        let others = others
            .iter()
            .enumerate()
            .map(|(at, stream)| corrected((at + 1, stream)))
            .collect::<Result<_>>()?;
        Ok((corrected((0, first))?, others))
    }

    /// The corrected first stream, as it gates what is read of the token.
    pub fn gating(&self, x: &Tensor) -> Result<Tensor> {
        match &self.scale {
            Some(scale) => x.broadcast_mul(scale),
            None => Ok(x.clone()),
        }
    }
}

/// A linear path of low rank beside attention.
pub(crate) struct Laurel {
    /// `[rank, width]`
    pub left: Linear,
    /// `[width, rank]`
    pub right: Linear,
    pub norm: Norm,
}

impl Laurel {
    /// `x`: the normed stream that attention reads.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x + self.norm.forward(&self.right.forward(&self.left.forward(x)?)?)?
    }
}
