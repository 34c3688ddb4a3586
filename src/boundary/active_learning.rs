//! Pool-based active learning: learning curves of a probe whose labels are queried nearest to its boundary (uncertainty
//! sampling), and of one whose labels are queried at random.

use ndarray::{ArrayView1, Axis};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::{Examples, Fit, Split};
use crate::stats;

/// The settings of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveLearning {
    /// Labels at the start, drawn at random, as many of each class as possible.
    pub start: usize,
    /// Labels queried in a round.
    pub batch: usize,
    /// Number of rounds.
    pub rounds: usize,
    /// Repeats, each with another start.
    pub repeats: usize,
    /// Inverse penalty of every fit.
    pub strength: f64,
    /// Seed of the starts and of the random queries.
    pub seed: u64,
}

impl Default for ActiveLearning {
    fn default() -> ActiveLearning {
        ActiveLearning { start: 12, batch: 8, rounds: 16, repeats: 24, strength: 0.1, seed: 0 }
    }
}

/// Scores on the test part, `[repeats][numbers of labels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningCurve {
    /// Log loss, in nats a row.
    pub log_loss: Vec<Vec<f64>>,
    /// Share of rows whose class is predicted.
    pub accuracy: Vec<Vec<f64>>,
}

/// Both query strategies from the same starts, as saved (JSON, kind `learning`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The settings.
    #[serde(rename = "campaign")]
    pub settings: ActiveLearning,
    /// Numbers of labels at which the curves are known.
    pub labels: Vec<usize>,
    /// Queries nearest to the boundary.
    pub nearest: LearningCurve,
    /// Queries at random.
    pub random: LearningCurve,
    /// Rows of the pool.
    pub pool: usize,
    /// Rows of the test part.
    pub test: usize,
}

impl Comparison {
    /// The mean over the repeats at each number of labels.
    pub fn mean(runs: &[Vec<f64>]) -> Vec<f64> {
        let columns = 0..runs.first().map_or(0, Vec::len);
        columns.map(|column| runs.iter().map(|run| run[column]).sum::<f64>() / runs.len() as f64).collect()
    }

    /// Difference in accuracy, nearest minus random, averaged over all numbers of labels after the start, with a bootstrap
    /// interval over the repeats.
    pub fn accuracy(&self) -> Option<stats::Interval> {
        let gain = |(near, random): (&Vec<f64>, &Vec<f64>)| {
            let gains = near.iter().zip(random).skip(1).map(|(near, random)| near - random);
            gains.sum::<f64>() / (near.len() - 1).max(1) as f64
        };
        let gains: Vec<f64> = self.nearest.accuracy.iter().zip(&self.random.accuracy).map(gain).collect();
        let repeats: Vec<Vec<usize>> = (0..gains.len()).map(|repeat| vec![repeat]).collect();
        stats::bootstrap(&repeats, 1000, self.settings.seed, |drawn| {
            (!drawn.is_empty())
                .then(|| drawn.iter().map(|&repeat| gains[repeat]).sum::<f64>() / drawn.len() as f64)
        })
    }

    /// The fewest labels (nearest, random) with which each strategy reaches the mean accuracy of random queries at the end.
    pub fn labels_for_the_same(&self) -> Option<(usize, usize)> {
        let (near, random) =
            (Comparison::mean(&self.nearest.accuracy), Comparison::mean(&self.random.accuracy));
        let goal = *random.last()?;
        let first =
            |curve: &[f64]| curve.iter().position(|&value| value >= goal).map(|index| self.labels[index]);
        Some((first(&near)?, first(&random)?))
    }
}

/// Queries labels of the fit part by both strategies, and scores each probe on the test part.
///
/// # Errors
/// A pool that is too small for the settings; a class with fewer than two rows in it; a fit that fails.
pub fn compare(
    method: &dyn Fit,
    examples: &Examples,
    split: &Split,
    settings: &ActiveLearning,
) -> Result<Comparison> {
    let labels: Vec<usize> =
        (0..=settings.rounds).map(|round| settings.start + round * settings.batch).collect();
    let most = settings.start + settings.rounds * settings.batch;
    let pool = split.fit.len();
    let classes = examples.targets().class_names.len();
    if most > pool || settings.start < 2 * classes || settings.repeats == 0 {
        let found = format!("{} labels at first and {most} at last, of {pool} rows", settings.start);
        let expected = format!("at least {} at first, and no more at last than there are", 2 * classes);
        return Err(Error::input("active learning", found, expected));
    }
    let runs = (0..settings.repeats).into_par_iter().map(|repeat| {
        let mut random =
            StdRng::seed_from_u64(settings.seed ^ (repeat as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut order = split.fit.clone();
        order.shuffle(&mut random);
        let start = balanced_start(&order, examples, settings.start)?;
        let run = |near: bool| learning_curve(method, examples, split, settings, &order, &start, near);
        Ok((run(true)?, run(false)?))
    });
    let runs = runs.collect::<Result<Vec<_>>>()?;
    let (near, random): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    let curve = |runs: Vec<Vec<(f64, f64)>>| LearningCurve {
        log_loss: runs.iter().map(|run| run.iter().map(|score| score.0).collect()).collect(),
        accuracy: runs.iter().map(|run| run.iter().map(|score| score.1).collect()).collect(),
    };
    Ok(Comparison {
        settings: settings.clone(),
        labels,
        nearest: curve(near),
        random: curve(random),
        pool,
        test: split.test.len(),
    })
}

/// The first `count` rows of the order with as many of each class as possible.
fn balanced_start(order: &[usize], examples: &Examples, count: usize) -> Result<Vec<usize>> {
    let targets = examples.targets();
    let classes = targets.class_names.len();
    let mut begin = Vec::new();
    for class in 0..classes {
        let own = order.iter().copied().filter(|&row| targets.classes[row] == class);
        begin.extend(own.take(count / classes));
    }
    let rest: Vec<usize> = order.iter().copied().filter(|row| !begin.contains(row)).collect();
    begin.extend(rest.into_iter().take(count - begin.len()));
    Ok(begin)
}

/// Log loss and accuracy on the test part at each number of labels. `near`: query nearest to the boundary.
fn learning_curve(
    method: &dyn Fit,
    examples: &Examples,
    split: &Split,
    settings: &ActiveLearning,
    order: &[usize],
    start: &[usize],
    near: bool,
) -> Result<Vec<(f64, f64)>> {
    let test = examples.features().select(Axis(0), &split.test);
    let truth = examples.targets().select(&split.test).classes;
    let mut labelled_rows = start.to_vec();
    let mut scores = Vec::with_capacity(settings.rounds + 1);
    for round in 0..=settings.rounds {
        let (source, known) = (examples.source.clone(), examples.targets().select(&labelled_rows));
        let labelled = Examples::new(source, examples.features().select(Axis(0), &labelled_rows), known)?;
        let probe = method.fit_all(labelled, settings.strength)?;
        let probabilities = probe.probabilities(test.view())?;
        let score =
            stats::log_loss(probabilities.view(), &truth).zip(stats::accuracy(probabilities.view(), &truth));
        scores.push(score.ok_or_else(|| Error::input("active learning", "no test rows", "some"))?);
        if round == settings.rounds {
            break;
        }
        let mut left: Vec<usize> = order.iter().copied().filter(|row| !labelled_rows.contains(row)).collect();
        if near {
            let pool = examples.features().select(Axis(0), &left);
            let read = probe.probabilities(pool.view())?;
            let mut by_margin: Vec<(f64, usize)> = read.rows().into_iter().map(margin).zip(left).collect();
            by_margin.sort_by(|a, b| a.0.total_cmp(&b.0));
            left = by_margin.into_iter().map(|(_, row)| row).collect();
        }
        labelled_rows.extend(left.into_iter().take(settings.batch));
    }
    Ok(scores)
}

/// Probability of the likeliest class minus that of the second: 0 on the boundary.
fn margin(row: ArrayView1<f64>) -> f64 {
    let (first, second) =
        row.iter().fold(
            (0.0, 0.0),
            |(first, second), &p| {
                if p > first { (p, first) } else { (first, f64::max(second, p)) }
            },
        );
    first - second
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Logistic, Provenance, Targets};
    use ndarray::Array2;
    use rand::Rng;

    /// Two classes that a plane separates, most rows far from it.
    fn examples(rows: usize) -> Examples {
        let mut random = StdRng::seed_from_u64(1);
        let mut features = Array2::from_shape_fn((rows, 8), |_| random.random_range(-1.0f32..1.0));
        features.column_mut(0).mapv_inplace(|x| 6.0 * x);
        let side = |row: usize| if features[[row, 0]] + features[[row, 1]] > 0.5 { "risky" } else { "safe" };
        let labels: Vec<&str> = (0..rows).map(side).collect();
        let groups: Vec<String> = (0..rows).map(|row| (row % 4).to_string()).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let targets = Targets::new(&labels, &groups, &["safe", "risky"]).unwrap();
        let source = Provenance {
            site: "1.resid_post".parse().unwrap(),
            tokens: "last".parse().unwrap(),
            label: "risk".into(),
            model: None,
            model_hash: None,
            model_form: None,
            data_hash: None,
        };
        Examples::new(source, features, targets).unwrap()
    }

    #[test]
    fn near_the_boundary_fewer_labels_suffice() {
        let examples = examples(800);
        let split = Split::hold_out(examples.targets(), &["3"]).unwrap();
        let settings = ActiveLearning { rounds: 6, repeats: 12, strength: 10.0, ..ActiveLearning::default() };
        let found = compare(&Logistic::default(), &examples, &split, &settings).unwrap();
        assert_eq!((found.labels[0], found.labels[6], found.pool, found.test), (12, 60, 600, 200));
        // Both begin with the same labels.
        assert_eq!(found.nearest.accuracy[3][0], found.random.accuracy[3][0]);
        let better = found.accuracy().unwrap();
        assert!(better.low > 0.0, "{better:?}");
        let (near, random) = found.labels_for_the_same().unwrap();
        assert!(near < random, "{near} {random}");
        let wrong = ActiveLearning { rounds: 100, ..settings };
        assert!(compare(&Logistic::default(), &examples, &split, &wrong).is_err());
    }

    #[test]
    fn the_margin_is_that_over_the_second_class() {
        assert_eq!(margin(ndarray::array![0.25, 0.5, 0.25].view()), 0.25);
        assert_eq!(margin(ndarray::array![0.5, 0.5].view()), 0.0);
    }
}
