//! The word-and-bigram baseline: what can be told from the words alone, without any model.
//! It knows nothing of activations; a probe that does not beat it has found words, not a concept.

use std::collections::HashMap;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::design::{Design, Presence};
use crate::probe::examples::Targets;
use crate::probe::figures::figures;
use crate::probe::linear::Link;
use crate::probe::logistic::solve;
use crate::probe::split::Split;
use crate::probe::validate::{Plan, Trial, choose};
use crate::stats::Figure;

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
    /// On the test part.
    pub scores: Vec<Figure>,
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
    let corpus = Corpus::new(texts);
    let read = |fit: &[usize], read: &[usize], strengths: &[f64]| -> Result<Vec<Array2<f64>>> {
        let vocabulary = corpus.vocabulary(fit, grams)?;
        let design = corpus.design(fit, &vocabulary);
        let classes: Vec<usize> = fit.iter().map(|&row| targets.classes[row]).collect();
        let fits = solve(&design, &classes, targets.class_names.len(), strengths, TOLERANCE);
        let fits = fits.map_err(|(found, expected)| Error::input("n-gram baseline", found, expected))?;
        let asked = corpus.design(read, &vocabulary);
        Ok(fits.iter().map(|fit| asked.forward(fit.weight.view()) + &fit.bias).collect())
    };
    let choice = choose(targets, &split.fit, plan, &grams.strengths, read)?;
    let logits = read(&split.fit, &split.test, &[choice.strength])?.swap_remove(0);
    let link = Link::of(targets.class_names.len());
    let probabilities = link.probabilities(choice.calibration.apply(logits));
    Ok(Baseline {
        strength: choice.strength,
        trials: choice.trials,
        width: corpus.vocabulary(&split.fit, grams)?.len(),
        scores: figures(probabilities.view(), &targets.select(&split.test), plan, "test"),
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

    /// The column of each gram that is kept, by how many of these texts have it; of equals those met first.
    fn vocabulary(&self, rows: &[usize], grams: &Grams) -> Result<HashMap<u32, u32>> {
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
        Ok(kept.into_iter().zip(0..).collect())
    }

    fn design(&self, rows: &[usize], vocabulary: &HashMap<u32, u32>) -> Presence {
        let columns = |&row: &usize| {
            let grams = self.texts[row].iter();
            grams.filter_map(|gram| vocabulary.get(gram).copied()).collect()
        };
        Presence::new(rows.iter().map(columns).collect(), vocabulary.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Sixty filler words a text, and what `tell` puts in their midst.
    fn texts(rows: usize, tell: impl Fn(usize) -> String) -> (Vec<String>, Targets) {
        let mut random = StdRng::seed_from_u64(5);
        let texts = (0..rows).map(|row| {
            let mut words: Vec<String> =
                (0..60).map(|_| format!("w{}", random.random_range(0..900))).collect();
            words[30] = tell(row);
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
