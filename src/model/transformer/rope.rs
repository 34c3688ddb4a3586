//! Frequencies of rotary position embedding (Su et al., RoFormer, arXiv 2104.09864), with the scalings of long-context configs.

use std::f64::consts::PI;

/// A rotary embedding. The two halves of a head's rotated part form the pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies (θ).
    pub base: f64,
    /// Rotated elements of a head, from the first on; the others stay unchanged.
    pub width: usize,
    /// Frequency scaling.
    pub scaling: Scaling,
}

/// Frequency scaling for contexts longer than those of pre-training.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Unscaled.
    None,
    /// Every frequency divided by the factor.
    Linear {
        /// Divisor of the frequencies.
        factor: f64,
    },
    /// A base that grows with the sequence beyond the context ("NTK-aware").
    Dynamic {
        /// Growth factor.
        factor: f64,
        /// Context length in tokens.
        context: f64,
    },
    /// YaRN: low frequencies divided, high ones kept, those between blended (Peng et al., arXiv 2309.00071).
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns within the original context from which a frequency is kept.
        fast: f64,
        /// Turns within the original context up to which a frequency is divided.
        slow: f64,
        /// Context length of pre-training, in tokens.
        original_context: f64,
        /// Whether the ends of the blend are rounded to whole pairs.
        truncate: bool,
        /// Factor of cosine and sine.
        attention: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, those between blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns within the original context up to which a frequency is divided.
        low: f64,
        /// Turns within the original context from which a frequency is kept.
        high: f64,
        /// Context length of pre-training, in tokens.
        original_context: f64,
    },
    /// Frequencies of whole heads, of which all but the first pairs stand still (Gemma 4).
    Proportional {
        /// Pairs that turn.
        turning: usize,
        /// Divisor of their frequencies.
        factor: f64,
    },
    /// LongRoPE: a factor per pair, in one list for sequences within the original context and one for longer ones (Ding et al.,
    /// arXiv 2402.13753).
    Long {
        /// Divisors within the original context, one per pair.
        short: Vec<f64>,
        /// Divisors beyond it, one per pair.
        long: Vec<f64>,
        /// Context length of pre-training, in tokens.
        original_context: usize,
        /// Factors of cosine and sine within the original context and beyond it.
        attention: [f64; 2],
    },
}

impl Rope {
    /// Radians per position of each rotated pair, in a sequence of `length` tokens.
    pub fn frequencies(&self, length: usize) -> Vec<f64> {
        let width = self.width as f64;
        let mut base = self.base;
        if let Scaling::Dynamic { factor, context } = self.scaling {
            let stretch = factor * (length as f64).max(context) / context - (factor - 1.0);
            base *= stretch.powf(width / (width - 2.0));
        }
        let plain = |pair: usize| base.powf(-2.0 * pair as f64 / width);
        (0..self.width / 2).map(|pair| self.scaled(pair, plain(pair), length)).collect()
    }

    /// Whether the frequencies depend on the sequence length.
    pub fn depends_on_length(&self) -> bool {
        matches!(self.scaling, Scaling::Dynamic { .. } | Scaling::Long { .. })
    }

    /// Whether growing from `held` tokens to `length` changes the frequencies once and for all, so that cached keys must be computed
    /// anew. (Dynamic scaling changes with every token; cached keys then keep their angles, as in transformers.)
    pub fn changes(&self, held: usize, length: usize) -> bool {
        match self.scaling {
            Scaling::Long { original_context, .. } => {
                (1..=original_context).contains(&held) && length > original_context
            }
            _ => false,
        }
    }

    /// Factor of cosine and sine, in a sequence of `length` tokens.
    pub fn attention(&self, length: usize) -> f64 {
        match self.scaling {
            Scaling::Yarn { attention, .. } => attention,
            Scaling::Long { attention: [within, beyond], original_context, .. } => {
                if length > original_context { beyond } else { within }
            }
            _ => 1.0,
        }
    }

    fn scaled(&self, pair: usize, frequency: f64, length: usize) -> f64 {
        match &self.scaling {
            Scaling::None | Scaling::Dynamic { .. } => frequency,
            Scaling::Linear { factor } => frequency / factor,
            &Scaling::Proportional { turning, factor } => {
                if pair < turning {
                    frequency / factor
                } else {
                    0.0
                }
            }
            &Scaling::Yarn { factor, fast, slow, original_context, truncate, .. } => {
                let width = self.width as f64;
                // The pair that makes so many turns in the original context.
                let pair_of = |turns: f64| {
                    width * (original_context / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln())
                };
                let (mut low, mut high) = (pair_of(fast), pair_of(slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(width - 1.0));
                if low == high {
                    high += 0.001;
                }
                let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * divided + frequency * (1.0 - divided)
            }
            &Scaling::Llama3 { factor, low, high, original_context } => {
                let turns = original_context * frequency / (2.0 * PI);
                if turns < low {
                    frequency / factor
                } else if turns > high {
                    frequency
                } else {
                    let blend = (turns - low) / (high - low);
                    frequency * (blend + (1.0 - blend) / factor)
                }
            }
            Scaling::Long { short, long, original_context, .. } => {
                let factors = if length > *original_context { long } else { short };
                frequency / factors.get(pair).copied().unwrap_or(1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(width: usize, scaling: Scaling) -> Rope {
        Rope { base: 10_000.0, width, scaling }
    }

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let rope = rope(8, Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 64.0 });
        assert_eq!(rope.scaled(0, 1.0, 1), 1.0);
        assert_eq!(rope.scaled(0, 0.01, 1), 0.01 / 8.0);
        // Half-way between one and four turns in 64 positions: the mean of kept and divided.
        let middle = 2.5 * 2.0 * PI / 64.0;
        assert!((rope.scaled(0, middle, 1) - middle * (0.5 + 0.5 / 8.0)).abs() < 1e-12);
    }

    #[test]
    fn what_depends_on_length_changes_past_the_context_only() {
        let dynamic = rope(8, Scaling::Dynamic { factor: 2.0, context: 16.0 });
        assert_eq!(dynamic.frequencies(16), rope(8, Scaling::None).frequencies(1));
        assert!(dynamic.frequencies(32)[3] < dynamic.frequencies(16)[3]);
        let lists = (vec![1.0; 4], vec![4.0; 4]);
        let long = Scaling::Long { short: lists.0, long: lists.1, original_context: 16, attention: [1.0; 2] };
        let long = rope(8, long);
        assert_eq!(long.frequencies(16)[0], 1.0);
        assert_eq!(long.frequencies(17)[0], 0.25);
    }
}
