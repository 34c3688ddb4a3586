//! Thresholds with a risk bound: scores and labels in, the threshold that keeps an error rate below a bound out (conformal
//! risk control, learn-then-test), and the coverage of that bound on resampled data.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stats;

/// The error whose rate is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Positives that are not flagged.
    Miss,
    /// Negatives that are flagged.
    FalseAlarm,
}

/// A bound on an error rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskBound {
    /// The error.
    #[serde(rename = "guarantee")]
    pub error: ErrorKind,
    /// The bound on the rate.
    pub alpha: f64,
    /// One minus the confidence that the rate is within the bound; without it, the bound is on the expected rate.
    pub delta: Option<f64>,
}

/// A threshold: a row is flagged where its score is `value` or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The least score that is flagged.
    pub value: f64,
    /// The bound that was asked for.
    #[serde(flatten)]
    pub risk_bound: RiskBound,
    /// Rows of the class that the error rate is about.
    pub n: usize,
    /// The error rate on the calibration rows.
    pub rate: f64,
    /// The rate of the other error there.
    pub other_rate: f64,
    /// The finite-sample bound that these rows give, at most alpha: on the rate at confidence 1 − delta, or on the expected
    /// rate.
    pub bound: f64,
}

impl RiskBound {
    /// The expected rate is at most `alpha`.
    pub fn expected(error: ErrorKind, alpha: f64) -> RiskBound {
        RiskBound { error, alpha, delta: None }
    }

    /// The rate is at most `alpha` with confidence 1 − `delta`.
    pub fn confident(error: ErrorKind, alpha: f64, delta: f64) -> RiskBound {
        RiskBound { error, alpha, delta: Some(delta) }
    }

    fn check(&self) -> Result<()> {
        let wrong = |rate: f64| !(rate > 0.0 && rate < 1.0);
        match [Some(self.alpha), self.delta].into_iter().flatten().find(|&rate| wrong(rate)) {
            Some(rate) => Err(Error::input("threshold", format!("a rate of {rate}"), "one between 0 and 1")),
            None => Ok(()),
        }
    }

    /// The most errors among `n` rows that the bound allows; none where `n` rows are too few for it.
    fn most_errors(&self, n: usize) -> Option<usize> {
        match self.delta {
            Some(delta) => stats::most_errors(n, self.alpha, delta),
            None => {
                // A negative budget allows nothing, which the cast to unsigned would hide; and rounding must not cost an
                // error that the bound just allows (0.1 · 20 − 1).
                let budget = self.alpha * (n + 1) as f64 - 1.0;
                (budget >= 0.0 && n > 0).then(|| ((budget + 1e-9).floor() as usize).min(n - 1))
            }
        }
    }

    /// The fewest rows of the class with which the bound can hold, with no error among them.
    fn least_rows(&self) -> f64 {
        match self.delta {
            Some(delta) => (delta.ln() / (-self.alpha).ln_1p()).ceil(),
            None => (1.0 / self.alpha - 1.0).ceil(),
        }
    }

    /// The bound as a phrase.
    pub fn sentence(&self) -> String {
        self.over("on exchangeable data")
    }

    /// The bound as a phrase, where it holds in each group ([`crate::boundary::worst_group_threshold`]).
    pub fn sentence_over_groups(&self) -> String {
        self.over("in every one of these groups")
    }

    fn over(&self, rows: &str) -> String {
        let error = match self.error {
            ErrorKind::Miss => "miss rate",
            ErrorKind::FalseAlarm => "false-alarm rate",
        };
        match self.delta {
            Some(delta) => {
                // Rounded, because 1 − 0.1 isn't exactly 0.9.
                let confidence = ((1.0 - delta) * 1e9).round() / 1e9;
                format!("{error} ≤ {} with confidence {confidence} {rows}", self.alpha)
            }
            None => format!("expected {error} ≤ {} {rows}", self.alpha),
        }
    }
}

/// The threshold that flags the fewest rows (misses) or the most (false alarms) and satisfies the bound.
///
/// Without a `delta`: conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814, eq. 4). For a loss of at most 1
/// that doesn't grow as the threshold becomes safer, the least safe threshold with `(n · rate + 1) / (n + 1) ≤ alpha` has an
/// expected rate of at most `alpha` on a new row that is exchangeable with the `n` rows of its class: rows of the same
/// distribution that the scores were not fitted on.
///
/// With a `delta`: learn-then-test (Angelopoulos et al. 2021, arXiv 2110.01052). Thresholds are tested in the order of
/// safety, each against "the rate is above alpha" by the exact binomial p-value P(Binomial(n, alpha) ≤ errors), up to the
/// first p-value that isn't below `delta`. The order is fixed in advance, so multiple tests need no correction; the rate is
/// at most `alpha` with probability 1 − `delta` over the draw of the `n` rows.
///
/// # Errors
/// A rate that is not between 0 and 1; numbers of scores and labels that differ; a score that is NaN; too few rows of the
/// class for the bound.
pub fn threshold(scores: &[f64], positive: &[bool], risk_bound: RiskBound) -> Result<Threshold> {
    risk_bound.check()?;
    if scores.len() != positive.len() || scores.iter().any(|score| score.is_nan()) {
        let found = format!("{} scores of {} rows, or NaN among them", scores.len(), positive.len());
        return Err(Error::input("threshold", found, "a number for each row"));
    }
    let scores_of = |class: bool| -> Vec<f64> {
        let rows = scores.iter().zip(positive).filter(|(_, is)| **is == class);
        rows.map(|(score, _)| *score).collect()
    };
    let (mut own, other) =
        (scores_of(risk_bound.error == ErrorKind::Miss), scores_of(risk_bound.error != ErrorKind::Miss));
    let n = own.len();
    let value = value(&mut own, risk_bound).ok_or_else(|| {
        let found = format!("{n} rows of the class for a rate of {}", risk_bound.alpha);
        let least = risk_bound.least_rows();
        Error::input("threshold", found, format!("at least {least}, or a larger rate"))
    })?;
    let (errors, rate) = error_rate(&own, value, risk_bound.error);
    let (_, other_rate) = match risk_bound.error {
        ErrorKind::Miss => error_rate(&other, value, ErrorKind::FalseAlarm),
        ErrorKind::FalseAlarm => error_rate(&other, value, ErrorKind::Miss),
    };
    let bound = match risk_bound.delta {
        Some(delta) => stats::upper_bound(errors, n, delta).unwrap_or(1.0),
        None => (errors + 1) as f64 / (n + 1) as f64,
    };
    Ok(Threshold { value, risk_bound, n, rate, other_rate, bound })
}

/// The threshold for the scores of the class that the rate is about, which become sorted.
fn value(own: &mut [f64], risk_bound: RiskBound) -> Option<f64> {
    let errors = risk_bound.most_errors(own.len())?;
    own.sort_by(f64::total_cmp);
    match risk_bound.error {
        ErrorKind::Miss => own.get(errors).copied(),
        // Just above the greatest negative that must not be flagged.
        ErrorKind::FalseAlarm => own.iter().rev().nth(errors).map(|score| score.next_up()),
    }
}

/// Number and share of the scores that are errors.
fn error_rate(scores: &[f64], value: f64, error: ErrorKind) -> (usize, f64) {
    let errors = match error {
        ErrorKind::Miss => scores.iter().filter(|score| **score < value).count(),
        ErrorKind::FalseAlarm => scores.iter().filter(|score| **score >= value).count(),
    };
    (errors, errors as f64 / scores.len().max(1) as f64)
}

/// The coverage of a risk bound over resampled calibration sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Number of calibration sets.
    pub resamplings: usize,
    /// Rows of the class in each of them.
    pub n: usize,
    /// Share of the sets whose threshold has a true rate within alpha; at least 1 − delta where the bound holds.
    #[serde(rename = "held")]
    pub coverage: f64,
    /// The share in theory, for scores without ties. The number of errors is whole, so it is above 1 − delta, by more the
    /// fewer rows there are.
    #[serde(rename = "due")]
    pub expected_coverage: Option<f64>,
    /// Mean of the true rates, which a bound without a delta is about.
    pub mean_rate: f64,
    /// The largest true rate.
    pub largest_rate: f64,
}

/// Measures the coverage of a bound: the scores of the class are the population, `n` of them are drawn with replacement, a
/// threshold is chosen by these, and its true rate is the one in the population.
///
/// # Errors
/// As [`threshold`]; too few rows `n` for the bound; no resampling.
pub fn coverage(
    scores: &[f64],
    positive: &[bool],
    risk_bound: RiskBound,
    n: usize,
    resamplings: usize,
    seed: u64,
) -> Result<Coverage> {
    threshold(scores, positive, risk_bound)?;
    let class = risk_bound.error == ErrorKind::Miss;
    let rows = scores.iter().zip(positive).filter(|(_, is)| **is == class);
    let population: Vec<f64> = rows.map(|(score, _)| *score).collect();
    let rate = |resampling: usize| {
        let mut random = StdRng::seed_from_u64(seed ^ (resampling as u64 + 1).rotate_left(32));
        let mut drawn: Vec<f64> =
            (0..n).map(|_| population[random.random_range(0..population.len())]).collect();
        let value = value(&mut drawn, risk_bound)?;
        Some(error_rate(&population, value, risk_bound.error).1)
    };
    let rates: Option<Vec<f64>> = (0..resamplings).into_par_iter().map(rate).collect();
    let rates = rates.filter(|rates| !rates.is_empty()).ok_or_else(|| {
        let found = format!("{resamplings} resamplings of {n} rows");
        let expected = format!("one or more, of at least {} rows", risk_bound.least_rows());
        Error::input("coverage of a threshold", found, expected)
    })?;
    let covered = rates.iter().filter(|&&rate| rate <= risk_bound.alpha).count();
    // The rate is above alpha where at most the allowed number of errors lies beyond the alpha quantile.
    let expected_coverage = risk_bound
        .delta
        .and(risk_bound.most_errors(n))
        .map(|most| 1.0 - stats::at_most(most, n, risk_bound.alpha));
    Ok(Coverage {
        resamplings,
        n,
        coverage: covered as f64 / resamplings as f64,
        expected_coverage,
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
        // .05 allows none; 19 rows are too few for .04.
        assert_eq!(
            threshold(&scores, &positive, RiskBound::expected(ErrorKind::Miss, 0.05)).unwrap().value,
            1.0
        );
        let error = threshold(&scores, &positive, RiskBound::expected(ErrorKind::Miss, 0.04)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "threshold: 19 rows of the class for a rate of 0.04; expected at least 24, or a larger rate"
        );
        // Ties have one threshold: none may be missed where one too many would be.
        let tied = threshold(&[0.5; 20], &[true; 20], RiskBound::expected(ErrorKind::Miss, 0.2)).unwrap();
        assert_eq!((tied.value, tied.rate), (0.5, 0.0));
        assert!(threshold(&[f64::NAN], &[true], RiskBound::expected(ErrorKind::Miss, 0.2)).is_err());
    }

    #[test]
    fn the_bound_holds_on_new_rows_and_is_tight() {
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
    fn a_confident_bound_allows_as_many_errors_as_the_binomial_tail() {
        // P(Binomial(200, .05) ≤ 5) = .0623, ≤ 6 it is .1237: at delta .1 five misses are allowed.
        let scores: Vec<f64> = (1..=200).map(f64::from).collect();
        let risk_bound = RiskBound::confident(ErrorKind::Miss, 0.05, 0.1);
        let found = threshold(&scores, &[true; 200], risk_bound).unwrap();
        assert_eq!((found.value, found.rate), (6.0, 0.025));
        // The bound is the rate at which five of 200 have probability .1 (scipy: beta.ppf(.9, 6, 195)).
        assert!((found.bound - 0.045_878_69).abs() < 1e-5 && found.bound <= 0.05, "{}", found.bound);
        let error = threshold(&scores[..44], &[true; 44], risk_bound).unwrap_err().to_string();
        assert!(
            error
                .ends_with("44 rows of the class for a rate of 0.05; expected at least 45, or a larger rate")
        );
        assert_eq!(risk_bound.sentence(), "miss rate ≤ 0.05 with confidence 0.9 on exchangeable data");
    }

    #[test]
    fn a_confident_bound_holds_as_often_as_theory_says_and_a_looser_one_does_not() {
        let mut random = StdRng::seed_from_u64(5);
        let scores: Vec<f64> = (0..20_000).map(|_| random.random()).collect();
        let all = vec![true; scores.len()];
        let covered = |bound| coverage(&scores, &all, bound, 200, 2000, 3).unwrap();
        // The bound fails if six or more misses are where .05 of the population lie: with probability .0623.
        let confident = covered(RiskBound::confident(ErrorKind::Miss, 0.05, 0.1));
        assert!((confident.coverage - 0.9377).abs() < 0.02, "{confident:?}");
        assert!((confident.expected_coverage.unwrap() - 0.937_657_5).abs() < 1e-6);
        // The expected rate is within .05 too under the other bound, but the rate itself only half of the time.
        let expected = covered(RiskBound::expected(ErrorKind::Miss, 0.05));
        assert!(expected.mean_rate < 0.051 && expected.coverage < 0.7, "{expected:?}");
        assert!(
            coverage(&scores, &all, RiskBound::confident(ErrorKind::Miss, 0.05, 0.1), 30, 10, 0).is_err()
        );
    }
}
