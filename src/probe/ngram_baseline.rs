//! The word-and-bigram baseline: what can be told from the words alone, without any model.
//! It knows nothing of activations; a probe that does not beat it has found words, not a concept.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::design_matrix::{Part, Presence};
use crate::probe::examples::Targets;
use crate::probe::metrics::figures;
use crate::probe::penalised::{Family, tasks, together};
use crate::probe::solver::{Problem, solve};
use crate::probe::split::{Split, folds};
use crate::probe::validation::{Plan, Trial, choose};
use crate::stats::Metric;

/// A baseline need not be exact: its AUROC does not move in the third digit from here on.
const TOLERANCE: f64 = 1e-4;

/// What the baseline may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grams {
    /// The most frequent words and bigrams that are kept.
    pub most: usize,
    /// Texts that a word or bigram must be in.
    pub least: usize,
    /// Inverse penalties to choose among, ascending.
    pub strengths: Vec<f64>,
}

impl Default for Grams {
    fn default() -> Grams {
        Grams { most: 5000, least: 2, strengths: vec![0.01, 0.1, 1.0, 10.0] }
    }
}

/// What the words alone gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Inverse penalty chosen.
    pub strength: f64,
    pub trials: Vec<Trial>,
    /// Words and bigrams used.
    pub width: usize,
    /// On the test part, and on the folds.
    pub scores: Vec<Metric>,
}

/// Logistic regression on which words and bigrams a text has, with the penalty and the temperature chosen as
/// `validate` chooses them. Each fold has its own vocabulary, so that held-out texts add no word.
///
/// # Errors
/// If there are not as many texts as targets, no word is in enough texts, or a fold lacks a class.
pub fn ngram(
    texts: &[String],
    targets: &Targets,
    split: &Split,
    plan: &Plan,
    grams: &Grams,
) -> Result<Baseline> {
    if texts.len() != targets.rows() {
        let found = format!("{} texts", texts.len());
        return Err(Error::input("n-gram baseline", found, format!("{}, one a label", targets.rows())));
    }
    let folds = folds(targets, &split.fit, plan.folds, plan.seed)?;
    let splits: Vec<Split> = folds.iter().chain([split]).cloned().collect();
    let corpus = Corpus::new(texts);
    let vocabularies = splits.iter().map(|split| corpus.vocabulary(&split.fit, grams));
    let vocabularies = vocabularies.collect::<Result<Vec<Vec<u32>>>>()?;
    let mut design = Presence::new(corpus.texts, corpus.count, &splits);
    let parts = splits.iter().zip(&vocabularies).map(|(split, kept)| design.part(split, kept));
    let parts: Vec<Part> = parts.collect();
    let (loss, tasks) = tasks(targets, Family::Likelihood);
    let problem = |part, classes| Problem { loss, classes, part };
    let problems = parts.iter().flat_map(|part| tasks.iter().map(move |classes| problem(part, classes)));
    let solutions = solve(&mut design, &problems.collect::<Vec<_>>(), &grams.strengths, TOLERANCE);
    let solutions =
        solutions.map_err(|(found, expected)| Error::input("n-gram baseline", found, expected))?;
    let logits = |number: usize, strength: usize| {
        let own = &solutions[strength][number * tasks.len()..][..tasks.len()];
        together(own, loss, &splits[number].test).2
    };
    let of_fold = |fold| (0..grams.strengths.len()).map(|strength| logits(fold, strength)).collect();
    let out_of_fold = (0..folds.len()).map(of_fold).collect();
    let choice = choose(targets, &split.fit, plan, &grams.strengths, &folds, out_of_fold)?;
    let logits = logits(folds.len(), choice.index);
    let probabilities = targets.link.probabilities(choice.calibration.apply(logits));
    Ok(Baseline {
        strength: choice.strength,
        trials: choice.trials,
        width: vocabularies.last().map_or(0, Vec::len),
        scores: [
            figures(probabilities.view(), &targets.select(&split.test), plan, "test"),
            figures(choice.probabilities.view(), &targets.select(&split.fit), plan, "validation"),
        ]
        .concat(),
    })
}

/// Texts as lists of numbered words and bigrams, each once.
struct Corpus {
    texts: Vec<Vec<u32>>,
    count: usize,
}

impl Corpus {
    fn new(texts: &[String]) -> Corpus {
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let texts = texts.iter().map(|text| {
            let text = text.to_lowercase();
            let is_inside = |c: char| c.is_alphanumeric() || c == '\'';
            let words: Vec<&str> = text.split(|c| !is_inside(c)).filter(|word| !word.is_empty()).collect();
            let bigrams = words.windows(2).map(|pair| pair.join(" "));
            let grams = words.iter().map(|word| (*word).to_owned()).chain(bigrams);
            let mut grams: Vec<u32> = grams
                .map(|gram| {
                    let next = numbers.len() as u32;
                    *numbers.entry(gram).or_insert(next)
                })
                .collect();
            grams.sort_unstable();
            grams.dedup();
            grams
        });
        let texts = texts.collect();
        Corpus { texts, count: numbers.len() }
    }

    /// The grams that are kept, by how many of these texts have each; of equals those met first.
    fn vocabulary(&self, rows: &[usize], grams: &Grams) -> Result<Vec<u32>> {
        let mut counts = vec![0usize; self.count];
        let all = rows.iter().flat_map(|&row| &self.texts[row]);
        all.for_each(|&gram| counts[gram as usize] += 1);
        let mut kept: Vec<u32> =
            (0..self.count as u32).filter(|&gram| counts[gram as usize] >= grams.least.max(1)).collect();
        kept.sort_by_key(|&gram| std::cmp::Reverse(counts[gram as usize]));
        kept.truncate(grams.most);
        if kept.is_empty() {
            let found = format!("no word in {} of {} texts", grams.least.max(1), rows.len());
            return Err(Error::input("n-gram baseline", found, "texts that share words"));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Sixty filler words a text, and what `tell` puts in their midst.
    fn texts(rows: usize, on_progress: impl Fn(usize) -> String) -> (Vec<String>, Targets) {
        let mut random = StdRng::seed_from_u64(5);
        let texts = (0..rows).map(|row| {
            let mut words: Vec<String> =
                (0..60).map(|_| format!("w{}", random.random_range(0..900))).collect();
            words[30] = on_progress(row);
            words.join(" ")
        });
        let labels: Vec<String> = (0..rows).map(|row| (row % 2).to_string()).collect();
        let groups: Vec<String> = (0..rows).map(|row| (row / 2 % 10).to_string()).collect();
        (texts.collect(), Targets::new(&labels, &groups, &[]).unwrap())
    }

    fn auroc(texts: &[String], targets: &Targets) -> f64 {
        let split = Split::hold_out(targets, &["3", "8"]).unwrap();
        let plan = Plan { resamples: 20, ..Plan::default() };
        let baseline = ngram(texts, targets, &split, &plan, &Grams::default()).unwrap();
        baseline.scores.iter().find(|score| score.name == "auroc").unwrap().value
    }

    #[test]
    fn finds_words_and_word_order_but_no_word_of_a_held_out_group() {
        let (by_word, targets) = texts(400, |row| (if row % 2 == 0 { "calm" } else { "upset" }).into());
        assert!(auroc(&by_word, &targets) > 0.99);
        let (by_order, _) = texts(400, |row| (if row % 2 == 0 { "not now" } else { "now not" }).into());
        assert!(auroc(&by_order, &targets) > 0.99);
        // A word a group and class: of no use on groups that were held out.
        let (by_group, _) = texts(400, |row| format!("own{}", row % 20));
        assert!((auroc(&by_group, &targets) - 0.5).abs() < 0.15);
    }

    #[test]
    fn rejects_texts_without_shared_words() {
        let texts: Vec<String> = (0..8).map(|row| format!("only{row}")).collect();
        let targets = Targets::new(
            &["a", "b", "a", "b", "a", "b", "a", "b"],
            &["1", "1", "2", "2", "3", "3", "4", "4"],
            &[],
        );
        let targets = targets.unwrap();
        let split = Split::hold_out(&targets, &["4"]).unwrap();
        let error = ngram(&texts, &targets, &split, &Plan::default(), &Grams::default()).unwrap_err();
        assert!(error.to_string().contains("no word in 2 of"), "{error}");
    }
}
