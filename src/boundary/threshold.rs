//! A threshold on a probe's probability that keeps an error rate below a bound.
//! It knows nothing of how the probabilities came about.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The error that is kept rare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Positives that are not flagged.
    Miss,
    /// Negatives that are flagged.
    FalseAlarm,
}

/// Flag where the score is `value` or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    pub value: f64,
    pub guarantee: Guarantee,
    /// The bound on the expected rate.
    pub alpha: f64,
    /// Rows of the class that the rate is about.
    pub n: usize,
    /// The rate of that error on the rows it was chosen by, and of the other error.
    pub rate: f64,
    pub other_rate: f64,
}

/// The threshold that flags least (for misses) or most (for false alarms) and still keeps the error's rate at or below
/// `alpha`.
///
/// Conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814, eq. 4): with a loss of at most 1 that can only
/// shrink as the threshold moves to the safe side, the threshold nearest to the unsafe side with
/// `(n · rate + 1) / (n + 1) ≤ alpha` has an expected rate of at most `alpha` on a new row that is exchangeable with the
/// `n` rows of its class here: rows that the scores were not fitted on, of the same kind of data.
///
/// # Errors
/// If `alpha` is not between 0 and 1, scores and truth differ in number, a score is NaN, or there are fewer than
/// `1 / alpha − 1` rows of the class, so that nothing can be promised.
pub fn threshold(scores: &[f64], positive: &[bool], guarantee: Guarantee, alpha: f64) -> Result<Threshold> {
    if !(alpha > 0.0 && alpha < 1.0) {
        return Err(Error::input("threshold", format!("a rate of {alpha}"), "one between 0 and 1"));
    }
    if scores.len() != positive.len() || scores.iter().any(|score| score.is_nan()) {
        let found = format!("{} scores of {} rows, or NaN among them", scores.len(), positive.len());
        return Err(Error::input("threshold", found, "a number for each row"));
    }
    let of = |class: bool| -> Vec<f64> {
        let rows = scores.iter().zip(positive).filter(|(_, is)| **is == class);
        let mut scores: Vec<f64> = rows.map(|(score, _)| *score).collect();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let (mut own, other) = (of(guarantee == Guarantee::Miss), of(guarantee != Guarantee::Miss));
    let n = own.len();
    // The most errors that the bound allows; the sum is at least 1, so it has to be compared before it is rounded.
    let budget = alpha * (n + 1) as f64 - 1.0;
    if budget < 0.0 {
        let found = format!("{n} rows of the class for a rate of {alpha}");
        let least = (1.0 / alpha - 1.0).ceil();
        return Err(Error::input("threshold", found, format!("at least {least}, or a larger rate")));
    }
    // Rounding must not cost an error that the bound just allows (0.1 · 20 − 1).
    let errors = ((budget + 1e-9).floor() as usize).min(n - 1);
    let value = match guarantee {
        Guarantee::Miss => own[errors],
        Guarantee::FalseAlarm => {
            own.reverse();
            // Just above the first negative that must not be flagged any more.
            own[errors].next_up()
        }
    };
    let share = |scores: &[f64], is_wrong: &dyn Fn(f64) -> bool| {
        scores.iter().filter(|score| is_wrong(**score)).count() as f64 / scores.len().max(1) as f64
    };
    let (missed, flagged) = (|score: f64| score < value, |score: f64| score >= value);
    let (rate, other_rate) = match guarantee {
        Guarantee::Miss => (share(&own, &missed), share(&other, &flagged)),
        Guarantee::FalseAlarm => (share(&own, &flagged), share(&other, &missed)),
    };
    Ok(Threshold { value, guarantee, alpha, n, rate, other_rate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn thresholds_by_hand() {
        let scores: Vec<f64> = (1..=19).chain(1..=19).map(f64::from).collect();
        let positive: Vec<bool> = (0..38).map(|row| row < 19).collect();
        // n = 19, alpha = .1: (misses + 1) / 20 ≤ .1 allows one, so 2 is the least score that is flagged.
        let miss = threshold(&scores, &positive, Guarantee::Miss, 0.1).unwrap();
        assert_eq!((miss.value, miss.n, miss.rate, miss.other_rate), (2.0, 19, 1.0 / 19.0, 18.0 / 19.0));
        let alarm = threshold(&scores, &positive, Guarantee::FalseAlarm, 0.1).unwrap();
        assert!(alarm.value > 18.0 && alarm.value < 18.0 + 1e-9);
        assert_eq!((alarm.rate, alarm.other_rate), (1.0 / 19.0, 18.0 / 19.0));
        // .05 allows none; .04 can't be promised by 19 rows.
        assert_eq!(threshold(&scores, &positive, Guarantee::Miss, 0.05).unwrap().value, 1.0);
        let error = threshold(&scores, &positive, Guarantee::Miss, 0.04).unwrap_err();
        assert_eq!(
            error.to_string(),
            "threshold: 19 rows of the class for a rate of 0.04; expected at least 24, or a larger rate"
        );
        // Ties can't be told apart: none may be missed where one too many would be.
        let tied = threshold(&[0.5; 20], &[true; 20], Guarantee::Miss, 0.2).unwrap();
        assert_eq!((tied.value, tied.rate), (0.5, 0.0));
        assert!(threshold(&[f64::NAN], &[true], Guarantee::Miss, 0.2).is_err());
    }

    #[test]
    fn the_promise_holds_on_new_rows_and_is_not_wasted() {
        let mut random = StdRng::seed_from_u64(11);
        let (n, alpha, draws) = (50, 0.1, 4000);
        let mut missed = 0;
        for _ in 0..draws {
            let scores: Vec<f64> = (0..n).map(|_| random.random()).collect();
            let found = threshold(&scores, &vec![true; n], Guarantee::Miss, alpha).unwrap();
            missed += usize::from(random.random::<f64>() < found.value);
        }
        // Exactly: 4 misses allowed, the value is the fifth of 50 uniform numbers, so 5/51 = .098 are expected;
        // four standard errors of 4,000 draws are .019.
        let rate = missed as f64 / draws as f64;
        assert!((rate - 5.0 / 51.0).abs() < 0.019, "{rate}");
    }
}
