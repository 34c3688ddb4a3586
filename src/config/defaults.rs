//! Default values of files and runs, each with its reason.

use std::path::PathBuf;

use crate::boundary::Search;

/// Tokens of a batch when dialogues are read. A batch's activations at every site are held at once; past about a thousand
/// tokens the matrix products are no faster.
pub const BATCH_TOKENS: usize = 1024;
/// Tokens of a batch when one or two sites are read: there is room for more.
pub const BATCH_TOKENS_FEW_SITES: usize = 4096;
/// Tokens of a batch when logits are compared: two models' logits are held, a vocabulary's width a token.
pub const BATCH_TOKENS_LOGITS: usize = 2048;
/// Dialogues that are answered side by side. A decoding step reads every weight once, whatever the number of rows.
pub const BATCH_ROWS: usize = 256;

/// Bootstrap resamples of a mean: the ends of a 95 % interval rest on 25 of them each.
pub const RESAMPLES: usize = 1000;
/// Shuffles of the labels that the shuffled-label control takes the mean of.
pub const SHUFFLES: usize = 24;
/// Bins of a reliability diagram.
pub const RELIABILITY_BINS: usize = 12;
/// Weights β of risk in the safe-and-satisfied score `S − β·R`; risk from half as heavy as satisfaction to five times.
pub const BETAS: [f64; 4] = [0.5, 1.0, 2.0, 5.0];
/// Weights β of risk in the constructive score: from one at which risk hardly counts to one at which little else does.
pub const CONSTRUCTIVE_BETAS: [f64; 7] = [0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0];
/// Answers that the pearl map rests on.
pub const PEARL_ANSWERS: usize = 900;
/// A grid's other arms are compared where their response comes this near to the first arm's.
pub const NEAR_RESPONSE: f64 = 0.02;
/// Principal components among the null directions of a vector, each in both directions.
pub const NULL_COMPONENTS: usize = 3;
/// Folds of a steering-grid probe's split: a fifth of the groups is held out for its own scores.
pub const PROBE_FOLDS: usize = 5;

/// The embedded model.
pub(super) fn model() -> PathBuf {
    "organism".into()
}

/// Confidence 0.9 in a threshold's error bound.
pub(super) fn delta() -> f64 {
    0.1
}

/// Enough to tell a bound that holds in 90 % of resamplings from one that holds in 85 %.
pub(super) fn resamplings() -> usize {
    200
}

/// Examples to label next: a page of them.
pub(super) fn next() -> usize {
    20
}

/// The label that `pearl organism pairs` gives to twins.
pub(super) fn pair() -> String {
    "pair".into()
}

pub(super) fn parts() -> usize {
    Search::default().parts
}

pub(super) fn halvings() -> usize {
    Search::default().halvings
}

pub(super) fn method() -> String {
    "logistic".into()
}

/// Folds inside the fit part, by which a probe's strength is chosen.
pub(super) fn folds() -> usize {
    5
}

/// Where groups are held out, rows of one group are no independent evidence of another.
pub(super) fn by_group() -> bool {
    true
}

/// Twenty: the least p-value of a vector that none reaches is then 1/21.
/// Dialogues of the test part that are answered at each strength: enough to see a share move by a quarter.
pub(super) fn answers() -> usize {
    40
}

pub(super) fn null_draws() -> usize {
    20
}

/// Users that each null direction is tried on: enough to rank shares, few enough to try many directions.
pub(super) fn null_users() -> usize {
    40
}

/// Tokens of an answer, at most.
pub(super) fn max_tokens() -> usize {
    128
}

/// Answers as the model gives them.
pub(super) fn temperature() -> f32 {
    1.0
}

/// Dialogues that measure the damage: KL over their tokens is precise long before the response is.
pub(super) fn guard_dialogues() -> usize {
    64
}

/// Nats a token; sampling twice at temperature 1 differs by more.
pub(super) fn max_kl() -> f64 {
    0.1
}

pub(super) fn max_perplexity() -> f64 {
    1.2
}

pub(super) fn max_repetition() -> f64 {
    0.05
}

/// The difference of means needs no fit, and steers best in most comparisons.
pub(super) fn vector_method() -> String {
    "means".into()
}
