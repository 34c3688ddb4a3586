//! What labelling the boundary-nearest examples is worth: the same probe fitted on labels bought near its boundary, and on
//! labels bought at random, as the number of labels grows.
//! It knows nothing of which method fits, or of who labels.

use ndarray::{ArrayView1, Axis};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::{Examples, Fit, Split};
use crate::stats;

/// How labels are bought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveLearning {
    /// Labels at the beginning, drawn at random (as many of each class as can be had evenly).
    pub start: usize,
    /// Labels bought at a time.
    pub batch: usize,
    /// How often.
    pub rounds: usize,
    /// Repeats from other beginnings.
    pub repeats: usize,
    /// Inverse penalty of every fit.
    pub strength: f64,
    pub seed: u64,
}

impl Default for ActiveLearning {
    fn default() -> ActiveLearning {
        ActiveLearning { start: 12, batch: 8, rounds: 16, repeats: 24, strength: 0.1, seed: 0 }
    }
}

/// How well the probes did on the test part: a row a repeat, in it a value for each number of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningCurve {
    /// Log loss, in nats a row.
    pub log_loss: Vec<Vec<f64>>,
    pub accuracy: Vec<Vec<f64>>,
}

/// Both ways of buying, from the same beginnings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub campaign: ActiveLearning,
    /// Numbers of labels.
    pub labels: Vec<usize>,
    pub nearest: LearningCurve,
    pub random: LearningCurve,
    /// Rows of the pool, and of the test part.
    pub pool: usize,
    pub test: usize,
}

impl Comparison {
    /// Mean accuracy over the repeats at each number of labels.
    pub fn mean(runs: &[Vec<f64>]) -> Vec<f64> {
        let columns = 0..runs.first().map_or(0, Vec::len);
        columns.map(|at| runs.iter().map(|run| run[at]).sum::<f64>() / runs.len() as f64).collect()
    }

    /// Accuracy of the nearest less that of random picks, averaged over all numbers of labels that were bought, with a
    /// bootstrap interval over the repeats.
    pub fn accuracy(&self) -> Option<stats::Interval> {
        let gain = |(near, random): (&Vec<f64>, &Vec<f64>)| {
            let gains = near.iter().zip(random).skip(1).map(|(near, random)| near - random);
            gains.sum::<f64>() / (near.len() - 1).max(1) as f64
        };
        let gains: Vec<f64> = self.nearest.accuracy.iter().zip(&self.random.accuracy).map(gain).collect();
        let repeats: Vec<Vec<usize>> = (0..gains.len()).map(|repeat| vec![repeat]).collect();
        stats::bootstrap(&repeats, 1000, self.campaign.seed, |drawn| {
            (!drawn.is_empty()).then(|| drawn.iter().map(|&at| gains[at]).sum::<f64>() / drawn.len() as f64)
        })
    }

    /// The fewest labels of either way at which the mean accuracy is that of all random labels together.
    pub fn labels_for_the_same(&self) -> Option<(usize, usize)> {
        let (near, random) =
            (Comparison::mean(&self.nearest.accuracy), Comparison::mean(&self.random.accuracy));
        let goal = *random.last()?;
        let first = |curve: &[f64]| curve.iter().position(|&value| value >= goal).map(|at| self.labels[at]);
        Some((first(&near)?, first(&random)?))
    }
}

/// Buys labels of the fit part in both ways, and scores each probe on the test part.
///
/// # Errors
/// If the pool is too small for the campaign, a class has fewer than two rows in it, or a fit fails.
pub fn gain(
    method: &dyn Fit,
    examples: &Examples,
    split: &Split,
    campaign: &ActiveLearning,
) -> Result<Comparison> {
    let labels: Vec<usize> =
        (0..=campaign.rounds).map(|round| campaign.start + round * campaign.batch).collect();
    let most = campaign.start + campaign.rounds * campaign.batch;
    let pool = split.fit.len();
    let classes = examples.targets().class_names.len();
    if most > pool || campaign.start < 2 * classes || campaign.repeats == 0 {
        let found = format!("{} labels at first and {most} at last, of {pool} rows", campaign.start);
        let expected = format!("at least {} at first, and no more at last than there are", 2 * classes);
        return Err(Error::input("active learning", found, expected));
    }
    let runs = (0..campaign.repeats).into_par_iter().map(|repeat| {
        let mut random =
            StdRng::seed_from_u64(campaign.seed ^ (repeat as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut order = split.fit.clone();
        order.shuffle(&mut random);
        let begin = even_start(&order, examples, campaign.start)?;
        let run = |near: bool| buy(method, examples, split, campaign, &order, &begin, near);
        Ok((run(true)?, run(false)?))
    });
    let runs = runs.collect::<Result<Vec<_>>>()?;
    let (near, random): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    let purchase = |runs: Vec<Vec<(f64, f64)>>| LearningCurve {
        log_loss: runs.iter().map(|run| run.iter().map(|score| score.0).collect()).collect(),
        accuracy: runs.iter().map(|run| run.iter().map(|score| score.1).collect()).collect(),
    };
    Ok(Comparison {
        campaign: campaign.clone(),
        labels,
        nearest: purchase(near),
        random: purchase(random),
        pool,
        test: split.test.len(),
    })
}

/// The first rows of the order that take the classes in turn, as long as each has some.
fn even_start(order: &[usize], examples: &Examples, count: usize) -> Result<Vec<usize>> {
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

/// One way of buying: log loss and accuracy on the test part at each number of labels.
fn buy(
    method: &dyn Fit,
    examples: &Examples,
    split: &Split,
    campaign: &ActiveLearning,
    order: &[usize],
    begin: &[usize],
    near: bool,
) -> Result<Vec<(f64, f64)>> {
    let test = examples.features().select(Axis(0), &split.test);
    let truth = examples.targets().select(&split.test).classes;
    let mut bought = begin.to_vec();
    let mut scores = Vec::with_capacity(campaign.rounds + 1);
    for round in 0..=campaign.rounds {
        let (source, known) = (examples.source.clone(), examples.targets().select(&bought));
        let labelled = Examples::new(source, examples.features().select(Axis(0), &bought), known)?;
        let probe = method.fit_all(labelled, campaign.strength)?;
        let probabilities = probe.probabilities(test.view())?;
        let score =
            stats::log_loss(probabilities.view(), &truth).zip(stats::accuracy(probabilities.view(), &truth));
        scores.push(score.ok_or_else(|| Error::input("active learning", "no test rows", "some"))?);
        if round == campaign.rounds {
            break;
        }
        let mut left: Vec<usize> = order.iter().copied().filter(|row| !bought.contains(row)).collect();
        if near {
            let pool = examples.features().select(Axis(0), &left);
            let read = probe.probabilities(pool.view())?;
            let mut by_doubt: Vec<(f64, usize)> = read.rows().into_iter().map(lead).zip(left).collect();
            by_doubt.sort_by(|a, b| a.0.total_cmp(&b.0));
            left = by_doubt.into_iter().map(|(_, row)| row).collect();
        }
        bought.extend(left.into_iter().take(campaign.batch));
    }
    Ok(scores)
}

/// How far the most probable class leads the second: 0 on the boundary.
fn lead(row: ArrayView1<f64>) -> f64 {
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

    /// Two classes that a plane parts sharply, most rows far from it.
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
            data_hash: None,
        };
        Examples::new(source, features, targets).unwrap()
    }

    #[test]
    fn near_the_boundary_fewer_labels_do_as_much() {
        let examples = examples(800);
        let split = Split::hold_out(examples.targets(), &["3"]).unwrap();
        let campaign = ActiveLearning { rounds: 6, repeats: 12, strength: 10.0, ..ActiveLearning::default() };
        let gain = gain(&Logistic::default(), &examples, &split, &campaign).unwrap();
        assert_eq!((gain.labels[0], gain.labels[6], gain.pool, gain.test), (12, 60, 600, 200));
        // Both begin with the same labels.
        assert_eq!(gain.nearest.accuracy[3][0], gain.random.accuracy[3][0]);
        let better = gain.accuracy().unwrap();
        assert!(better.low > 0.0, "{better:?}");
        let (near, random) = gain.labels_for_the_same().unwrap();
        assert!(near < random, "{near} {random}");
        let wrong = ActiveLearning { rounds: 100, ..campaign };
        assert!(super::gain(&Logistic::default(), &examples, &split, &wrong).is_err());
    }

    #[test]
    fn a_lead_is_that_over_the_second() {
        assert_eq!(lead(ndarray::array![0.25, 0.5, 0.25].view()), 0.25);
        assert_eq!(lead(ndarray::array![0.5, 0.5].view()), 0.0);
    }
}
