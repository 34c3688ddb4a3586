//! What differs between model families, as data: the decoder reads it and nothing else.
//! It knows nothing of files or tensors.

/// The shape and the choices of one decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// `model_type` of the config.
    pub family: String,
    /// Width of the residual stream.
    pub width: usize,
    pub blocks: usize,
    pub heads: usize,
    /// Heads that keys and values have; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of one head; not always `width / heads`.
    pub head_width: usize,
    /// Width inside the MLP.
    pub hidden: usize,
    pub vocabulary: usize,
    /// Longest sequence that the model was made for, in tokens.
    pub context: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f64,
    /// An RMS norm over each head's query and key, before the rotation (Qwen3).
    pub query_key_norm: bool,
    /// The query, key and value projections have a bias.
    pub query_key_value_bias: bool,
    /// The attention's output projection has a bias.
    pub output_bias: bool,
    /// The MLP's projections have a bias.
    pub mlp_bias: bool,
    pub rope: Rope,
    /// The vocabulary product uses the embedding's matrix.
    pub tied: bool,
    pub names: Names,
}

/// Rotary position embedding (Su et al., RoFormer, arXiv 2104.09864), halves rotated against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub base: f64,
    pub scaling: Scaling,
}

/// How the rotation's frequencies are changed for contexts longer than those of the first training.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    None,
    /// Every frequency divided by the factor.
    Linear {
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided, high ones kept, those between blended.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original_context: f64,
    },
}

impl Rope {
    /// Radians a position, for each of the `head_width / 2` rotated pairs.
    pub fn frequencies(&self, head_width: usize) -> Vec<f64> {
        (0..head_width / 2)
            .map(|pair| {
                let plain = self.base.powf(-2.0 * pair as f64 / head_width as f64);
                self.scaling.apply(plain)
            })
            .collect()
    }
}

impl Scaling {
    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 {
                factor,
                low,
                high,
                original_context,
            } => {
                let turns = original_context * frequency / (2.0 * std::f64::consts::PI);
                if turns < low {
                    frequency / factor
                } else if turns > high {
                    frequency
                } else {
                    let blend = (turns - low) / (high - low);
                    frequency * (blend + (1.0 - blend) / factor)
                }
            }
        }
    }
}

/// Where each tensor is found in a checkpoint. Names inside a block come after `block` and its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Names {
    pub embed: &'static str,
    pub block: &'static str,
    pub attention_norm: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub query_norm: &'static str,
    pub key_norm: &'static str,
    pub output: &'static str,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub norm: &'static str,
    pub head: &'static str,
}

impl Architecture {
    /// Number of weights, embeddings counted once where they are tied.
    pub fn parameters(&self) -> usize {
        let (query, key) = (self.heads * self.head_width, self.kv_heads * self.head_width);
        let bias = |is: bool, count: usize| if is { count } else { 0 };
        let attention = self.width * (2 * query + 2 * key)
            + bias(self.query_key_norm, 2 * self.head_width)
            + bias(self.query_key_value_bias, query + 2 * key)
            + bias(self.output_bias, self.width);
        let mlp = 3 * self.width * self.hidden + bias(self.mlp_bias, 2 * self.hidden + self.width);
        let embeddings = self.vocabulary * self.width * if self.tied { 1 } else { 2 };
        self.blocks * (attention + mlp + 2 * self.width) + embeddings + self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let scaling = Scaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original_context: 64.0,
        };
        assert_eq!(scaling.apply(1.0), 1.0);
        assert_eq!(scaling.apply(0.01), 0.01 / 8.0);
        // Half-way between one and four turns in 64 positions: the mean of kept and divided.
        let middle = 2.5 * 2.0 * std::f64::consts::PI / 64.0;
        assert!((scaling.apply(middle) - middle * (0.5 + 0.5 / 8.0)).abs() < 1e-12);
    }
}
