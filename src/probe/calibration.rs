//! Calibration: a monotone map of logits that makes a probe's probabilities match observed frequencies.
//!
//! Logits `[rows, heads]` and true classes of rows that the probe was not fitted on go in; a [`Calibration`] comes out.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::calibration_choice::CalibrationChoice;
use crate::probe::isotonic::IsotonicCurve;
use crate::probe::link::Link;
use crate::probe::platt;
use crate::stats;

/// A map from logits to calibrated logits, applied before the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "method")]
pub enum Calibration {
    /// The identity.
    None,
    /// logit / temperature (Guo et al. 2017, arXiv 1706.04599); keeps the order of classes and of rows.
    Temperature {
        /// Above 0.
        temperature: f64,
    },
    /// slope · logit + offset, for one head (Platt 1999).
    Platt {
        /// Factor of the logit.
        slope: f64,
        /// Added to the scaled logit.
        offset: f64,
    },
    /// A non-decreasing curve from each class's log-odds against the rest to its frequency (Zadrozny & Elkan 2002): one
    /// curve for two classes; one per class for more, after which each row is normalised to sum to 1.
    Isotonic {
        /// One per head.
        curves: Vec<IsotonicCurve>,
    },
}

/// Each class's log-odds against all others together, `[rows, heads]`, of logits `[rows, heads]`. The logit of a single
/// head is its log-odds already.
fn log_odds(logits: ArrayView2<f64>) -> Array2<f64> {
    if logits.ncols() == 1 {
        return logits.to_owned();
    }
    let mut odds = logits.to_owned();
    for (row, mut odds) in logits.rows().into_iter().zip(odds.rows_mut()) {
        for class in 0..row.len() {
            let others = || row.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, z)| *z);
            let largest = others().fold(f64::NEG_INFINITY, f64::max);
            odds[class] -= largest + others().map(|z| (z - largest).exp()).sum::<f64>().ln();
        }
    }
    odds
}

/// Rows between the classes from which on an isotonic curve is taken for more than a step.
const LEAST_OVERLAP: usize = 10;

/// The number of rows whose log-odds lie where both a class and the others occur; of several classes, the least.
fn overlap(link: Link, logits: ArrayView2<f64>, classes: &[usize]) -> usize {
    let odds = log_odds(logits);
    let between = |(head, column): (usize, ArrayView1<f64>)| {
        let class = if link == Link::Binary { 1 } else { head };
        let own = || column.iter().zip(classes).filter(|(_, own)| **own == class).map(|(odds, _)| *odds);
        let others = || column.iter().zip(classes).filter(|(_, own)| **own != class).map(|(odds, _)| *odds);
        let (low, high) = (own().fold(f64::INFINITY, f64::min), others().fold(f64::NEG_INFINITY, f64::max));
        column.iter().filter(|odds| (low..=high).contains(*odds)).count()
    };
    odds.columns().into_iter().enumerate().map(between).min().unwrap_or(0)
}

impl Calibration {
    /// Calibrated logits `[rows, heads]` of logits `[rows, heads]`.
    pub fn apply(&self, logits: Array2<f64>) -> Array2<f64> {
        match self {
            Calibration::None => logits,
            Calibration::Temperature { temperature } => logits / *temperature,
            Calibration::Platt { slope, offset } => logits * *slope + *offset,
            Calibration::Isotonic { curves } => {
                let mut logits = log_odds(logits.view());
                for (mut column, curve) in logits.columns_mut().into_iter().zip(curves) {
                    column.mapv_inplace(|log_odds| curve.probability(log_odds));
                }
                // The inverse of the link: the logit for one head, the logarithm under a softmax.
                if curves.len() == 1 { logits.mapv(|p| (p / (1.0 - p)).ln()) } else { logits.mapv(f64::ln) }
            }
        }
    }

    /// Slope and offset, where calibrated logit = slope · logit + offset on every head; `None` for an isotonic curve.
    /// An affine calibration folds into a probe's weights and bias.
    pub fn as_affine(&self) -> Option<(f64, f64)> {
        match self {
            Calibration::None => Some((1.0, 0.0)),
            Calibration::Temperature { temperature } => Some((1.0 / temperature, 0.0)),
            Calibration::Platt { slope, offset } => Some((*slope, *offset)),
            Calibration::Isotonic { .. } => None,
        }
    }

    /// Its name in files and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Calibration::None => "none",
            Calibration::Temperature { .. } => "temperature",
            Calibration::Platt { .. } => "platt",
            Calibration::Isotonic { .. } => "isotonic",
        }
    }

    /// Every calibration of the choice that can be fitted to these rows, in ascending number of parameters.
    fn candidates(
        link: Link,
        logits: ArrayView2<f64>,
        classes: &[usize],
        choice: CalibrationChoice,
    ) -> Vec<Calibration> {
        if choice == CalibrationChoice::None {
            return vec![Calibration::None];
        }
        let mut all = vec![Calibration::temperature(link, logits, classes)];
        if link == Link::Binary {
            let positive: Vec<bool> = classes.iter().map(|&class| class == 1).collect();
            all.extend(Calibration::platt(logits.column(0), &positive));
        }
        // Where the classes hardly overlap, an isotonic curve is a step from 0 to 1 and says nothing about what lies between.
        if choice == CalibrationChoice::Isotonic || overlap(link, logits, classes) >= LEAST_OVERLAP {
            all.push(Calibration::isotonic(link, logits, classes));
        }
        if choice != CalibrationChoice::Auto {
            all.retain(|own| own.name() == choice.to_string());
        }
        all
    }

    /// The calibration with the least cross-validated log loss, fitted on all rows; and the probabilities `[rows, classes]`
    /// that it gives each fold's rows when it is fitted on the other folds. `folds` holds the rows of each fold.
    ///
    /// A candidate with more parameters wins only by more than the standard error of the per-row difference. With fewer
    /// than two folds the result is temperature scaling. A choice other than `auto` leaves one candidate.
    ///
    /// # Errors
    /// A choice that can't be fitted: Platt scaling of more than two classes, or of logits that do not vary.
    pub fn select(
        link: Link,
        logits: ArrayView2<f64>,
        classes: &[usize],
        folds: &[Vec<usize>],
        choice: CalibrationChoice,
    ) -> Result<(Calibration, Array2<f64>)> {
        let mut candidates = Calibration::candidates(link, logits, classes, choice);
        if candidates.is_empty() {
            let found = format!("{choice}, which takes two classes whose logits vary");
            return Err(Error::input("calibration", found, "auto, temperature, isotonic or none"));
        }
        let in_sample = |calibration: &Calibration| {
            (calibration.clone(), link.probabilities(calibration.apply(logits.to_owned())))
        };
        if folds.len() < 2 {
            return Ok(in_sample(&candidates[0]));
        }
        // Out-of-fold probabilities of each candidate.
        let mut out_of_fold: Vec<Option<Array2<f64>>> = vec![None; candidates.len()];
        for fold in folds {
            let mut is_held_out = vec![false; classes.len()];
            fold.iter().for_each(|&row| is_held_out[row] = true);
            let rest: Vec<usize> = (0..classes.len()).filter(|&row| !is_held_out[row]).collect();
            let truth: Vec<usize> = rest.iter().map(|&row| classes[row]).collect();
            let fitted = Calibration::candidates(link, logits.select(Axis(0), &rest).view(), &truth, choice);
            for (candidate, out_of_fold) in candidates.iter().zip(&mut out_of_fold) {
                let Some(own) = fitted.iter().find(|other| other.name() == candidate.name()) else {
                    continue;
                };
                let part = link.probabilities(own.apply(logits.select(Axis(0), fold)));
                let whole = out_of_fold
                    .get_or_insert_with(|| Array2::from_elem((classes.len(), part.ncols()), f64::NAN));
                fold.iter().zip(part.rows()).for_each(|(&row, part)| whole.row_mut(row).assign(&part));
            }
        }
        // A candidate that could not be fitted in some fold (logits that do not vary) has NaN rows, and is left out.
        let losses = |probabilities: &Array2<f64>| -> Option<Vec<f64>> {
            let rows = probabilities.rows().into_iter().zip(classes);
            let loss = |(row, class): (ArrayView1<f64>, &usize)| {
                stats::log_loss(row.insert_axis(Axis(0)), std::slice::from_ref(class))
                    .filter(|loss| loss.is_finite())
            };
            rows.map(loss).collect()
        };
        let mut best: Option<(usize, Vec<f64>)> = None;
        for (index, probabilities) in out_of_fold.iter().enumerate() {
            let Some(own) = probabilities.as_ref().and_then(losses) else { continue };
            let wins = best.as_ref().is_none_or(|(_, best)| {
                let gains: Vec<f64> = best.iter().zip(&own).map(|(before, now)| before - now).collect();
                let n = gains.len() as f64;
                let mean = gains.iter().sum::<f64>() / n;
                let variance = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / n;
                mean > (variance / n).sqrt()
            });
            if wins {
                best = Some((index, own));
            }
        }
        Ok(match best.and_then(|(index, _)| Some((index, out_of_fold.swap_remove(index)?))) {
            Some((index, probabilities)) => (candidates.swap_remove(index), probabilities),
            None => in_sample(&candidates[0]),
        })
    }

    /// Isotonic regression of each class on its log-odds, from logits `[rows, heads]` and true classes.
    pub fn isotonic(link: Link, logits: ArrayView2<f64>, classes: &[usize]) -> Calibration {
        let odds = log_odds(logits);
        let class_of = |head: usize| if link == Link::Binary { 1 } else { head };
        let curves = odds.columns().into_iter().enumerate().map(|(head, column)| {
            IsotonicCurve::fit(column, classes.iter().map(|&class| class == class_of(head)))
        });
        Calibration::Isotonic { curves: curves.collect() }
    }

    /// The temperature of least log loss, from logits `[rows, heads]` and true classes; within 1e-8 to 1e8.
    ///
    /// Targets are smoothed as in Platt's method: (n + 1)/(n + 2) for a class of n rows, so that perfectly separated rows
    /// have a finite temperature too.
    pub fn temperature(link: Link, logits: ArrayView2<f64>, classes: &[usize]) -> Calibration {
        let logits = match link {
            // As the two heads (0, z) of a softmax, to have one case.
            Link::Binary => {
                let column = logits.column(0);
                Array2::from_shape_fn(
                    (logits.nrows(), 2),
                    |(row, head)| if head == 0 { 0.0 } else { column[row] },
                )
            }
            _ => logits.to_owned(),
        };
        let mut counts = vec![0.0; logits.ncols()];
        classes.iter().for_each(|&class| counts[class] += 1.0);
        let others = logits.ncols() as f64 - 1.0;
        // The mean logit under the smoothed targets, which does not depend on the temperature.
        let target_mean = |row: ArrayView1<f64>, class: usize| {
            let smoothing: f64 = 1.0 / (counts[class] + 2.0);
            (1.0 - smoothing) * row[class] + smoothing / others * (row.sum() - row[class])
        };
        let rows = || logits.rows().into_iter().zip(classes);
        let target: f64 = rows().map(|(row, &class)| target_mean(row, class)).sum();
        // The loss is convex in the inverse temperature β, with derivative Σ E_softmax(βz)[z] − target.
        let derivative = |inverse: f64| {
            let mean = |row: ArrayView1<f64>| {
                let largest = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let (mut sum, mut weighted) = (0.0, 0.0);
                for &logit in row {
                    let share = ((logit - largest) * inverse).exp();
                    sum += share;
                    weighted += share * logit;
                }
                weighted / sum
            };
            rows().map(|(row, _)| mean(row)).sum::<f64>() - target
        };
        // Bisection on log β.
        let (mut low, mut high) = (1e-8f64.ln(), 1e8f64.ln());
        for _ in 0..45 {
            let middle = (low + high) / 2.0;
            if derivative(middle.exp()) < 0.0 { low = middle } else { high = middle }
        }
        Calibration::Temperature { temperature: (-(low + high) / 2.0).exp() }
    }

    /// Platt scaling of one head's logits; see [`Calibration::Platt`]. `None` where the logits do not vary.
    pub fn platt(logits: ArrayView1<f64>, positive: &[bool]) -> Option<Calibration> {
        platt::slope_and_offset(logits, positive).map(|(slope, offset)| Calibration::Platt { slope, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    /// Logits and classes of which the share of class 1 is just what logits of half the size would say.
    fn sure_twice_over() -> (Array1<f64>, Vec<usize>) {
        let mut rows = Vec::new();
        for logit in [-3.0, -1.0, 0.5, 2.0f64] {
            let ones = (2000.0 / (1.0 + (-logit / 2.0).exp())).round() as usize;
            rows.extend((0..2000).map(|row| (logit, usize::from(row < ones))));
        }
        (rows.iter().map(|row| row.0).collect(), rows.iter().map(|row| row.1).collect())
    }

    #[test]
    fn finds_the_temperature_that_the_data_were_made_with() {
        let (logits, classes) = sure_twice_over();
        let column = logits.clone().insert_axis(ndarray::Axis(1));
        let Calibration::Temperature { temperature } =
            Calibration::temperature(Link::Binary, column.view(), &classes)
        else {
            panic!("another calibration");
        };
        assert!((temperature - 2.0).abs() < 0.01, "{temperature}");
        // The same as two heads of a softmax.
        let both = Array2::from_shape_fn((logits.len(), 2), |(row, head)| logits[row] * (head as f64 - 0.5));
        let same = Calibration::temperature(Link::Multinomial, both.view(), &classes);
        assert!(
            matches!(same, Calibration::Temperature { temperature: t } if (t - temperature).abs() < 1e-6)
        );
    }

    #[test]
    fn finds_the_slope_and_offset_that_the_data_were_made_with() {
        let (logits, classes) = sure_twice_over();
        let positive: Vec<bool> = classes.iter().map(|&class| class == 1).collect();
        // Shifted logits: (z + 3) / 2 − 1.5 is z / 2.
        let shifted = &logits + 3.0;
        let Some(Calibration::Platt { slope, offset }) = Calibration::platt(shifted.view(), &positive) else {
            panic!("another calibration");
        };
        assert!((slope - 0.5).abs() < 0.003 && (offset + 1.5).abs() < 0.01, "{slope} {offset}");
        assert_eq!(Calibration::platt(Array1::zeros(4).view(), &[true, false, true, false]), None);
    }

    #[test]
    fn separated_rows_have_a_finite_temperature() {
        let logits = ndarray::array![[-5.0], [-4.0], [4.0], [5.0]];
        let calibrated = Calibration::temperature(Link::Binary, logits.view(), &[0, 0, 1, 1]).apply(logits);
        // Two rows a class: the truth counts as 3/4 sure, so no row is called much surer than that.
        let p = 1.0 / (1.0 + (-calibrated[[3, 0]]).exp());
        assert!((0.7..0.85).contains(&p), "{p}");
    }

    /// Logits of one head, and classes drawn by what `p` makes of them; five folds.
    fn drawn(rows: usize, p: impl Fn(f64) -> f64) -> (Array2<f64>, Vec<usize>, Vec<Vec<usize>>) {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut random = StdRng::seed_from_u64(2);
        let logits = Array2::from_shape_fn((rows, 1), |_| random.random_range(-4.0..4.0));
        let classes = logits.iter().map(|&z| usize::from(random.random::<f64>() < p(z))).collect();
        let folds = (0..5).map(|fold| (fold..rows).step_by(5).collect()).collect();
        (logits, classes, folds)
    }

    #[test]
    fn the_way_that_the_data_ask_for_is_chosen() {
        let logistic = |z: f64| 1.0 / (1.0 + (-z).exp());
        let select = |p: &dyn Fn(f64) -> f64| {
            let (logits, classes, folds) = drawn(3000, p);
            let (calibration, probabilities) =
                Calibration::select(Link::Binary, logits.view(), &classes, &folds, CalibrationChoice::Auto)
                    .unwrap();
            let error = stats::calibration_error(probabilities.view(), &classes, 15).unwrap();
            (calibration.name(), error)
        };
        // Twice too sure; shifted; a step, which no slope can follow.
        let cases: [(&dyn Fn(f64) -> f64, &str); 3] = [
            (&|z| logistic(z / 2.0), "temperature"),
            (&|z| logistic(z - 2.0), "platt"),
            (&|z| if z < 0.0 { 0.05 } else { 0.6 }, "isotonic"),
        ];
        for (truth, expected) in cases {
            let (name, error) = select(truth);
            assert_eq!(name, expected);
            assert!(error < 0.03, "{name} {error}");
        }
    }

    #[test]
    fn several_classes_are_made_honest_too() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut random = StdRng::seed_from_u64(4);
        let truth = Array2::from_shape_fn((4000, 3), |_| random.random_range(-2.0..2.0));
        let shares = Link::Multinomial.probabilities(truth.clone());
        let draw = |row: ArrayView1<f64>| {
            let mut left: f64 = random.random();
            row.iter()
                .position(|p| {
                    left -= p;
                    left < 0.0
                })
                .unwrap_or(2)
        };
        let classes: Vec<usize> = shares.rows().into_iter().map(draw).collect();
        // The third class is called far too often: no temperature mends that.
        let mut logits = truth;
        logits.column_mut(2).mapv_inplace(|z| z + 2.0);
        let folds: Vec<Vec<usize>> = (0..5).map(|fold| (fold..4000).step_by(5).collect()).collect();
        let (calibration, probabilities) =
            Calibration::select(Link::Multinomial, logits.view(), &classes, &folds, CalibrationChoice::Auto)
                .unwrap();
        assert_eq!(calibration.name(), "isotonic");
        let before = Link::Multinomial.probabilities(logits);
        let error = |p: &Array2<f64>| stats::calibration_error(p.view(), &classes, 15).unwrap();
        assert!(
            error(&before) > 0.1 && error(&probabilities) < 0.03,
            "{} {}",
            error(&before),
            error(&probabilities)
        );
        assert!(probabilities.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-9));
    }

    #[test]
    fn says_whether_it_is_affine() {
        let logits = ndarray::array![[0.0, -8.0], [1.0, 0.3]];
        let affine = [
            Calibration::None,
            Calibration::Temperature { temperature: 0.7 },
            Calibration::Platt { slope: -1.5, offset: 0.25 },
        ];
        for calibration in affine {
            let (slope, offset) = calibration.as_affine().unwrap();
            let away = calibration.apply(logits.clone()) - (&logits * slope + offset);
            assert!(away.iter().all(|d| d.abs() < 1e-12), "{}", calibration.name());
        }
        assert_eq!(Calibration::Isotonic { curves: Vec::new() }.as_affine(), None);
    }

    #[test]
    fn a_saved_curve_comes_back() {
        let (logits, classes, _) = drawn(50, |z| if z < 0.0 { 0.1 } else { 0.9 });
        let calibration = Calibration::isotonic(Link::Binary, logits.view(), &classes);
        let text = serde_json::to_string(&calibration).unwrap();
        assert!(text.starts_with("{\"method\":\"isotonic\",\"curves\":[{\"at\":["), "{text}");
        assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), calibration);
    }

    #[test]
    fn a_curve_that_is_a_step_is_taken_only_where_it_is_asked_for() {
        // Separated classes with a gap: an isotonic curve has two knots, near 0 and near 1.
        let logits = Array2::from_shape_fn((60, 1), |(row, _)| (row as f64 - 29.5) / 10.0);
        let classes: Vec<usize> = (0..60).map(|row| usize::from(row >= 30)).collect();
        let folds: Vec<Vec<usize>> = (0..5).map(|fold| (fold..60).step_by(5).collect()).collect();
        let select = |choice| Calibration::select(Link::Binary, logits.view(), &classes, &folds, choice);
        let (chosen, _) = select(CalibrationChoice::Auto).unwrap();
        assert!(chosen.as_affine().is_some(), "{chosen:?}");
        for choice in ["temperature", "platt", "isotonic", "none"] {
            let (chosen, probabilities) = select(choice.parse().unwrap()).unwrap();
            assert_eq!(chosen.name(), choice);
            assert!(probabilities.iter().all(|p| p.is_finite()), "{choice}");
        }
        let three = Array2::from_shape_fn((60, 3), |(row, class)| ((row * (class + 2)) % 7) as f64);
        let error =
            Calibration::select(Link::Multinomial, three.view(), &classes, &folds, CalibrationChoice::Platt);
        assert!(error.unwrap_err().to_string().contains("calibration: platt"));
        assert!("straight".parse::<CalibrationChoice>().is_err());
    }
}
