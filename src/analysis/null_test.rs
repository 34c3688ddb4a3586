//! The vector against its null directions: the same edit, at the same site and strength, on the same users, along directions
//! without the concept.

use serde::{Deserialize, Serialize};

use crate::judge::{BROKEN, Score};
use crate::stats::{Interval, Metric, wilson};
use crate::steer::Null;

/// One direction's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// How the direction was made.
    pub name: String,
    /// Number of answers with the outcome steered to.
    pub reached: usize,
    /// Number of broken answers.
    pub broken: usize,
}

impl Draw {
    /// The counts of a direction's answers.
    pub fn of(name: impl Into<String>, outcome: &str, scores: &[Score]) -> Draw {
        let count = |outcome: &str| scores.iter().filter(|score| score.strategy == outcome).count();
        let (reached, broken) = (count(outcome), count(BROKEN));
        Draw { name: name.into(), reached, broken }
    }
}

/// The vector's answers beside those of null directions of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NullTest {
    /// The kind.
    pub null: Null,
    /// Number of users that each direction was tried on.
    pub users: usize,
    /// The vector.
    pub vector: Draw,
    /// The null directions.
    pub draws: Vec<Draw>,
}

/// How the shares of a kind's directions are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least share.
    pub least: f64,
    /// The median.
    pub median: f64,
    /// The greatest.
    pub most: f64,
}

impl NullTest {
    /// Number of directions that reach at least what the vector reaches.
    pub fn at_least(&self) -> usize {
        self.draws.iter().filter(|draw| draw.reached >= self.vector.reached).count()
    }

    /// The vector's rank among the directions and itself, 1 being the best; of equals the last.
    pub fn rank(&self) -> usize {
        1 + self.at_least()
    }

    /// The p-value `(1 + k) / (1 + n)` of `n` random directions of which `k` reach at least what the vector reaches (Davison
    /// & Hinkley 1997, 4.3); none of a kind whose directions aren't drawn at random.
    pub fn p(&self) -> Option<f64> {
        self.null.is_drawn().then(|| (1 + self.at_least()) as f64 / (1 + self.draws.len()) as f64)
    }

    /// How the shares of answers with the outcome are spread over the directions.
    pub fn spread(&self) -> Option<Spread> {
        self.spread_of(|draw| draw.reached)
    }

    /// How the shares of broken answers are spread.
    pub fn broken(&self) -> Option<Spread> {
        self.spread_of(|draw| draw.broken)
    }

    fn spread_of(&self, count: impl Fn(&Draw) -> usize) -> Option<Spread> {
        let share = |draw: &Draw| count(draw) as f64 / self.users.max(1) as f64;
        let mut shares: Vec<f64> = self.draws.iter().map(share).collect();
        shares.sort_by(f64::total_cmp);
        let middle = shares.len() / 2;
        let median = match shares.len() {
            0 => return None,
            count if count % 2 == 1 => shares[middle],
            _ => (shares[middle - 1] + shares[middle]) / 2.0,
        };
        Some(Spread { least: shares[0], median, most: shares[shares.len() - 1] })
    }

    /// The vector's share of answers with the outcome on the same users, with its Wilson interval.
    pub fn vector_share(&self) -> Option<Interval> {
        wilson(self.vector.reached, self.users)
    }

    /// In one line: the spread, and the vector's rank.
    pub fn in_words(&self) -> String {
        let spread = self.spread().unwrap_or(Spread { least: 0.0, median: 0.0, most: 0.0 });
        let p = self.p().map_or(String::new(), |p| format!(", p = {p:.3}"));
        format!(
            "{}: {} directions, {:.3} (median) [{:.3} to {:.3}]; the vector {:.3}, rank {} of {}{p}",
            self.null,
            self.draws.len(),
            spread.median,
            spread.least,
            spread.most,
            self.vector.reached as f64 / self.users.max(1) as f64,
            self.rank(),
            1 + self.draws.len(),
        )
    }

    /// The metrics, their names after `prefix`.
    pub fn metrics(&self, prefix: &str, split: &str) -> Vec<Metric> {
        let prefix = format!("{prefix}/{}", self.null.to_string().replace(' ', "-"));
        let split = format!("{split}, {} directions", self.draws.len());
        let plain = |name: &str, value: f64| Metric {
            name: format!("{prefix}/{name}"),
            value,
            low: None,
            high: None,
            n: self.users,
            split: split.clone(),
        };
        let mut metrics = Vec::new();
        if let Some(share) = self.vector_share() {
            metrics.push(Metric::new(format!("{prefix}/vector"), share, self.users, &split));
        }
        if let Some(Spread { least, median, most }) = self.spread() {
            metrics.extend([plain("least", least), plain("median", median), plain("most", most)]);
        }
        metrics.extend(self.broken().map(|broken| plain("broken", broken.median)));
        metrics.push(plain("rank", self.rank() as f64));
        metrics.extend(self.p().map(|p| plain("p", p)));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(null: Null, reached: &[usize]) -> NullTest {
        let draw = |&reached: &usize| Draw { name: "one".into(), reached, broken: 1 };
        NullTest { null, users: 10, vector: draw(&7), draws: reached.iter().map(draw).collect() }
    }

    #[test]
    fn the_rank_counts_equals_against_the_vector() {
        let found = test(Null::Random, &[1, 2, 7, 9]);
        assert_eq!((found.rank(), found.p()), (3, Some(3.0 / 5.0)));
        let Spread { least, median, most } = found.spread().unwrap();
        assert!(least == 0.1 && (median - 0.45).abs() < 1e-12 && most == 0.9);
        assert_eq!(test(Null::Shuffled, &[0; 19]).p(), Some(1.0 / 20.0));
        assert_eq!(test(Null::Components, &[0; 19]).p(), None);
        assert!(found.in_words().contains("rank 3 of 5, p = 0.600"), "{}", found.in_words());
    }

    /// Where the vector is itself one of the null's draws, p is at most α in at most a share α of the cases.
    #[test]
    fn the_p_value_is_honest_under_the_null() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        let mut rng = StdRng::seed_from_u64(7);
        let mut draw = || (0..40).filter(|_| rng.random_bool(0.3)).count();
        let (mut small, cases) = (0, 4000);
        for _ in 0..cases {
            let counts: Vec<usize> = (0..20).map(|_| draw()).collect();
            let mut found = test(Null::Random, &counts);
            found.vector.reached = draw();
            small += usize::from(found.p().is_some_and(|p| p <= 0.1));
        }
        assert!(small as f64 / cases as f64 <= 0.1 + 0.015, "{small}");
    }
}
