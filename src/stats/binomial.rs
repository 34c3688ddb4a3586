//! Exact binomial tails and the confidence bounds that they give on a rate.

/// P(X ≤ `count`) for X ~ Binomial(`trials`, `rate`), exact up to rounding: terms are summed relative to the largest, from
/// their logarithms, so that none underflows.
pub fn at_most(count: usize, trials: usize, rate: f64) -> f64 {
    let mut tail = Tail::new(trials, rate);
    for _ in 0..count.min(trials) {
        tail.add_term();
    }
    tail.sum()
}

/// The largest number of errors among `trials` that shows, at confidence 1 − `delta`, a rate of at most `alpha`: the
/// largest k with P(Binomial(trials, alpha) ≤ k) ≤ delta. `None` where not even 0 errors show it.
pub fn most_errors(trials: usize, alpha: f64, delta: f64) -> Option<usize> {
    let mut tail = Tail::new(trials, alpha);
    let mut most = None;
    while tail.count < trials && tail.sum() <= delta {
        most = Some(tail.count);
        tail.add_term();
    }
    most
}

/// The one-sided upper confidence bound (Clopper & Pearson 1934) at confidence 1 − `delta` on the rate of `errors` in
/// `trials`: the rate p with P(Binomial(trials, p) ≤ errors) = delta. `None` without trials.
pub fn upper_bound(errors: usize, trials: usize, delta: f64) -> Option<f64> {
    if trials == 0 {
        return None;
    }
    if errors >= trials {
        return Some(1.0);
    }
    let (mut low, mut high) = (errors as f64 / trials as f64, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(errors, trials, middle) > delta { low = middle } else { high = middle }
    }
    Some(high)
}

/// The sum of the terms 0 to `count` of a binomial distribution.
struct Tail {
    trials: usize,
    count: usize,
    /// ln(rate / (1 − rate)).
    odds: f64,
    /// Logarithms of the last term and of the largest.
    term: f64,
    largest: f64,
    /// Sum of the terms divided by the largest.
    scaled: f64,
}

impl Tail {
    fn new(trials: usize, rate: f64) -> Tail {
        let none = trials as f64 * (-rate).ln_1p();
        Tail { trials, count: 0, odds: (rate / (1.0 - rate)).ln(), term: none, largest: none, scaled: 1.0 }
    }

    /// Adds the next term.
    fn add_term(&mut self) {
        self.term += ((self.trials - self.count) as f64 / (self.count + 1) as f64).ln() + self.odds;
        self.count += 1;
        if self.term > self.largest {
            self.scaled = self.scaled * (self.largest - self.term).exp() + 1.0;
            self.largest = self.term;
        } else {
            self.scaled += (self.term - self.largest).exp();
        }
    }

    fn sum(&self) -> f64 {
        if self.count == self.trials { 1.0 } else { (self.largest.exp() * self.scaled).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_as_scipy_has_them() {
        // scipy.stats.binom.cdf
        let cases = [
            (2, 10, 0.3, 0.382_782_786_4),
            (0, 59, 0.05, 0.048_494_525_249_423),
            (5, 200, 0.05, 0.062_342_495_042_294_7),
            (10, 10, 0.4, 1.0),
        ];
        for (count, trials, rate, expected) in cases {
            let found = at_most(count, trials, rate);
            assert!((found - expected).abs() < 1e-9, "{count} of {trials} at {rate}: {found}");
        }
        // A million rows: the first term underflows f64.
        let half = at_most(500_000, 1_000_000, 0.5);
        assert!((half - 0.500_398_942).abs() < 1e-6, "{half}");
    }

    #[test]
    fn fifty_nine_rows_without_error_show_five_percent() {
        // The rule of Wilks (1941): 0.95^59 < 0.05 < 0.95^58.
        assert_eq!(most_errors(59, 0.05, 0.05), Some(0));
        assert_eq!(most_errors(58, 0.05, 0.05), None);
        assert_eq!(most_errors(200, 0.05, 0.1), Some(5));
        assert_eq!(most_errors(0, 0.05, 0.1), None);
    }

    #[test]
    fn bounds_as_published() {
        // Without errors the bound is 1 − delta^(1/n).
        let none = upper_bound(0, 50, 0.05).unwrap();
        assert!((none - (1.0 - 0.05f64.powf(1.0 / 50.0))).abs() < 1e-9);
        // scipy.stats.beta.ppf(0.95, 4, 97)
        let three = upper_bound(3, 100, 0.05).unwrap();
        assert!((three - 0.075_710_793_75).abs() < 1e-9, "{three}");
        assert_eq!((upper_bound(4, 4, 0.1), upper_bound(0, 0, 0.1)), (Some(1.0), None));
    }
}
