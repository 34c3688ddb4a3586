//! Calibration: what makes a probe's probabilities as sure as it is right, and which way of it is chosen.
//! It knows nothing of splits: the logits it is given must be of rows that the probe was not fitted on.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::probe::lbfgs::{Problem, minimise};
use crate::probe::probe::Link;
use crate::stats;

/// What is done to logits before the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "method")]
pub enum Calibration {
    None,
    /// logit / temperature (Guo et al. 2017, arXiv 1706.04599); the order of classes and rows stays.
    Temperature {
        temperature: f64,
    },
    /// slope · logit + offset, for one head (Platt 1999).
    Platt {
        slope: f64,
        offset: f64,
    },
    /// A rising curve from each class's log-odds against the rest to how often it is true (Zadrozny & Elkan 2002); of
    /// two classes one curve, of more one a class, after which the row is made to sum to 1 again.
    Isotonic {
        curves: Vec<Curve>,
    },
}

/// A rising curve: shares at places, straight between them, level beyond them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Log-odds, ascending.
    at: Vec<f64>,
    /// Not falling, within (0, 1).
    share: Vec<f64>,
}

impl Curve {
    /// The rising curve of least squared error: pool adjacent violators (Ayer et al. 1955). Shares keep 1 / (rows + 2) away
    /// from 0 and 1, since so many rows can't tell more.
    fn fit(log_odds: ArrayView1<f64>, hits: impl Iterator<Item = bool>) -> Curve {
        let mut rows: Vec<(f64, bool)> = log_odds.iter().copied().zip(hits).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Sum of places, hits and rows of each stretch.
        let mut blocks: Vec<(f64, f64, f64)> = Vec::new();
        for tie in rows.chunk_by(|a, b| a.0 == b.0) {
            let count = tie.len() as f64;
            let hits = tie.iter().filter(|row| row.1).count() as f64;
            let mut block = (tie[0].0 * count, hits, count);
            while let Some(before) = blocks.pop_if(|before| before.1 * block.2 >= block.1 * before.2) {
                block = (before.0 + block.0, before.1 + block.1, before.2 + block.2);
            }
            blocks.push(block);
        }
        let edge = 1.0 / (rows.len() as f64 + 2.0);
        Curve {
            at: blocks.iter().map(|block| block.0 / block.2).collect(),
            share: blocks.iter().map(|block| (block.1 / block.2).clamp(edge, 1.0 - edge)).collect(),
        }
    }

    fn share(&self, at: f64) -> f64 {
        let above = self.at.partition_point(|&place| place <= at);
        let (Some(&high), Some(&upper)) = (self.at.get(above), self.share.get(above)) else {
            return self.share.last().copied().unwrap_or(0.5);
        };
        let Some(below) = above.checked_sub(1) else { return upper };
        let (low, lower) = (self.at[below], self.share[below]);
        lower + (upper - lower) * (at - low) / (high - low)
    }
}

/// Each class's log-odds against all others together, `[rows, heads]`, of logits `[rows, heads]`: one head's own logit is
/// that already.
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

impl Calibration {
    /// Calibrated logits.
    pub fn apply(&self, logits: Array2<f64>) -> Array2<f64> {
        match self {
            Calibration::None => logits,
            Calibration::Temperature { temperature } => logits / *temperature,
            Calibration::Platt { slope, offset } => logits * *slope + *offset,
            Calibration::Isotonic { curves } => {
                let mut logits = log_odds(logits.view());
                for (mut column, curve) in logits.columns_mut().into_iter().zip(curves) {
                    column.mapv_inplace(|at| curve.share(at));
                }
                // The logistic function of one, the softmax of several, give the shares again.
                if curves.len() == 1 { logits.mapv(|p| (p / (1.0 - p)).ln()) } else { logits.mapv(f64::ln) }
            }
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

    /// Every way of it that these rows can be fitted by, the one of fewest numbers first.
    fn candidates(link: Link, logits: ArrayView2<f64>, classes: &[usize]) -> Vec<Calibration> {
        let mut all = vec![Calibration::temperature(link, logits, classes)];
        if link == Link::Binary {
            let positive: Vec<bool> = classes.iter().map(|&class| class == 1).collect();
            all.extend(Calibration::platt(logits.column(0), &positive));
        }
        all.push(Calibration::isotonic(link, logits, classes));
        all
    }

    /// The way of calibrating that does best on rows that it was not fitted on, fitted on all rows; and the probabilities
    /// `[rows, classes]` that it gives each row when it is fitted on the others. `folds` holds the rows of each fold.
    ///
    /// The least log loss wins, by more than its standard error over rows: fewer numbers are to be preferred where the
    /// data do not say. With fewer than two folds there is nothing to choose by, and the temperature is taken.
    pub fn chosen(
        link: Link,
        logits: ArrayView2<f64>,
        classes: &[usize],
        folds: &[Vec<usize>],
    ) -> (Calibration, Array2<f64>) {
        let mut whole = Calibration::candidates(link, logits, classes);
        let first = |calibration: &Calibration| {
            (calibration.clone(), link.probabilities(calibration.apply(logits.to_owned())))
        };
        if folds.len() < 2 {
            return first(&whole[0]);
        }
        let mut read: Vec<Option<Array2<f64>>> = vec![None; whole.len()];
        for fold in folds {
            let mut out = vec![false; classes.len()];
            fold.iter().for_each(|&row| out[row] = true);
            let rest: Vec<usize> = (0..classes.len()).filter(|&row| !out[row]).collect();
            let known: Vec<usize> = rest.iter().map(|&row| classes[row]).collect();
            let fitted = Calibration::candidates(link, logits.select(Axis(0), &rest).view(), &known);
            for (candidate, read) in whole.iter().zip(&mut read) {
                let Some(own) = fitted.iter().find(|other| other.name() == candidate.name()) else {
                    continue;
                };
                let part = link.probabilities(own.apply(logits.select(Axis(0), fold)));
                let read =
                    read.get_or_insert_with(|| Array2::from_elem((classes.len(), part.ncols()), f64::NAN));
                fold.iter().zip(part.rows()).for_each(|(&row, part)| read.row_mut(row).assign(&part));
            }
        }
        // A candidate that some fold could not fit (logits that do not vary) has no loss, and is not chosen.
        let losses = |read: &Array2<f64>| -> Option<Vec<f64>> {
            let rows = read.rows().into_iter().zip(classes);
            let loss = |(row, class): (ArrayView1<f64>, &usize)| {
                stats::log_loss(row.insert_axis(Axis(0)), std::slice::from_ref(class))
                    .filter(|loss| loss.is_finite())
            };
            rows.map(loss).collect()
        };
        let mut best: Option<(usize, Vec<f64>)> = None;
        for (index, read) in read.iter().enumerate() {
            let Some(own) = read.as_ref().and_then(losses) else { continue };
            let wins = best.as_ref().is_none_or(|(_, best)| {
                let gains: Vec<f64> = best.iter().zip(&own).map(|(before, now)| before - now).collect();
                let n = gains.len() as f64;
                let mean = gains.iter().sum::<f64>() / n;
                let square = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / n;
                mean > (square / n).sqrt()
            });
            if wins {
                best = Some((index, own));
            }
        }
        match best.and_then(|(index, _)| Some((index, read.swap_remove(index)?))) {
            Some((index, read)) => (whole.swap_remove(index), read),
            None => first(&whole[0]),
        }
    }

    /// The rising curves from log-odds to how often each class is true, on logits `[rows, heads]` of known classes.
    pub fn isotonic(link: Link, logits: ArrayView2<f64>, classes: &[usize]) -> Calibration {
        let odds = log_odds(logits);
        let class_of = |head: usize| if link == Link::Binary { 1 } else { head };
        let curves =
            odds.columns().into_iter().enumerate().map(|(head, column)| {
                Curve::fit(column, classes.iter().map(|&class| class == class_of(head)))
            });
        Calibration::Isotonic { curves: curves.collect() }
    }

    /// The temperature that makes the log loss least on logits `[rows, heads]` of known classes.
    ///
    /// The truth counts as slightly unsure, as in Platt's method: (n + 1)/(n + 2) for a class of n rows, so that
    /// perfectly separated rows have a finite temperature too. Kept within 1e-8 to 1e8.
    pub fn temperature(link: Link, logits: ArrayView2<f64>, classes: &[usize]) -> Calibration {
        let logits = match link {
            // As two heads (0, z), to have one case.
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
        // The mean logit under the truth does not change with the temperature.
        let truth = |row: ArrayView1<f64>, class: usize| {
            let doubt: f64 = 1.0 / (counts[class] + 2.0);
            (1.0 - doubt) * row[class] + doubt / others * (row.sum() - row[class])
        };
        let rows = || logits.rows().into_iter().zip(classes);
        let wanted: f64 = rows().map(|(row, &class)| truth(row, class)).sum();
        // The loss is convex in the inverse temperature; its slope is Σ mean logit under the probe − wanted.
        let slope = |inverse: f64| {
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
            rows().map(|(row, _)| mean(row)).sum::<f64>() - wanted
        };
        let (mut low, mut high) = (1e-8f64.ln(), 1e8f64.ln());
        for _ in 0..45 {
            let middle = (low + high) / 2.0;
            if slope(middle.exp()) < 0.0 { low = middle } else { high = middle }
        }
        Calibration::Temperature { temperature: (-(low + high) / 2.0).exp() }
    }

    /// Slope and offset that make the log loss least on one head's logits, the truth being (n₊ + 1)/(n₊ + 2) for the
    /// n₊ positives and 1/(n₋ + 2) for the n₋ negatives (Platt 1999). `None` where the logits do not vary.
    pub fn platt(logits: ArrayView1<f64>, positive: &[bool]) -> Option<Calibration> {
        let deviation = logits.std(0.0);
        if !deviation.is_finite() || deviation == 0.0 {
            return None;
        }
        let positives = positive.iter().filter(|&&is| is).count() as f64;
        let negatives = positive.len() as f64 - positives;
        let (sure, unsure) = ((positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0));
        let rows: Vec<(f64, f64)> = logits
            .iter()
            .zip(positive)
            .map(|(z, &is)| (z / deviation, if is { sure } else { unsure }))
            .collect();
        let mut problem = Problem {
            value: |at: &[f64], gradient: &mut [f64]| {
                gradient.fill(0.0);
                let mut loss = 0.0;
                for &(z, target) in &rows {
                    let logit = at[0] * z + at[1];
                    let small = (-logit.abs()).exp();
                    loss += small.ln_1p() + logit.max(0.0) - target * logit;
                    let residual = if logit >= 0.0 { 1.0 } else { small } / (1.0 + small) - target;
                    gradient[0] += residual * z;
                    gradient[1] += residual;
                }
                loss
            },
            precondition: |vector: &mut [f64]| vector.iter_mut().for_each(|v| *v *= 4.0 / rows.len() as f64),
            done: |_, gradient: &[f64]| gradient.iter().all(|g| g.abs() <= 1e-9 * rows.len() as f64),
        };
        // Where rounding ends the search a little early, the point is as good as f64 gives.
        let (point, _) = minimise(&mut problem, vec![0.0, 0.0]);
        Some(Calibration::Platt { slope: point[0] / deviation, offset: point[1] })
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

    #[test]
    fn the_isotonic_curve_by_hand() {
        let hits = [false, true, false, true, true];
        let curve = Curve::fit(ndarray::array![1.0, 2.0, 3.0, 4.0, 5.0].view(), hits.into_iter());
        // 2 and 3 are pooled to a half, 4 and 5 to one; shares keep 1/7 from the ends.
        let top = 1.0 - 1.0 / 7.0;
        assert_eq!(curve, Curve { at: vec![1.0, 2.5, 4.5], share: vec![1.0 / 7.0, 0.5, top] });
        assert_eq!((curve.share(-9.0), curve.share(2.5), curve.share(9.0)), (1.0 / 7.0, 0.5, top));
        assert!((curve.share(3.5) - (0.5 + 6.0 / 7.0) / 2.0).abs() < 1e-12);
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
        let chosen = |p: &dyn Fn(f64) -> f64| {
            let (logits, classes, folds) = drawn(3000, p);
            let (calibration, probabilities) =
                Calibration::chosen(Link::Binary, logits.view(), &classes, &folds);
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
            let (name, error) = chosen(truth);
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
            Calibration::chosen(Link::Multinomial, logits.view(), &classes, &folds);
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
    fn a_saved_curve_comes_back() {
        let (logits, classes, _) = drawn(50, |z| if z < 0.0 { 0.1 } else { 0.9 });
        let calibration = Calibration::isotonic(Link::Binary, logits.view(), &classes);
        let text = serde_json::to_string(&calibration).unwrap();
        assert!(text.starts_with("{\"method\":\"isotonic\",\"curves\":[{\"at\":["), "{text}");
        assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), calibration);
    }
}
