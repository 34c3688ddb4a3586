//! N-gram baseline: logistic regression on the presence of words and bigrams in the texts, without a model.
//!
//! A probe that does not beat it may have found words rather than a concept.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::probe::defaults;
use crate::probe::design_matrix::SparseMatrix;
use crate::probe::plan::ValidationPlan;
use crate::probe::split::{Split, folds};
use crate::probe::targets::Targets;
use crate::probe::text_baseline::{Features, TextBaseline, check_texts, fit, words};

const PLACE: &str = "n-gram baseline";

/// Relative tolerance of the objective. A tighter one does not change the third digit of the AUROC.
const TOLERANCE: f64 = 1e-4;

/// Vocabulary and penalties of the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NgramOptions {
    /// Words and bigrams that are kept, by document frequency.
    pub max_features: usize,
    /// Texts that a word or bigram must occur in.
    pub min_texts: usize,
    /// Inverse penalties C to choose among, ascending.
    pub strengths: Vec<f64>,
}

impl Default for NgramOptions {
    fn default() -> NgramOptions {
        NgramOptions {
            max_features: defaults::NGRAM_FEATURES,
            min_texts: defaults::NGRAM_TEXTS,
            strengths: defaults::NGRAM_STRENGTHS.into(),
        }
    }
}

/// Fits and validates the baseline on lower-cased texts, choosing penalty and calibration as
/// [`validate`](crate::probe::validate()) does. Each fold has the vocabulary of its own fit rows.
///
/// # Errors
/// Another number of texts than targets; no word in enough texts; a fold without some class.
pub fn ngram(
    texts: &[String],
    targets: &Targets,
    split: &Split,
    plan: &ValidationPlan,
    options: &NgramOptions,
) -> Result<TextBaseline> {
    check_texts(PLACE, texts, targets)?;
    let folds = folds(targets, &split.fit, plan.folds, plan.seed)?;
    let splits: Vec<Split> = folds.iter().chain([split]).cloned().collect();
    let corpus = Corpus::new(texts);
    let vocabularies = splits.iter().map(|split| corpus.vocabulary(&split.fit, options));
    let features = Features {
        columns: vocabularies.collect::<Result<_>>()?,
        matrix: SparseMatrix::binary(corpus.texts, corpus.count, &splits),
        tolerance: TOLERANCE,
    };
    fit(PLACE, features, targets, (split, &folds), plan, &options.strengths)
}

/// Texts as sets of word and bigram indices, over one shared numbering.
struct Corpus {
    texts: Vec<Vec<u32>>,
    count: usize,
}

impl Corpus {
    fn new(texts: &[String]) -> Corpus {
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let texts = texts.iter().map(|text| {
            let words = words(text);
            let bigrams = words.windows(2).map(|pair| pair.join(" "));
            let grams = words.iter().cloned().chain(bigrams);
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

    /// The n-grams that occur in enough of these texts, by descending document frequency; among equals in the order of
    /// their first occurrence.
    fn vocabulary(&self, rows: &[usize], options: &NgramOptions) -> Result<Vec<u32>> {
        let mut counts = vec![0usize; self.count];
        let all = rows.iter().flat_map(|&row| &self.texts[row]);
        all.for_each(|&gram| counts[gram as usize] += 1);
        let mut kept: Vec<u32> = (0..self.count as u32)
            .filter(|&gram| counts[gram as usize] >= options.min_texts.max(1))
            .collect();
        kept.sort_by_key(|&gram| std::cmp::Reverse(counts[gram as usize]));
        kept.truncate(options.max_features);
        if kept.is_empty() {
            let found = format!("no word in {} of {} texts", options.min_texts.max(1), rows.len());
            return Err(Error::input("n-gram baseline", found, "texts that share words"));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Texts of sixty filler words, the middle one replaced by `word`.
    fn texts(rows: usize, word: impl Fn(usize) -> String) -> (Vec<String>, Targets) {
        let mut random = StdRng::seed_from_u64(5);
        let texts = (0..rows).map(|row| {
            let mut words: Vec<String> =
                (0..60).map(|_| format!("w{}", random.random_range(0..900))).collect();
            words[30] = word(row);
            words.join(" ")
        });
        let labels: Vec<String> = (0..rows).map(|row| (row % 2).to_string()).collect();
        let groups: Vec<String> = (0..rows).map(|row| (row / 2 % 10).to_string()).collect();
        (texts.collect(), Targets::new(&labels, &groups, &[]).unwrap())
    }

    fn auroc(texts: &[String], targets: &Targets) -> f64 {
        let split = Split::hold_out(targets, &["3", "8"]).unwrap();
        let plan = ValidationPlan { resamples: 20, ..ValidationPlan::default() };
        let baseline = ngram(texts, targets, &split, &plan, &NgramOptions::default()).unwrap();
        baseline.scores.iter().find(|score| score.name == "auroc").unwrap().value
    }

    #[test]
    fn finds_words_and_word_order_but_no_word_of_a_held_out_group() {
        let (by_word, targets) = texts(400, |row| (if row % 2 == 0 { "calm" } else { "upset" }).into());
        assert!(auroc(&by_word, &targets) > 0.99);
        let (by_order, _) = texts(400, |row| (if row % 2 == 0 { "not now" } else { "now not" }).into());
        assert!(auroc(&by_order, &targets) > 0.99);
        // One word per group and class does not help on held-out groups.
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
        let error = ngram(&texts, &targets, &split, &ValidationPlan::default(), &NgramOptions::default())
            .unwrap_err();
        assert!(error.to_string().contains("no word in 2 of"), "{error}");
    }
}
