//! Default settings of probe fitting, validation and controls, each with its reason.

/// Folds, by group, inside the fit part. Five leave 80 % of the rows to each fit, and are scikit-learn's default too.
pub const FOLDS: usize = 5;

/// Bootstrap resamples of an interval. With 500, each end of a 95 % interval has 12 resamples beyond it, and a thousand
/// rows take a fraction of a second.
pub const RESAMPLES: usize = 500;

/// Equal-width bins of the expected calibration error, as in Guo et al. 2017 (arXiv 1706.04599).
pub const BINS: usize = 15;

/// Seed of folds, resamples and controls: fixed, so that the same command gives the same numbers.
pub const SEED: u64 = 0;

/// Name of the default method: logistic regression optimises the likelihood that the log loss measures, and handles
/// every target type.
pub const METHOD: &str = "logistic";

/// Inverse penalties C of logistic regression, in decades up to scikit-learn's default of 1. On standardised features of
/// a wide residual stream, larger values fit separable classes no better and make larger logits.
pub const LOGISTIC_STRENGTHS: [f64; 4] = [1e-3, 1e-2, 1e-1, 1.0];

/// Inverse penalties of ridge regression: a decade below those of logistic regression, because a squared error has
/// curvature 1 in the logit where the log loss has at most 1/4.
pub const RIDGE_STRENGTHS: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];

/// Weight of the empirical covariance in LDA, from nearly spherical to nearly unshrunk. Below 1, so that the covariance
/// has an inverse with fewer rows than columns.
pub const LDA_STRENGTHS: [f64; 4] = [0.1, 0.5, 0.9, 0.99];

/// Inverse penalties of the n-gram baseline: a decade above those of the probe, because its features are zeros and ones
/// and mostly rare.
pub const NGRAM_STRENGTHS: [f64; 4] = [0.01, 0.1, 1.0, 10.0];

/// Words and bigrams of the n-gram baseline, by document frequency: a bound on its memory and time.
pub const NGRAM_FEATURES: usize = 5000;

/// Texts that an n-gram must occur in: one that occurs once can't generalise.
pub const NGRAM_TEXTS: usize = 2;

/// Inverse penalties of the TF-IDF baseline, up to 100: its rows have length 1, so that a strong penalty leaves it little.
pub const TFIDF_STRENGTHS: [f64; 3] = [1.0, 10.0, 100.0];

/// Runs of characters of the TF-IDF baseline, by document frequency: twice the words, since a word has many.
pub const CHARACTER_FEATURES: usize = 10_000;

/// Words of the word-pair baseline, by document frequency. A table of counts a pair and class is held: 160,000 pairs.
pub const PAIRED_WORDS: usize = 400;

/// Pairs of the word-pair baseline that are kept.
pub const WORD_PAIRS: usize = 1000;
