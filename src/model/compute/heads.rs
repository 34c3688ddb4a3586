//! The shape of an attention layer, and which tokens each query attends to.

use std::ops::Range;

/// The heads of an attention layer, with grouped keys and values (Ainslie et al., arXiv 2305.13245).
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; divides `queries`.
    pub keys: usize,
    /// Width of one head.
    pub width: usize,
    /// Factor of the scores `q · k`.
    pub scale: f32,
    /// Causal mask: a token attends to itself and earlier tokens. Encoders (`false`) attend to the whole row.
    pub causal: bool,
    /// Sliding window: tokens that a token attends to, itself included (Mistral, arXiv 2310.06825).
    pub window: Option<usize>,
    /// Chunks of so many tokens: a token attends to those of its own chunk (Llama 4).
    pub chunk: Option<usize>,
    /// Soft cap of the scores: `cap · tanh(score / cap)` (Gemma 2, arXiv 2408.00118).
    pub cap: Option<f32>,
    /// With AMX: multiply single bf16 parts. The projections that made the inputs rounded theirs too, so two parts gain nothing.
    pub round_to_bf16: bool,
}

impl Heads {
    /// Causal heads without a window, scores scaled by `1/√width`.
    pub fn causal(queries: usize, keys: usize, width: usize) -> Heads {
        let scale = 1.0 / (width as f32).sqrt();
        Heads {
            queries,
            keys,
            width,
            scale,
            causal: true,
            window: None,
            chunk: None,
            cap: None,
            round_to_bf16: false,
        }
    }

    pub(crate) fn group_size(&self) -> usize {
        self.queries / self.keys
    }

    /// The tokens that the one at `position` attends to, in a row of `held` tokens.
    pub(crate) fn visible(&self, position: usize, held: usize) -> Range<usize> {
        let end = if self.causal { position + 1 } else { held };
        let begin = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let chunk = self.chunk.map_or(0, |chunk| position / chunk * chunk);
        begin.max(chunk)..end
    }
}
