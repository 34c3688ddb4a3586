//! Classification metrics of predicted probabilities, each with a bootstrap interval and the split that it is on.

use ndarray::{ArrayView2, array, s};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use crate::probe::link::Link;
use crate::probe::plan::ValidationPlan;
use crate::probe::targets::Targets;
use crate::stats::{self, Interval, Metric, Ranking};

/// Names of the metrics over all classes.
const OVERALL: [&str; 6] = ["auroc", "average_precision", "accuracy", "log_loss", "brier", "ece"];

/// The metrics of probabilities `[rows, classes]`, with 95 % bootstrap intervals: `auroc`, `average_precision`, `accuracy`,
/// `log_loss`, `brier`, `ece`, and with more than two classes `auroc/CLASS` and `average_precision/CLASS` (`auroc` and
/// `average_precision` are then macro averages, one class against the rest). A metric that has no value on these rows is
/// left out.
///
/// `ece/chance` is the expected calibration error of a perfectly calibrated forecast with these probabilities on as many
/// rows: the mean and the central 95 % of `plan.resamples` simulations. It is above 0 because bins hold few rows.
pub fn classification_metrics(
    probabilities: ArrayView2<f64>,
    targets: &Targets,
    plan: &ValidationPlan,
    split: &str,
) -> Vec<Metric> {
    let class_count = targets.class_names.len();
    // The second of two classes has the same area as the first.
    let heads = if targets.link == Link::Binary { 1..2 } else { 0..class_count };
    let mut names: Vec<String> = OVERALL.map(str::to_owned).into();
    if heads.len() > 1 {
        for name in &OVERALL[..2] {
            names.extend(targets.class_names.iter().map(|class| format!("{name}/{class}")));
        }
    }
    let precomputed = Precomputed::new(probabilities, targets, heads, plan.bins.max(1));
    let rows: Vec<usize> = (0..targets.rows()).collect();
    let values = precomputed.statistics(&rows);
    let intervals = stats::bootstrap_each(&units(targets, plan), plan.resamples, plan.seed, |rows| {
        precomputed.statistics(rows)
    });
    let named = names.into_iter().zip(values).zip(intervals);
    let metric = |((name, value), interval): ((String, Option<f64>), Option<Interval>)| {
        value.map(|value| Metric {
            name,
            value,
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            n: rows.len(),
            split: split.to_owned(),
        })
    };
    named.filter_map(metric).chain(precomputed.calibration_error_by_chance(plan, split)).collect()
}

/// The rows of each unit that the bootstrap draws: single rows, or whole groups.
fn units(targets: &Targets, plan: &ValidationPlan) -> Vec<Vec<usize>> {
    if !plan.by_group {
        return (0..targets.rows()).map(|row| vec![row]).collect();
    }
    let mut units = vec![Vec::new(); targets.group_names.len()];
    let rows = targets.groups.iter().enumerate();
    rows.for_each(|(row, &group)| units[group].push(row));
    units.retain(|rows| !rows.is_empty());
    units
}

/// What resamples share, computed once: the rows ranked for each head, and the losses of each row.
struct Precomputed {
    /// One per head.
    rankings: Vec<Option<Ranking>>,
    /// Accuracy, log loss and Brier score of each row alone.
    losses: Vec<[f64; 3]>,
    /// By row, calibration bin and gap; one for each label in the multi-label case.
    gaps: Vec<Vec<(usize, f64)>>,
    bins: usize,
}

impl Precomputed {
    fn new(
        probabilities: ArrayView2<f64>,
        targets: &Targets,
        heads: std::ops::Range<usize>,
        bins: usize,
    ) -> Precomputed {
        let ranking = |head: usize| {
            let positive: Vec<bool> = (0..targets.rows()).map(|row| targets.is(row, head)).collect();
            Ranking::new(&probabilities.column(head).to_vec(), &positive)
        };
        let losses = |row: usize| {
            let whole = probabilities.slice(s![row..=row, ..]);
            let all = [stats::accuracy, stats::log_loss, stats::brier];
            // A single row always has a mean.
            let of = |p: ArrayView2<f64>, class: usize| all.map(|loss| loss(p, &[class]).unwrap_or(f64::NAN));
            if targets.link != Link::MultiLabel {
                return of(whole, targets.classes[row]);
            }
            // Each label is a binary target; the row's loss is their mean.
            let mut mean = [0.0; 3];
            for (label, &p) in whole.iter().enumerate() {
                let own = of(array![[1.0 - p, p]].view(), usize::from(targets.is(row, label)));
                mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += own / whole.len() as f64);
            }
            mean
        };
        let gaps = |row: usize| {
            let whole = probabilities.row(row);
            if targets.link != Link::MultiLabel {
                return vec![stats::calibration_gap(whole, targets.classes[row], bins)];
            }
            let gap = |(label, &p): (usize, &f64)| {
                let (bin, gap) = stats::calibration_gap(
                    array![1.0 - p, p].view(),
                    usize::from(targets.is(row, label)),
                    bins,
                );
                (bin, gap / whole.len() as f64)
            };
            whole.iter().enumerate().map(gap).collect()
        };
        Precomputed {
            rankings: heads.map(ranking).collect(),
            losses: (0..targets.rows()).map(losses).collect(),
            gaps: (0..targets.rows()).map(gaps).collect(),
            bins,
        }
    }

    /// Calibration error of outcomes drawn from the probabilities themselves: mean and central 95 %.
    fn calibration_error_by_chance(&self, plan: &ValidationPlan, split: &str) -> Option<Metric> {
        let rows = self.gaps.len();
        // A gap is correctness (1 or 0) minus confidence.
        let confidence =
            |&(bin, gap): &(usize, f64), share: f64| (bin, if gap >= 0.0 { share - gap } else { -gap });
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

    /// The metrics on these rows, with repeats, in the order of the names.
    fn statistics(&self, rows: &[usize]) -> Vec<Option<f64>> {
        let mut counts = vec![0; self.losses.len()];
        rows.iter().for_each(|&row| counts[row] += 1);
        let ranked = |rank: fn(&Ranking, &[u32]) -> Option<f64>| -> Vec<Option<f64>> {
            let rankings = self.rankings.iter();
            rankings.map(|ranking| rank(ranking.as_ref()?, &counts)).collect()
        };
        let mean = |values: &[Option<f64>]| {
            let known: Vec<f64> = values.iter().copied().flatten().collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        };
        let per_row = |sum: f64| (!rows.is_empty()).then(|| sum / rows.len() as f64);
        let loss = |index: usize| per_row(rows.iter().map(|&row| self.losses[row][index]).sum());
        let mut gaps = vec![0.0; self.bins];
        rows.iter().flat_map(|&row| &self.gaps[row]).for_each(|&(bin, gap)| gaps[bin] += gap);
        let error = per_row(gaps.iter().map(|gap| gap.abs()).sum());
        let (areas, precisions) = (ranked(Ranking::auroc), ranked(Ranking::average_precision));
        let mut all = vec![mean(&areas), mean(&precisions), loss(0), loss(1), loss(2), error];
        if self.rankings.len() > 1 {
            all.extend(areas);
            all.extend(precisions);
        }
        all
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
        assert!(near(value("ece"), stats::calibration_error(view, classes, 5)));
        // Class b's own column: .3 and .8 among .2, .1, .2: both above all others.
        assert_eq!((value("auroc/b"), value("average_precision/b")), (1.0, 1.0));
        assert_eq!(figures.len(), 13);
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
        assert!(figure("ece").value < 1e-9);
    }
}
