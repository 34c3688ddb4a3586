//! Hidden Markov model of a dialogue: two states, calm and attack, over symbols of what was read in a round. Fitted by Baum–Welch with
//! the calm state given by dialogues that are known to be calm.

use serde::{Deserialize, Serialize};

/// Symbols of a reading: four grades of risk, with and without a likely refusal.
pub const SYMBOLS: usize = 8;

/// A model of two states: 0 calm, 1 attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HiddenMarkov {
    /// Probability of the attack state in the first round.
    pub start: f64,
    /// Probability of a step from calm to attack. An attack goes on.
    pub step: f64,
    /// `[states][symbols]`: probability of each symbol.
    pub emissions: [[f64; SYMBOLS]; 2],
}

/// Passes of expectation and maximisation.
const PASSES: usize = 30;

impl HiddenMarkov {
    /// Fits the model on symbols of calm dialogues and of dialogues with an attack, which may begin in any round. Every symbol counts
    /// once more in each state than it was seen.
    pub fn fit(calm: &[Vec<usize>], attack: &[Vec<usize>]) -> HiddenMarkov {
        let mut counts = [1.0; SYMBOLS];
        calm.iter().flatten().for_each(|&symbol| counts[symbol] += 1.0);
        let mut model = HiddenMarkov {
            start: 0.2,
            step: 0.2,
            emissions: [normalised(counts), [1.0 / SYMBOLS as f64; SYMBOLS]],
        };
        // The attack state begins as what dialogues with an attack show more often than calm ones do.
        let mut more = [1.0; SYMBOLS];
        attack.iter().flatten().for_each(|&symbol| more[symbol] += 1.0);
        let shares = normalised(more);
        model.emissions[1] =
            normalised(std::array::from_fn(|symbol| shares[symbol].powi(2) / model.emissions[0][symbol]));
        for _ in 0..PASSES {
            model = model.improved(attack);
        }
        model
    }

    /// One pass over dialogues with an attack; the calm emissions stay.
    fn improved(&self, attack: &[Vec<usize>]) -> HiddenMarkov {
        let (mut begun, mut steps, mut calm, mut counts) = (1.0, 1.0, 2.0, [1.0; SYMBOLS]);
        for symbols in attack.iter().filter(|symbols| !symbols.is_empty()) {
            // The attack begins in one round or in none: as many paths as rounds and one.
            let paths: Vec<f64> = (0..=symbols.len()).map(|begin| self.path(symbols, begin)).collect();
            let sum: f64 = paths.iter().sum();
            for (begin, path) in paths.iter().enumerate() {
                let share = if sum > 0.0 { path / sum } else { 0.0 };
                begun += if begin == 0 { share } else { 0.0 };
                steps += if begin > 0 && begin < symbols.len() { share } else { 0.0 };
                // Calm rounds that a step leads out of, whether it is taken or not.
                calm += share * begin.min(symbols.len() - 1) as f64;
                symbols[begin..].iter().for_each(|&symbol| counts[symbol] += share);
            }
        }
        HiddenMarkov {
            start: (begun / (attack.len() as f64 + 2.0)).clamp(1e-3, 0.999),
            step: (steps / calm.max(steps + 1.0)).clamp(1e-3, 0.999),
            emissions: [self.emissions[0], normalised(counts)],
        }
    }

    /// Probability of the symbols and of an attack from round `begin` on (from 0; none where it is their number).
    fn path(&self, symbols: &[usize], begin: usize) -> f64 {
        let hidden = match begin {
            0 => self.start,
            _ => {
                let waited = (1.0 - self.step).powi(begin.min(symbols.len()) as i32 - 1);
                (1.0 - self.start) * waited * if begin < symbols.len() { self.step } else { 1.0 }
            }
        };
        let shown = |(round, &symbol): (usize, &usize)| self.emissions[usize::from(round >= begin)][symbol];
        hidden * symbols.iter().enumerate().map(shown).product::<f64>()
    }

    /// Probability of an attack after each round, given what was read up to it (the forward algorithm).
    pub fn filter(&self, symbols: &[usize]) -> Vec<f64> {
        let mut attack = None;
        let mut filtered = Vec::with_capacity(symbols.len());
        for &symbol in symbols {
            let before = attack.map_or(self.start, |attack: f64| attack + (1.0 - attack) * self.step);
            let [calm, hostile] =
                [(1.0 - before) * self.emissions[0][symbol], before * self.emissions[1][symbol]];
            let after = if calm + hostile > 0.0 { hostile / (calm + hostile) } else { before };
            attack = Some(after);
            filtered.push(after);
        }
        filtered
    }
}

fn normalised(counts: [f64; SYMBOLS]) -> [f64; SYMBOLS] {
    let sum: f64 = counts.iter().sum();
    counts.map(|count| count / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symbol 0 in nine of ten calm rounds, symbol 7 in eight of ten rounds of an attack.
    fn by_hand() -> HiddenMarkov {
        let mut emissions = [[0.0; SYMBOLS]; 2];
        (emissions[0][0], emissions[0][7]) = (0.9, 0.1);
        (emissions[1][0], emissions[1][7]) = (0.2, 0.8);
        HiddenMarkov { start: 0.1, step: 0.5, emissions }
    }

    #[test]
    fn the_filter_by_hand() {
        // Round 1, symbol 7: 0.1 · 0.8 against 0.9 · 0.1, 8/17. Round 2, symbol 0: before it (8/17 + 9/17 · ½) = 12.5/17;
        // 12.5 · 0.2 against 4.5 · 0.9, 2.5/6.55.
        let filtered = by_hand().filter(&[7, 0]);
        assert!(
            (filtered[0] - 8.0 / 17.0).abs() < 1e-12 && (filtered[1] - 2.5 / 6.55).abs() < 1e-12,
            "{filtered:?}"
        );
    }

    #[test]
    fn paths_sum_to_the_probability_of_the_symbols() {
        // By the forward algorithm: calm, attack = 0.81, 0.02; then 0.405 · 0.1 and (0.405 + 0.02) · 0.8.
        let model = by_hand();
        let sum: f64 = (0..=2).map(|begin| model.path(&[0, 7], begin)).sum();
        assert!((sum - (0.0405 + 0.34)).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn the_fit_finds_the_beginning_of_attacks() {
        let calm = vec![vec![0, 0, 1, 0]; 40];
        let attack = vec![vec![0, 0, 7, 7]; 40];
        let model = HiddenMarkov::fit(&calm, &attack);
        let filtered = model.filter(&[0, 0, 7]);
        assert!(filtered[1] < 0.5 && filtered[2] > 0.9, "{filtered:?}");
        assert!(model.filter(&[0, 1, 0]).iter().all(|p| *p < 0.5) && model.start < 0.1, "{model:?}");
    }
}
