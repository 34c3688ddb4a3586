//! Word-pair baseline: logistic regression on words and on pairs of words that occur in the same text, without a model.
//!
//! A linear reader of words can't tell an exclusive-or of two words; this one can. A probe that does not beat it need not have found
//! more than which words come together.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::probe::defaults;
use crate::probe::design_matrix::SparseMatrix;
use crate::probe::plan::ValidationPlan;
use crate::probe::split::{Split, folds};
use crate::probe::targets::Targets;
use crate::probe::text_baseline::{Features, TextBaseline, check_texts, fit, words};

const PLACE: &str = "word-pair baseline";

/// Relative tolerance of the objective: many features cost time, and a control needs two digits.
const TOLERANCE: f64 = 1e-3;

/// Fits and validates the baseline, choosing penalty and calibration as [`validate`](crate::probe::validate()) does. Of all pairs those
/// are kept whose presence depends most on the class (by χ²), in each fold on its own fit rows.
///
/// # Errors
/// Another number of texts than targets; no word in enough texts; a fold without some class.
pub fn word_pairs(
    texts: &[String],
    targets: &Targets,
    split: &Split,
    plan: &ValidationPlan,
) -> Result<TextBaseline> {
    check_texts(PLACE, texts, targets)?;
    let folds = folds(targets, &split.fit, plan.folds, plan.seed)?;
    let splits: Vec<Split> = folds.iter().chain([split]).cloned().collect();
    let (texts, count) = numbered(texts, &split.fit);
    if count == 0 {
        let found = format!("no word in {} of {} texts", defaults::NGRAM_TEXTS, split.fit.len());
        return Err(Error::input(PLACE, found, "texts that share words"));
    }
    let chosen: Vec<Vec<u32>> =
        splits.iter().map(|split| best_pairs(&texts, count, targets, &split.fit)).collect();
    let mut columns: HashMap<u32, u32> = HashMap::new();
    for &pair in chosen.iter().flatten() {
        let next = (count + columns.len()) as u32;
        columns.entry(pair).or_insert(next);
    }
    let row = |words: &Vec<u32>| -> Vec<u32> {
        let pairs = pairs(words, count).filter_map(|pair| columns.get(&pair).copied());
        words.iter().copied().chain(pairs).collect()
    };
    let kept = |pairs: &Vec<u32>| (0..count as u32).chain(pairs.iter().map(|pair| columns[pair])).collect();
    let features = Features {
        matrix: SparseMatrix::binary(texts.iter().map(row).collect(), count + columns.len(), &splits),
        columns: chosen.iter().map(kept).collect(),
        tolerance: TOLERANCE,
    };
    fit(PLACE, features, targets, (split, &folds), plan, &defaults::NGRAM_STRENGTHS)
}

/// Each text as ascending numbers of the words in it, and how many words are numbered: those of most of these rows, but not of all
/// where others vary.
fn numbered(texts: &[String], rows: &[usize]) -> (Vec<Vec<u32>>, usize) {
    let texts: Vec<Vec<String>> = texts
        .iter()
        .map(|text| {
            let mut words = words(text);
            words.sort_unstable();
            words.dedup();
            words
        })
        .collect();
    let mut frequencies: HashMap<&str, usize> = HashMap::new();
    rows.iter().flat_map(|&row| &texts[row]).for_each(|word| *frequencies.entry(word).or_insert(0) += 1);
    let mut kept: Vec<(&str, usize)> = frequencies.into_iter().collect();
    kept.retain(|(_, count)| *count >= defaults::NGRAM_TEXTS);
    if kept.iter().any(|(_, count)| *count < rows.len()) {
        kept.retain(|(_, count)| *count < rows.len());
    }
    kept.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    kept.truncate(defaults::PAIRED_WORDS);
    let numbers: HashMap<&str, u32> =
        kept.iter().enumerate().map(|(number, (word, _))| (*word, number as u32)).collect();
    let row = |words: &Vec<String>| {
        let mut row: Vec<u32> = words.iter().filter_map(|word| numbers.get(word.as_str()).copied()).collect();
        row.sort_unstable();
        row
    };
    (texts.iter().map(row).collect(), kept.len())
}

/// Numbers of the pairs of ascending words, each below `count`².
fn pairs(words: &[u32], count: usize) -> impl Iterator<Item = u32> + '_ {
    let tail = move |(place, &first): (usize, &u32)| {
        words[place + 1..].iter().map(move |second| first * count as u32 + second)
    };
    words.iter().enumerate().flat_map(tail)
}

/// The pairs whose presence in these rows depends most on the class, by χ².
fn best_pairs(texts: &[Vec<u32>], count: usize, targets: &Targets, rows: &[usize]) -> Vec<u32> {
    let classes = targets.class_names.len();
    let mut seen = vec![0u32; count * count * classes];
    let mut sizes = vec![0.0; classes];
    for &row in rows {
        let class = targets.classes[row];
        sizes[class] += 1.0;
        pairs(&texts[row], count).for_each(|pair| seen[pair as usize * classes + class] += 1);
    }
    let n = rows.len() as f64;
    let score = |counts: &[u32]| -> Option<f64> {
        let total = f64::from(counts.iter().sum::<u32>());
        let terms = counts.iter().zip(&sizes).filter(|(_, size)| **size > 0.0).map(|(&seen, size)| {
            let due = total * size / n;
            // Presence and absence deviate by as much.
            (f64::from(seen) - due).powi(2) * (1.0 / due + 1.0 / (size - due).max(1e-9))
        });
        (total >= defaults::NGRAM_TEXTS as f64 && total < n).then(|| terms.sum())
    };
    let scored = seen.chunks(classes).enumerate();
    let mut scored: Vec<(u32, f64)> =
        scored.filter_map(|(pair, counts)| Some((pair as u32, score(counts)?))).collect();
    scored.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.truncate(defaults::WORD_PAIRS);
    scored.into_iter().map(|(pair, _)| pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::ngram_baseline::{NgramOptions, ngram};
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn an_exclusive_or_of_two_words_is_read_from_pairs_and_not_from_words() {
        let mut random = StdRng::seed_from_u64(8);
        let (mut texts, mut labels, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..600 {
            let (first, second): (bool, bool) = (random.random(), random.random());
            let mut words: Vec<String> =
                (0..12).map(|_| format!("w{}", random.random_range(0..40))).collect();
            words[3] = (if first { "red" } else { "blue" }).into();
            words[8] = (if second { "round" } else { "square" }).into();
            texts.push(words.join(" "));
            labels.push(u8::from(first ^ second).to_string());
            groups.push((row % 10).to_string());
        }
        let targets = Targets::new(&labels, &groups, &[]).unwrap();
        let split = Split::hold_out(&targets, &["3", "8"]).unwrap();
        let plan = ValidationPlan { resamples: 0, ..ValidationPlan::default() };
        let area = |baseline: TextBaseline| baseline.area.unwrap().value;
        let linear = area(ngram(&texts, &targets, &split, &plan, &NgramOptions::default()).unwrap());
        let paired = area(word_pairs(&texts, &targets, &split, &plan).unwrap());
        assert!(linear < 0.65 && paired > 0.97, "{linear} {paired}");
    }
}
