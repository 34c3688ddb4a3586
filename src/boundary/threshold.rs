//! A threshold on a probe's probability that keeps an error rate below a bound, and the trial of that promise.
//! It knows nothing of how the probabilities came about.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stats;

/// The error that is kept rare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Positives that are not flagged.
    Miss,
    /// Negatives that are flagged.
    FalseAlarm,
}

/// What is promised of the rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskBound {
    pub guarantee: ErrorKind,
    /// The bound on the rate.
    pub alpha: f64,
    /// One minus the confidence with which the rate itself is within the bound; where there is none, only its expectation
    /// is.
    pub delta: Option<f64>,
}

/// Flag where the score is `value` or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    pub value: f64,
    #[serde(flatten)]
    pub promise: RiskBound,
    /// Rows of the class that the rate is about.
    pub n: usize,
    /// The rate of that error on the rows it was chosen by, and of the other error.
    pub rate: f64,
    pub other_rate: f64,
    /// The finite-sample bound that these rows give, at most alpha: on the rate at confidence 1 − delta, or on its
    /// expectation.
    pub bound: f64,
}

impl RiskBound {
    /// That the expected rate is at most `alpha`.
    pub fn expected(guarantee: ErrorKind, alpha: f64) -> RiskBound {
        RiskBound { guarantee, alpha, delta: None }
    }

    /// That the rate is at most `alpha`, with confidence 1 − `delta`.
    pub fn confident(guarantee: ErrorKind, alpha: f64, delta: f64) -> RiskBound {
        RiskBound { guarantee, alpha, delta: Some(delta) }
    }

    fn check(&self) -> Result<()> {
        let wrong = |rate: f64| !(rate > 0.0 && rate < 1.0);
        match [Some(self.alpha), self.delta].into_iter().flatten().find(|&rate| wrong(rate)) {
            Some(rate) => Err(Error::input("threshold", format!("a rate of {rate}"), "one between 0 and 1")),
            None => Ok(()),
        }
    }

    /// The most errors among `n` rows that the promise allows; none where so few rows can promise nothing.
    fn most_errors(&self, n: usize) -> Option<usize> {
        match self.delta {
            Some(delta) => stats::most_errors(n, self.alpha, delta),
            None => {
                // The sum is at least 1, so it has to be compared before it is rounded; and rounding must not cost an
                // error that the bound just allows (0.1 · 20 − 1).
                let budget = self.alpha * (n + 1) as f64 - 1.0;
                (budget >= 0.0 && n > 0).then(|| ((budget + 1e-9).floor() as usize).min(n - 1))
            }
        }
    }

    /// The fewest rows of the class that can promise it, by errors on none of them.
    fn least_rows(&self) -> f64 {
        match self.delta {
            Some(delta) => (delta.ln() / (-self.alpha).ln_1p()).ceil(),
            None => (1.0 / self.alpha - 1.0).ceil(),
        }
    }

    /// What it says, in a sentence.
    pub fn sentence(&self) -> String {
        let error = match self.guarantee {
            ErrorKind::Miss => "miss rate",
            ErrorKind::FalseAlarm => "false-alarm rate",
        };
        match self.delta {
            Some(delta) => {
                // Without the noise of the subtraction.
                let sure = ((1.0 - delta) * 1e9).round() / 1e9;
                format!("{error} ≤ {} with confidence {sure} on exchangeable data", self.alpha)
            }
            None => format!("expected {error} ≤ {} on exchangeable data", self.alpha),
        }
    }
}

/// The threshold that flags least (for misses) or most (for false alarms) and still keeps the promise.
///
/// Without a `delta` it is conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814, eq. 4): with a loss of at
/// most 1 that can only shrink as the threshold moves to the safe side, the threshold nearest to the unsafe side with
/// `(n · rate + 1) / (n + 1) ≤ alpha` has an expected rate of at most `alpha` on a new row that is exchangeable with the
/// `n` rows of its class here: rows that the scores were not fitted on, of the same kind of data.
///
/// With one it is learn-then-test (Angelopoulos et al. 2021, arXiv 2110.01052): thresholds are tested from the safe side
/// on, each against "the rate is above alpha" by the exact binomial p-value P(Binomial(n, alpha) ≤ errors), up to the
/// first that is not below `delta`. As the order is fixed beforehand, no correction for many tests is needed; the rate of
/// the threshold is at most `alpha` with probability 1 − `delta` over the draw of the `n` rows.
///
/// # Errors
/// If a rate is not between 0 and 1, scores and truth differ in number, a score is NaN, or there are so few rows of the
/// class that nothing can be promised.
pub fn threshold(scores: &[f64], positive: &[bool], promise: RiskBound) -> Result<Threshold> {
    promise.check()?;
    if scores.len() != positive.len() || scores.iter().any(|score| score.is_nan()) {
        let found = format!("{} scores of {} rows, or NaN among them", scores.len(), positive.len());
        return Err(Error::input("threshold", found, "a number for each row"));
    }
    let of = |class: bool| -> Vec<f64> {
        let rows = scores.iter().zip(positive).filter(|(_, is)| **is == class);
        rows.map(|(score, _)| *score).collect()
    };
    let (mut own, other) =
        (of(promise.guarantee == ErrorKind::Miss), of(promise.guarantee != ErrorKind::Miss));
    let n = own.len();
    let value = value(&mut own, promise).ok_or_else(|| {
        let found = format!("{n} rows of the class for a rate of {}", promise.alpha);
        let least = promise.least_rows();
        Error::input("threshold", found, format!("at least {least}, or a larger rate"))
    })?;
    let (errors, rate) = wrong(&own, value, promise.guarantee);
    let (_, other_rate) = match promise.guarantee {
        ErrorKind::Miss => wrong(&other, value, ErrorKind::FalseAlarm),
        ErrorKind::FalseAlarm => wrong(&other, value, ErrorKind::Miss),
    };
    let bound = match promise.delta {
        Some(delta) => stats::upper_bound(errors, n, delta).unwrap_or(1.0),
        None => (errors + 1) as f64 / (n + 1) as f64,
    };
    Ok(Threshold { value, promise, n, rate, other_rate, bound })
}

/// The threshold for scores of the class that the rate is about, which are sorted on the way.
fn value(own: &mut [f64], promise: RiskBound) -> Option<f64> {
    let errors = promise.most_errors(own.len())?;
    own.sort_by(f64::total_cmp);
    match promise.guarantee {
        ErrorKind::Miss => own.get(errors).copied(),
        // Just above the first negative that must not be flagged any more.
        ErrorKind::FalseAlarm => own.iter().rev().nth(errors).map(|score| score.next_up()),
    }
}

/// How many of the scores are errors, and their share.
fn wrong(scores: &[f64], value: f64, guarantee: ErrorKind) -> (usize, f64) {
    let errors = match guarantee {
        ErrorKind::Miss => scores.iter().filter(|score| **score < value).count(),
        ErrorKind::FalseAlarm => scores.iter().filter(|score| **score >= value).count(),
    };
    (errors, errors as f64 / scores.len().max(1) as f64)
}

/// How a promise fared when it was made again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub resamplings: usize,
    /// Rows of the class that each threshold was chosen by.
    pub n: usize,
    /// Share of the resamplings in which the true rate was within alpha; a promise with a delta holds if that is 1 − delta
    /// or more. `due` is the share that theory gives for scores without ties: since errors are whole, it lies above
    /// 1 − delta, by more the fewer rows there are.
    pub held: f64,
    pub due: Option<f64>,
    /// Mean of the true rates (a promise without a delta is about this one), and the largest.
    pub mean_rate: f64,
    pub largest_rate: f64,
}

/// Puts a promise to the test: the scores of the class stand for the whole population, `n` of them are drawn with
/// replacement, a threshold is chosen by these, and its true rate is that among all of them.
///
/// # Errors
/// If the promise makes no sense, there is no score of the class or NaN among them, or `n` rows can promise nothing.
pub fn trial(
    scores: &[f64],
    positive: &[bool],
    promise: RiskBound,
    n: usize,
    resamplings: usize,
    seed: u64,
) -> Result<Trial> {
    threshold(scores, positive, promise)?;
    let class = promise.guarantee == ErrorKind::Miss;
    let rows = scores.iter().zip(positive).filter(|(_, is)| **is == class);
    let population: Vec<f64> = rows.map(|(score, _)| *score).collect();
    let rate = |resampling: usize| {
        let mut random = StdRng::seed_from_u64(seed ^ (resampling as u64 + 1).rotate_left(32));
        let mut drawn: Vec<f64> =
            (0..n).map(|_| population[random.random_range(0..population.len())]).collect();
        let value = value(&mut drawn, promise)?;
        Some(wrong(&population, value, promise.guarantee).1)
    };
    let rates: Option<Vec<f64>> = (0..resamplings).into_par_iter().map(rate).collect();
    let rates = rates.filter(|rates| !rates.is_empty()).ok_or_else(|| {
        let found = format!("{resamplings} resamplings of {n} rows");
        let expected = format!("one or more, of at least {} rows", promise.least_rows());
        Error::input("trial of a threshold", found, expected)
    })?;
    let held = rates.iter().filter(|&&rate| rate <= promise.alpha).count();
    // The rate is above alpha where no more errors than are allowed lie beyond the alpha quantile.
    let due =
        promise.delta.and(promise.most_errors(n)).map(|most| 1.0 - stats::at_most(most, n, promise.alpha));
    Ok(Trial {
        resamplings,
        n,
        held: held as f64 / resamplings as f64,
        due,
        mean_rate: rates.iter().sum::<f64>() / resamplings as f64,
        largest_rate: rates.iter().copied().fold(0.0, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_by_hand() {
        let scores: Vec<f64> = (1..=19).chain(1..=19).map(f64::from).collect();
        let positive: Vec<bool> = (0..38).map(|row| row < 19).collect();
        // n = 19, alpha = .1: (misses + 1) / 20 ≤ .1 allows one, so 2 is the least score that is flagged.
        let miss = threshold(&scores, &positive, RiskBound::expected(ErrorKind::Miss, 0.1)).unwrap();
        assert_eq!((miss.value, miss.n, miss.rate, miss.other_rate), (2.0, 19, 1.0 / 19.0, 18.0 / 19.0));
        let alarm = threshold(&scores, &positive, RiskBound::expected(ErrorKind::FalseAlarm, 0.1)).unwrap();
        assert!(alarm.value > 18.0 && alarm.value < 18.0 + 1e-9);
        assert_eq!((alarm.rate, alarm.other_rate), (1.0 / 19.0, 18.0 / 19.0));
        // .05 allows none; .04 can't be promised by 19 rows.
        assert_eq!(
            threshold(&scores, &positive, RiskBound::expected(ErrorKind::Miss, 0.05)).unwrap().value,
            1.0
        );
        let error = threshold(&scores, &positive, RiskBound::expected(ErrorKind::Miss, 0.04)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "threshold: 19 rows of the class for a rate of 0.04; expected at least 24, or a larger rate"
        );
        // Ties can't be told apart: none may be missed where one too many would be.
        let tied = threshold(&[0.5; 20], &[true; 20], RiskBound::expected(ErrorKind::Miss, 0.2)).unwrap();
        assert_eq!((tied.value, tied.rate), (0.5, 0.0));
        assert!(threshold(&[f64::NAN], &[true], RiskBound::expected(ErrorKind::Miss, 0.2)).is_err());
    }

    #[test]
    fn the_promise_holds_on_new_rows_and_is_not_wasted() {
        let mut random = StdRng::seed_from_u64(11);
        let (n, alpha, draws) = (50, 0.1, 4000);
        let mut missed = 0;
        for _ in 0..draws {
            let scores: Vec<f64> = (0..n).map(|_| random.random()).collect();
            let found =
                threshold(&scores, &vec![true; n], RiskBound::expected(ErrorKind::Miss, alpha)).unwrap();
            missed += usize::from(random.random::<f64>() < found.value);
        }
        // Exactly: 4 misses allowed, the value is the fifth of 50 uniform numbers, so 5/51 = .098 are expected;
        // four standard errors of 4,000 draws are .019.
        let rate = missed as f64 / draws as f64;
        assert!((rate - 5.0 / 51.0).abs() < 0.019, "{rate}");
    }

    #[test]
    fn a_confident_promise_allows_as_many_errors_as_the_binomial_tail() {
        // P(Binomial(200, .05) ≤ 5) = .0623, ≤ 6 it is .1237: at delta .1 five misses are allowed.
        let scores: Vec<f64> = (1..=200).map(f64::from).collect();
        let promise = RiskBound::confident(ErrorKind::Miss, 0.05, 0.1);
        let found = threshold(&scores, &[true; 200], promise).unwrap();
        assert_eq!((found.value, found.rate), (6.0, 0.025));
        // The bound is the rate at which five of 200 have probability .1 (scipy: beta.ppf(.9, 6, 195)).
        assert!((found.bound - 0.045_878_69).abs() < 1e-5 && found.bound <= 0.05, "{}", found.bound);
        let error = threshold(&scores[..44], &[true; 44], promise).unwrap_err().to_string();
        assert!(
            error
                .ends_with("44 rows of the class for a rate of 0.05; expected at least 45, or a larger rate")
        );
        assert_eq!(promise.sentence(), "miss rate ≤ 0.05 with confidence 0.9 on exchangeable data");
    }

    #[test]
    fn a_confident_promise_holds_as_often_as_theory_says_and_a_looser_one_does_not() {
        let mut random = StdRng::seed_from_u64(5);
        let scores: Vec<f64> = (0..20_000).map(|_| random.random()).collect();
        let all = vec![true; scores.len()];
        let held = |promise| trial(&scores, &all, promise, 200, 2000, 3).unwrap();
        // The promise fails if six or more misses are where .05 of the population lie: with probability .0623.
        let confident = held(RiskBound::confident(ErrorKind::Miss, 0.05, 0.1));
        assert!((confident.held - 0.9377).abs() < 0.02, "{confident:?}");
        assert!((confident.due.unwrap() - 0.937_657_5).abs() < 1e-6);
        // The expected rate is within .05 too under the other promise, but the rate itself only half of the time.
        let expected = held(RiskBound::expected(ErrorKind::Miss, 0.05));
        assert!(expected.mean_rate < 0.051 && expected.held < 0.7, "{expected:?}");
        assert!(trial(&scores, &all, RiskBound::confident(ErrorKind::Miss, 0.05, 0.1), 30, 10, 0).is_err());
    }
}
