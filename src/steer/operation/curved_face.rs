//! A curved face of a safe set: the states in which the log-sum-exp of affine functions is at most a level. One class of three
//! or more has at least a given softmax probability in such a set, which is convex.

use super::{HalfSpace, dot};

/// The states `h` with `log Σ exp(normal · h + offset) ≤ level`, over the pairs of normal and offset.
#[derive(Clone, Debug, PartialEq)]
pub struct CurvedFace {
    /// The name in traces and errors.
    pub name: String,
    /// `[width]` and a number each.
    pub terms: Vec<(Vec<f32>, f64)>,
    /// In the unit of `normal · h`.
    pub level: f64,
}

impl CurvedFace {
    /// How far the log-sum-exp of a state is above the level.
    pub(super) fn excess(&self, h: &[f32]) -> f64 {
        self.read(h).0
    }

    /// The half-space that touches the states with the log-sum-exp of `h`, and holds all states of the face, since a
    /// log-sum-exp is convex.
    pub(super) fn tangent(&self, h: &[f32]) -> HalfSpace {
        let (excess, shares) = self.read(h);
        let width = self.terms.first().map_or(0, |(normal, _)| normal.len());
        let mut normal = vec![0.0f64; width];
        for ((term, _), share) in self.terms.iter().zip(shares) {
            normal.iter_mut().zip(term).for_each(|(sum, value)| *sum += share * f64::from(*value));
        }
        let normal: Vec<f32> = normal.into_iter().map(|value| value as f32).collect();
        let bound = dot(&normal, h) - excess;
        HalfSpace { name: self.name.clone(), normal, bound }
    }

    /// Half-spaces whose intersection lies inside: each term at most the level less the logarithm of their number.
    pub(super) fn inner(&self) -> impl Iterator<Item = HalfSpace> + '_ {
        let level = self.level - (self.terms.len() as f64).ln();
        self.terms.iter().map(move |(normal, offset)| HalfSpace {
            name: self.name.clone(),
            normal: normal.clone(),
            bound: level - offset,
        })
    }

    /// The log-sum-exp less the level, and each term's share of the sum.
    fn read(&self, h: &[f32]) -> (f64, Vec<f64>) {
        let values: Vec<f64> = self.terms.iter().map(|(normal, offset)| dot(normal, h) + offset).collect();
        let most = values.iter().fold(f64::NEG_INFINITY, |most, value| most.max(*value));
        let powers: Vec<f64> = values.iter().map(|value| (value - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        (most + sum.ln() - self.level, powers.into_iter().map(|power| power / sum).collect())
    }
}
