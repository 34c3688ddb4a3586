//! TF-IDF baseline: logistic regression on words, word pairs in sequence, and characters of the texts, without a model.
//!
//! The features are those of scikit-learn's `TfidfVectorizer` with `ngram_range=(1, 2)` beside one with `analyzer="char_wb"` and
//! `ngram_range=(3, 5)`. On real text this is the control to beat: endings and parts of words tell more than whole words do.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::probe::defaults;
use crate::probe::design_matrix::SparseMatrix;
use crate::probe::plan::ValidationPlan;
use crate::probe::split::{Split, folds};
use crate::probe::targets::Targets;
use crate::probe::text_baseline::{Features, TextBaseline, check_texts, fit, words};

const PLACE: &str = "TF-IDF baseline";

/// Relative tolerance of the objective: many features cost time, and a control needs two digits.
const TOLERANCE: f64 = 1e-3;

/// Fits and validates the baseline, choosing penalty and calibration as [`validate`](crate::probe::validate()) does. Vocabulary and
/// document frequencies are those of the fit part, whose labels they don't see.
///
/// # Errors
/// Another number of texts than targets; no word in enough texts; a fold without some class.
pub fn tfidf(
    texts: &[String],
    targets: &Targets,
    split: &Split,
    plan: &ValidationPlan,
) -> Result<TextBaseline> {
    check_texts(PLACE, texts, targets)?;
    let folds = folds(targets, &split.fit, plan.folds, plan.seed)?;
    let splits: Vec<Split> = folds.iter().chain([split]).cloned().collect();
    let texts: Vec<Vec<String>> = texts.iter().map(|text| words(text)).collect();
    let (mut rows, mut width) = (vec![Vec::new(); texts.len()], 0);
    type Grams = fn(&[String]) -> Vec<String>;
    let kinds: [(Grams, usize); 2] =
        [(word_grams, defaults::NGRAM_FEATURES), (character_grams, defaults::CHARACTER_FEATURES)];
    for (grams, most) in kinds {
        let grams: Vec<HashMap<String, f32>> = texts.iter().map(|words| counted(grams(words))).collect();
        let vocabulary = vocabulary(&grams, &split.fit, most);
        for (row, grams) in rows.iter_mut().zip(&grams) {
            row.extend(
                weighted(grams, &vocabulary).into_iter().map(|(column, value)| (column + width, value)),
            );
        }
        width += vocabulary.len() as u32;
    }
    if width == 0 {
        let found = format!("no word in {} of {} texts", defaults::NGRAM_TEXTS, split.fit.len());
        return Err(Error::input(PLACE, found, "texts that share words"));
    }
    let columns = vec![(0..width).collect(); splits.len()];
    let matrix = SparseMatrix::new(rows, width as usize, &splits);
    let features = Features { matrix, columns, tolerance: TOLERANCE };
    fit(PLACE, features, targets, (split, &folds), plan, &defaults::TFIDF_STRENGTHS)
}

/// Words and pairs of neighbours.
fn word_grams(words: &[String]) -> Vec<String> {
    words.iter().cloned().chain(words.windows(2).map(|pair| pair.join(" "))).collect()
}

/// Runs of three to five characters inside a word with a space on each side; a shorter word is one run.
fn character_grams(words: &[String]) -> Vec<String> {
    let mut grams = Vec::new();
    for word in words {
        let padded: Vec<char> = format!(" {word} ").chars().collect();
        for length in 3..=5 {
            grams.extend(padded.windows(length).map(|run| run.iter().collect::<String>()));
            if padded.len() <= length {
                break;
            }
        }
    }
    grams
}

fn counted(grams: Vec<String>) -> HashMap<String, f32> {
    let mut counts = HashMap::new();
    grams.into_iter().for_each(|gram| *counts.entry(gram).or_insert(0.0) += 1.0);
    counts
}

/// The n-grams of enough of these rows, the most frequent where there are too many, each with its column and its inverse document
/// frequency ln((1 + n) / (1 + df)) + 1.
fn vocabulary(texts: &[HashMap<String, f32>], rows: &[usize], most: usize) -> HashMap<String, (u32, f32)> {
    let mut frequencies: HashMap<&str, usize> = HashMap::new();
    let grams = rows.iter().flat_map(|&row| texts[row].keys());
    grams.for_each(|gram| *frequencies.entry(gram).or_insert(0) += 1);
    let mut kept: Vec<(&str, usize)> = frequencies.into_iter().collect();
    kept.retain(|(_, count)| *count >= defaults::NGRAM_TEXTS);
    kept.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    kept.truncate(most);
    let inverse = |count: usize| ((1.0 + rows.len() as f64) / (1.0 + count as f64)).ln() + 1.0;
    let entry = |(column, (gram, count)): (usize, (&str, usize))| {
        (gram.to_owned(), (column as u32, inverse(count) as f32))
    };
    kept.into_iter().enumerate().map(entry).collect()
}

/// Counts times inverse document frequencies, scaled to length 1.
fn weighted(grams: &HashMap<String, f32>, vocabulary: &HashMap<String, (u32, f32)>) -> Vec<(u32, f32)> {
    let entry = |(gram, count): (&String, &f32)| {
        let (column, inverse) = vocabulary.get(gram)?;
        Some((*column, count * inverse))
    };
    let mut row: Vec<(u32, f32)> = grams.iter().filter_map(entry).collect();
    // By column, because a map's order differs from run to run, and sums with it.
    row.sort_unstable_by_key(|(column, _)| *column);
    let length = row.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
    row.iter_mut().for_each(|(_, value)| *value /= length);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKLEARN_WORDS: [(&str, f32); 4] =
        [("cat", 0.377964), ("dog", 0.377964), ("the", 0.755929), ("the cat", 0.377964)];
    const SKLEARN_CHARACTERS: [(&str, f32); 18] = [
        (" ca", 0.167593),
        (" cat", 0.167593),
        (" cat ", 0.167593),
        (" do", 0.167593),
        (" dog", 0.167593),
        (" dog ", 0.167593),
        (" th", 0.335186),
        (" the", 0.335186),
        (" the ", 0.335186),
        ("at ", 0.130151),
        ("cat", 0.167593),
        ("cat ", 0.167593),
        ("dog", 0.167593),
        ("dog ", 0.167593),
        ("he ", 0.335186),
        ("og ", 0.167593),
        ("the", 0.335186),
        ("the ", 0.335186),
    ];

    #[test]
    fn features_equal_those_of_scikit_learn() {
        // TfidfVectorizer(ngram_range=(1, 2), min_df=2, token_pattern=r"[\w']+") and TfidfVectorizer(analyzer="char_wb",
        // ngram_range=(3, 5), min_df=2) of scikit-learn 1.9.1, fitted on the first three texts; weights of the second.
        let texts = ["the cat sat", "the cat ran and the dog ran", "a dog sat", "the fox"];
        let texts: Vec<Vec<String>> = texts.iter().map(|text| words(text)).collect();
        let of = |grams: &dyn Fn(&[String]) -> Vec<String>| -> Vec<(String, f32)> {
            let grams: Vec<_> = texts.iter().map(|words| counted(grams(words))).collect();
            let vocabulary = vocabulary(&grams, &[0, 1, 2], 5000);
            let weights = weighted(&grams[1], &vocabulary);
            let name =
                |column: u32| vocabulary.iter().find(|(_, entry)| entry.0 == column).unwrap().0.clone();
            let mut named: Vec<(String, f32)> =
                weights.into_iter().map(|(column, value)| (name(column), value)).collect();
            named.sort_by(|a, b| a.0.cmp(&b.0));
            named
        };
        let near = |found: Vec<(String, f32)>, expected: &[(&str, f32)]| {
            assert_eq!(
                found.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(),
                expected.iter().map(|e| e.0).collect::<Vec<_>>()
            );
            for ((name, value), (_, expected)) in found.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-5, "{name}: {value}, not {expected}");
            }
        };
        near(of(&word_grams), &SKLEARN_WORDS);
        near(of(&character_grams), &SKLEARN_CHARACTERS);
    }
}
