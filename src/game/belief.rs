//! Belief about the type of a user, updated round by round from a calibrated probe (a Bayes filter).

use serde::Serialize;

use crate::error::{Error, Result};

/// A distribution over the types of users.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Belief {
    probabilities: Vec<f64>,
}

impl Belief {
    /// The belief before anything is read.
    ///
    /// # Errors
    /// Numbers that are no distribution.
    pub fn new(priors: &[f64]) -> Result<Belief> {
        check("belief", priors)?;
        Ok(Belief { probabilities: priors.to_vec() })
    }

    /// The probability of each type.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// The belief after one more round. `reading` is a calibrated probe's probability of each type, fitted on data with the
    /// class shares `fitted`: by Bayes' rule the likelihood of what was read is proportional to `reading / fitted`. Between
    /// rounds the user's type changes with probability `drift` to any type by its share in `fitted`.
    ///
    /// # Errors
    /// Numbers that are no distribution, or of another length; a share of 0; a drift outside [0, 1].
    pub fn update(&self, reading: &[f64], fitted: &[f64], drift: f64) -> Result<Belief> {
        check("reading", reading)?;
        check("class shares", fitted)?;
        let types = self.probabilities.len();
        if reading.len() != types || fitted.len() != types {
            let found = format!("{} probabilities and {} class shares", reading.len(), fitted.len());
            return Err(Error::input("reading", found, format!("{types}, one a type")));
        }
        if fitted.contains(&0.0) || !(0.0..=1.0).contains(&drift) {
            let found = format!("class shares {fitted:?} and drift {drift}");
            return Err(Error::input("reading", found, "shares above 0, a drift in [0, 1]"));
        }
        let posterior = |user: usize| {
            let before = (1.0 - drift) * self.probabilities[user] + drift * fitted[user];
            before * reading[user] / fitted[user]
        };
        let weights: Vec<f64> = (0..types).map(posterior).collect();
        let sum: f64 = weights.iter().sum();
        // What was read is impossible for every type that is believed possible: the reading alone counts.
        let probabilities = match sum > 0.0 {
            true => weights.iter().map(|weight| weight / sum).collect(),
            false => reading.to_vec(),
        };
        Ok(Belief { probabilities })
    }

    /// The belief in which one type has this probability, the others sharing the rest as they did.
    pub fn with_probability(&self, user: usize, probability: f64) -> Belief {
        let rest: f64 = 1.0 - self.probabilities.get(user).copied().unwrap_or(0.0);
        let others = self.probabilities.len().saturating_sub(1).max(1) as f64;
        let share = |(other, &before): (usize, &f64)| match other == user {
            true => probability,
            // Where nothing was left for the others, they share equally.
            false if rest <= 0.0 => (1.0 - probability) / others,
            false => (1.0 - probability) * before / rest,
        };
        Belief { probabilities: self.probabilities.iter().enumerate().map(share).collect() }
    }
}

fn check(what: &str, values: &[f64]) -> Result<()> {
    let sum: f64 = values.iter().sum();
    match values.iter().all(|value| (0.0..=1.0).contains(value)) && (sum - 1.0).abs() < 1e-6 {
        true => Ok(()),
        false => Err(Error::input(what, format!("{values:?}"), "numbers in [0, 1] with sum 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_type_is_set_and_the_others_keep_their_proportions() {
        let belief = Belief::new(&[0.6, 0.2, 0.2]).unwrap().with_probability(2, 0.6);
        for (found, expected) in belief.probabilities().iter().zip([0.3, 0.1, 0.6]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(
            Belief::new(&[0.0, 0.0, 1.0]).unwrap().with_probability(2, 0.5).probabilities(),
            [0.25, 0.25, 0.5]
        );
    }

    #[test]
    fn evidence_adds_up_over_rounds() {
        let fitted = [0.5, 0.5];
        let mut belief = Belief::new(&[0.9, 0.1]).unwrap();
        belief = belief.update(&[0.25, 0.75], &fitted, 0.0).unwrap();
        // By hand: odds 1/9 · 3 = 1/3.
        assert!((belief.probabilities()[1] - 0.25).abs() < 1e-12);
        belief = belief.update(&[0.25, 0.75], &fitted, 0.0).unwrap();
        assert!((belief.probabilities()[1] - 0.5).abs() < 1e-12);
        // A reading equal to the shares says nothing; with drift the belief goes half the way back.
        let same = belief.update(&fitted, &fitted, 0.0).unwrap();
        assert_eq!(same, belief);
        let sure = Belief::new(&[0.0, 1.0]).unwrap();
        assert_eq!(sure.update(&fitted, &fitted, 0.5).unwrap().probabilities(), [0.25, 0.75]);
        assert_eq!(sure.update(&[1.0, 0.0], &fitted, 0.0).unwrap().probabilities(), [1.0, 0.0]);
        assert!(Belief::new(&[0.5, 0.6]).is_err() && belief.update(&[1.0], &fitted, 0.0).is_err());
        assert!(
            belief.update(&fitted, &[1.0, 0.0], 0.0).is_err()
                && belief.update(&fitted, &fitted, 2.0).is_err()
        );
    }
}
