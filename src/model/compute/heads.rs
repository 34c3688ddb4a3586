//! The shape of an attention layer and the tokens that each query sees.

use std::ops::Range;

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
    pub round_to_bf16: bool,
}

impl Heads {
    /// Causal heads that see all that came before, scores scaled by `1/√width`.
    pub fn causal(queries: usize, keys: usize, width: usize) -> Heads {
        let scale = 1.0 / (width as f32).sqrt();
        Heads { queries, keys, width, scale, causal: true, window: None, cap: None, round_to_bf16: false }
    }

    pub(crate) fn group_size(&self) -> usize {
        self.queries / self.keys
    }

    /// The tokens that the one at `position` sees, in a row that holds `held`.
    pub(crate) fn visible(&self, position: usize, held: usize) -> Range<usize> {
        let end = if self.causal { position + 1 } else { held };
        let begin = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        begin..end
    }
}
