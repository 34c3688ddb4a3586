//! Classification metrics of predicted probabilities, each with a 95 % interval and the split that it is on.

use ndarray::{ArrayView2, array, s};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use crate::probe::link::Link;
use crate::probe::plan::ValidationPlan;
use crate::probe::targets::Targets;
use crate::stats::{
    self, CalibrationGap, Interval, Linearised, Metric, Ranking, Units, debiased_calibration_error,
};

/// The metrics of probabilities `[rows, classes]`, with 95 % intervals: `auroc`, `average_precision`, `accuracy`,
/// `log_loss`, `brier`, `ece`, and with more than two classes `auroc/CLASS` and `average_precision/CLASS` (`auroc` and
/// `average_precision` are then macro averages, one class against the rest). A metric that has no value on these rows is
/// left out.
///
/// Intervals are over whole groups where `plan.by_group` says so and there are two or more ([`Units::groups`]), by Student's t;
/// shares have a width at 0 and 1 too ([`Linearised::interval`]). `ece` is debiased, and its interval reaches 0 where the forecast
/// may be calibrated ([`debiased_calibration_error`]); `ece/binned` is the plain binned error.
///
/// `ece/chance` is the binned error of a perfectly calibrated forecast with these probabilities on as many
/// rows: the mean and the central 95 % of `plan.resamples` simulations. It is above 0 because bins hold few rows.
pub fn classification_metrics(
    probabilities: ArrayView2<f64>,
    targets: &Targets,
    plan: &ValidationPlan,
    split: &str,
) -> Vec<Metric> {
    fold_metrics(probabilities, targets, &[], plan, split)
}

/// [`classification_metrics`] of rows that several probes predicted, one a fold: `auroc` and `average_precision` are means over
/// the folds, because scores of different probes have no common scale to be ranked on. `folds` holds the rows of each.
pub fn fold_metrics(
    probabilities: ArrayView2<f64>,
    targets: &Targets,
    folds: &[Vec<usize>],
    plan: &ValidationPlan,
    split: &str,
) -> Vec<Metric> {
    let units = units(targets, plan);
    let metric = |name: String, interval: Interval, is_sure: bool| Metric {
        name,
        value: interval.value,
        low: (is_sure && plan.resamples > 0).then_some(interval.low),
        high: (is_sure && plan.resamples > 0).then_some(interval.high),
        n: targets.rows(),
        split: split.to_owned(),
    };
    let mut metrics = Vec::new();
    let mut by_class = Vec::new();
    type Rank = fn(&Ranking) -> Option<Linearised>;
    let ranked: [(&str, Rank); 2] =
        [("auroc", Ranking::linearised_auroc), ("average_precision", Ranking::linearised_average_precision)];
    for (name, rank) in ranked {
        let area = |heads| mean_over_folds(probabilities, targets, folds, heads, rank);
        let all = heads(targets);
        metrics.extend(area(all.clone()).map(|area| metric(name.into(), area.interval(&units), true)));
        for class in all.clone().filter(|_| all.len() > 1) {
            let name = format!("{name}/{}", targets.class_names[class]);
            by_class.extend(area(class..class + 1).map(|area| metric(name, area.interval(&units), true)));
        }
    }
    let losses = Losses::new(probabilities, targets, plan.bins.max(1));
    metrics.extend(losses.accuracy().map(|share| metric("accuracy".into(), share.interval(&units), true)));
    for (index, name) in ["log_loss", "brier"].into_iter().enumerate() {
        metrics.extend(losses.mean(index, &units).map(|mean| metric(name.into(), mean, true)));
    }
    if let Some(binned) = losses.calibration_error() {
        let draws = plan.resamples;
        let debiased = debiased_calibration_error(&losses.gaps, losses.bins, &units, draws, plan.seed);
        let binned = Interval { value: binned, low: binned, high: binned };
        metrics.push(metric("ece".into(), debiased.unwrap_or(binned), debiased.is_some()));
        metrics.extend(debiased.map(|_| metric("ece/binned".into(), binned, false)));
    }
    metrics.extend(by_class);
    metrics.extend(losses.calibration_error_by_chance(plan, split));
    metrics
}

/// The macro-averaged AUROC of [`fold_metrics`] with the influence of every row, to be compared with another on the same rows.
pub fn linearised_auroc(
    probabilities: ArrayView2<f64>,
    targets: &Targets,
    folds: &[Vec<usize>],
) -> Option<Linearised> {
    mean_over_folds(probabilities, targets, folds, heads(targets), Ranking::linearised_auroc)
}

/// The independent units of an interval: whole groups, or single rows.
pub fn units(targets: &Targets, plan: &ValidationPlan) -> Units {
    if plan.by_group { Units::groups(&targets.groups) } else { Units::rows(targets.rows()) }
}

/// The columns that are ranked: the second of two classes has the same area as the first.
fn heads(targets: &Targets) -> std::ops::Range<usize> {
    if targets.link == Link::Binary { 1..2 } else { 0..targets.class_names.len() }
}

/// A ranking metric, averaged over heads in each fold and then over the folds that hold two classes. Where none does (single
/// rows held out), all rows are ranked together.
fn mean_over_folds(
    probabilities: ArrayView2<f64>,
    targets: &Targets,
    folds: &[Vec<usize>],
    heads: std::ops::Range<usize>,
    rank: fn(&Ranking) -> Option<Linearised>,
) -> Option<Linearised> {
    let of_rows = |rows: &[usize]| {
        let of_head = |head: usize| {
            let scores: Vec<f64> = rows.iter().map(|&row| probabilities[[row, head]]).collect();
            let positive: Vec<bool> = rows.iter().map(|&row| targets.is(row, head)).collect();
            let ranking = Ranking::new(&scores, &positive)?;
            // Without a negative there is nothing to rank, though average precision would be 1.
            ranking.linearised_auroc().and_then(|_| rank(&ranking))
        };
        Linearised::average(&heads.clone().filter_map(of_head).collect::<Vec<_>>())
    };
    let parts = folds.iter().filter_map(|rows| Some((of_rows(rows)?, rows.as_slice())));
    let mean = Linearised::average_of_parts(&parts.collect::<Vec<_>>(), targets.rows());
    mean.or_else(|| of_rows(&(0..targets.rows()).collect::<Vec<_>>()))
}

/// The losses of each row alone, and what the probabilities say about them.
struct Losses {
    /// Accuracy, log loss and Brier score.
    own: Vec<[f64; 3]>,
    /// Variances of log loss and Brier score if the probabilities are right.
    variances: Vec<[f64; 2]>,
    /// By row, one gap; in the multi-label case one for each label.
    gaps: Vec<Vec<CalibrationGap>>,
    bins: usize,
}

impl Losses {
    fn new(probabilities: ArrayView2<f64>, targets: &Targets, bins: usize) -> Losses {
        // The distributions over exclusive cases that a row consists of, with the true case: one, or one a label.
        let cases = |row: usize| -> Vec<(ndarray::Array2<f64>, usize)> {
            let whole = probabilities.slice(s![row..=row, ..]);
            if targets.link != Link::MultiLabel {
                return vec![(whole.to_owned(), targets.classes[row])];
            }
            let label =
                |(label, &p): (usize, &f64)| (array![[1.0 - p, p]], usize::from(targets.is(row, label)));
            whole.iter().enumerate().map(label).collect()
        };
        // A single row always has a mean.
        let loss = |of: fn(ArrayView2<f64>, &[usize]) -> Option<f64>, p: ArrayView2<f64>, class: usize| {
            of(p, &[class]).unwrap_or(f64::NAN)
        };
        let (mut own, mut variances, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..targets.rows() {
            let cases = cases(row);
            let share = 1.0 / cases.len() as f64;
            let (mut mean, mut variance) = ([0.0; 3], [0.0; 2]);
            for (p, class) in &cases {
                let losses = [stats::accuracy, stats::log_loss, stats::brier];
                for (sum, of) in mean.iter_mut().zip(losses) {
                    *sum += share * loss(of, p.view(), *class);
                }
                for (sum, of) in variance.iter_mut().zip([stats::log_loss, stats::brier]) {
                    let moments =
                        p.iter().enumerate().fold([0.0; 2], |[first, second], (class, &p_class)| {
                            let value = loss(of, p.view(), class);
                            [first + p_class * value, second + p_class * value * value]
                        });
                    *sum += share * share * (moments[1] - moments[0] * moments[0]).max(0.0);
                }
            }
            let gap = |(p, class): &(ndarray::Array2<f64>, usize)| {
                let (bin, gap) = stats::calibration_gap(p.row(0), *class, bins);
                let confidence = if gap >= 0.0 { 1.0 - gap } else { -gap };
                let variance = share * share * confidence * (1.0 - confidence);
                CalibrationGap { bin, gap: share * gap, variance }
            };
            own.push(mean);
            variances.push(variance);
            gaps.push(cases.iter().map(gap).collect());
        }
        Losses { own, variances, gaps, bins }
    }

    fn accuracy(&self) -> Option<Linearised> {
        Linearised::mean(&self.own.iter().map(|losses| losses[0]).collect::<Vec<_>>())
    }

    /// Log loss (0) or Brier score (1): the mean with its interval by Student's t. The variance is at least the one that the
    /// probabilities imply: rows that are all certain and right have no variance of their own.
    fn mean(&self, index: usize, units: &Units) -> Option<Interval> {
        let n = self.own.len() as f64;
        let values: Vec<f64> = self.own.iter().map(|losses| losses[index + 1]).collect();
        let value = values.iter().sum::<f64>() / n;
        let influence: Vec<f64> = values.iter().map(|own| (own - value) / n).collect();
        let implied = self.variances.iter().map(|of| of[index]).sum::<f64>() / (n * n);
        let variance = units.covariance(&influence, &influence).max(implied);
        let reach = units.quantile() * variance.sqrt();
        (n > 0.0).then(|| Interval { value, low: (value - reach).max(0.0), high: value + reach })
    }

    fn calibration_error(&self) -> Option<f64> {
        let mut gaps = vec![0.0; self.bins];
        self.gaps.iter().flatten().for_each(|own| gaps[own.bin] += own.gap);
        let sum: f64 = gaps.iter().map(|gap| gap.abs()).sum();
        (!self.gaps.is_empty()).then(|| sum / self.gaps.len() as f64)
    }

    /// Calibration error of outcomes drawn from the probabilities themselves: mean and central 95 %.
    fn calibration_error_by_chance(&self, plan: &ValidationPlan, split: &str) -> Option<Metric> {
        let rows = self.gaps.len();
        // A gap is correctness (1 or 0) minus confidence.
        let confidence = |own: &CalibrationGap, share: f64| {
            (own.bin, if own.gap >= 0.0 { share - own.gap } else { -own.gap })
        };
        let draw = |resample: usize| {
            let mut random = StdRng::seed_from_u64(plan.seed.rotate_left(8) ^ resample as u64);
            let mut gaps = vec![0.0; self.bins];
            for row in &self.gaps {
                let share = 1.0 / row.len() as f64;
                for (bin, confidence) in row.iter().map(|gap| confidence(gap, share)) {
                    let correct = if random.random::<f64>() * share < confidence { share } else { 0.0 };
                    gaps[bin] += correct - confidence;
                }
            }
            gaps.iter().map(|gap| gap.abs()).sum::<f64>() / rows as f64
        };
        let mut drawn: Vec<f64> = (0..plan.resamples).into_par_iter().map(draw).collect();
        drawn.sort_by(f64::total_cmp);
        let value = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let at = |share: f64| drawn.get((share * (drawn.len() as f64 - 1.0)).round() as usize).copied();
        (rows > 0 && !drawn.is_empty()).then(|| Metric {
            name: "ece/chance".into(),
            value,
            low: at(0.025),
            high: at(0.975),
            n: rows,
            split: split.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_equal_the_plain_scores_of_the_same_rows() {
        let probabilities =
            array![[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6]];
        let targets = Targets::new(&["a", "b", "b", "c", "c"], &["1", "1", "2", "2", "3"], &[]).unwrap();
        let plan = ValidationPlan { by_group: true, bins: 5, ..ValidationPlan::default() };
        let figures = classification_metrics(probabilities.view(), &targets, &plan, "test");
        let value = |name: &str| figures.iter().find(|figure| figure.name == name).unwrap().value;
        let (view, classes) = (probabilities.view(), &targets.classes);
        let near = |a: f64, b: Option<f64>| (a - b.unwrap()).abs() < 1e-12;
        assert!(near(value("auroc"), stats::auroc_macro(view, classes)));
        assert!(near(value("accuracy"), stats::accuracy(view, classes)));
        assert!(near(value("log_loss"), stats::log_loss(view, classes)));
        assert!(near(value("brier"), stats::brier(view, classes)));
        assert!(near(value("ece/binned"), stats::calibration_error(view, classes, 5)));
        // Class b's own column: .3 and .8 among .2, .1, .2: both above all others.
        assert_eq!((value("auroc/b"), value("average_precision/b")), (1.0, 1.0));
        assert_eq!(figures.len(), 14);
    }

    #[test]
    fn scores_of_several_folds_are_ranked_fold_by_fold() {
        // Each fold ranks its own rows without error; the second fold's probe is shifted, so that the pool has errors.
        let p = [0.1, 0.2, 0.4, 0.5, 0.3, 0.45, 0.6, 0.7];
        let probabilities =
            ndarray::Array2::from_shape_fn((8, 2), |(row, class)| [1.0 - p[row], p[row]][class]);
        let labels = ["a", "a", "b", "b", "a", "a", "b", "b"];
        let groups = ["1", "1", "2", "2", "3", "3", "4", "4"];
        let targets = Targets::new(&labels, &groups, &[]).unwrap();
        let plan = ValidationPlan { resamples: 0, ..ValidationPlan::default() };
        let area = |folds: &[Vec<usize>]| {
            let metrics = fold_metrics(probabilities.view(), &targets, folds, &plan, "validation");
            metrics.into_iter().find(|metric| metric.name == "auroc").unwrap().value
        };
        let folds = [vec![0, 1, 2, 3], vec![4, 5, 6, 7]];
        // Of 16 pairs in the pool one is lost: .45 above .4.
        assert_eq!((area(&[]), area(&folds)), (15.0 / 16.0, 1.0));
        // Folds of one class are left out of the mean; where none has two, the pool is ranked.
        assert_eq!(area(&[vec![0, 1, 2, 3], vec![4, 5], vec![6, 7]]), 1.0);
        assert_eq!(area(&[vec![0, 1], vec![2, 3], vec![4, 5], vec![6, 7]]), 15.0 / 16.0);
    }

    #[test]
    fn intervals_have_a_width_where_every_row_is_right_and_widen_over_groups() {
        let p = |row: usize| if row.is_multiple_of(2) { 0.002 } else { 0.998 };
        let probabilities =
            ndarray::Array2::from_shape_fn((300, 2), |(row, class)| [1.0 - p(row), p(row)][class]);
        let labels: Vec<&str> = (0..300).map(|row| ["a", "b"][row % 2]).collect();
        let groups: Vec<String> = (0..300).map(|row| (row / 60).to_string()).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let targets = Targets::new(&labels, &groups, &[]).unwrap();
        let metrics = |by_group: bool| {
            let plan = ValidationPlan { by_group, ..ValidationPlan::default() };
            classification_metrics(probabilities.view(), &targets, &plan, "test")
        };
        let (rows, grouped) = (metrics(false), metrics(true));
        let of = |metrics: &[Metric], name: &str| {
            metrics.iter().find(|metric| metric.name == name).unwrap().clone()
        };
        for name in ["auroc", "average_precision", "accuracy"] {
            let (one, other) = (of(&rows, name), of(&grouped, name));
            assert_eq!((one.value, one.high), (1.0, Some(1.0)));
            // No error among 150 of each class is about what an error rate of 1 in 100 gives.
            assert!((0.96..0.995).contains(&one.low.unwrap()), "{one:?}");
            assert!(other.low.unwrap() < one.low.unwrap() && other.low.unwrap() > 0.7, "{other:?}");
        }
        assert_eq!(of(&rows, "ece").low, Some(0.0));
        assert!((of(&rows, "ece/binned").value - 0.002).abs() < 1e-9);
        let loss = of(&rows, "log_loss");
        // An error of one row in 500 is due: its loss is ln 500 = 6.2.
        assert!(loss.low == Some(0.0) && loss.high.unwrap() > 0.01, "{loss:?}");
    }

    #[test]
    fn a_calibrated_forecast_has_a_calibration_error_by_chance() {
        // 400 rows that are 0.8 sure, all in one bin: |share right − 0.8| is sqrt(2/π) · sqrt(0.8 · 0.2 / 400) on average.
        let probabilities = ndarray::Array2::from_shape_fn((400, 2), |(_, class)| [0.2, 0.8][class]);
        let labels: Vec<&str> = (0..400).map(|row| if row < 320 { "b" } else { "a" }).collect();
        let targets = Targets::new(&labels, &labels, &[]).unwrap();
        let figures = classification_metrics(
            probabilities.view(),
            &targets,
            &ValidationPlan { resamples: 4000, ..ValidationPlan::default() },
            "test",
        );
        let figure = |name: &str| figures.iter().find(|figure| figure.name == name).unwrap();
        assert!((figure("ece/chance").value - 0.015_96).abs() < 0.000_8, "{:?}", figure("ece/chance"));
        assert!(
            figure("ece").value < 1e-9 && figure("ece").low == Some(0.0) && figure("ece/binned").value < 1e-9
        );
    }
}
