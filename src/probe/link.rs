//! Link function: from the logits of a probe's heads to the probabilities of its classes.

use std::str::FromStr;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The name of the case outside all classes of a multi-label probe.
pub const NONE: &str = "none";

/// How logits `[rows, heads]` become probabilities `[rows, classes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Logistic function of one head, that of the second class: p = 1 / (1 + exp(−logit)).
    Binary,
    /// Softmax over one head per class.
    Multinomial,
    /// Logistic function of one head per label, independently: a row may have several labels.
    MultiLabel,
    /// Cumulative logits (McCullagh 1980, proportional odds): one head per level above the lowest, each the log-odds of
    /// that level or a higher one. All heads share one direction.
    Ordinal,
}

impl Link {
    /// All links.
    pub const ALL: [Link; 4] = [Link::Binary, Link::Multinomial, Link::MultiLabel, Link::Ordinal];

    /// The link for mutually exclusive classes, by their number.
    pub fn of(classes: usize) -> Link {
        if classes == 2 { Link::Binary } else { Link::Multinomial }
    }

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Link::Binary => "binary",
            Link::Multinomial => "multinomial",
            Link::MultiLabel => "multilabel",
            Link::Ordinal => "ordinal",
        }
    }

    /// Number of heads for this number of classes.
    pub fn heads(self, classes: usize) -> usize {
        match self {
            Link::Binary | Link::Ordinal => classes.saturating_sub(1),
            Link::Multinomial | Link::MultiLabel => classes,
        }
    }

    /// Logits `[rows, heads]` to probabilities `[rows, classes]`.
    pub(super) fn probabilities(self, mut logits: Array2<f64>) -> Array2<f64> {
        let logistic = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        match self {
            // The softmax of (0, z) equals the logistic function of z, and computes 1 − p without cancellation.
            Link::Binary => {
                logits = Array2::from_shape_fn((logits.nrows(), 2), |(row, class)| {
                    class as f64 * logits[[row, 0]]
                });
            }
            Link::Multinomial => (),
            Link::MultiLabel => return logits.mapv(logistic),
            Link::Ordinal => {
                let heads = logits.ncols();
                // P(level ≥ k): 1 for the lowest level, 0 beyond the highest.
                let at_least = |row: usize, level: usize| match level {
                    0 => 1.0,
                    level if level > heads => 0.0,
                    level => logistic(logits[[row, level - 1]]),
                };
                return Array2::from_shape_fn((logits.nrows(), heads + 1), |(row, level)| {
                    (at_least(row, level) - at_least(row, level + 1)).max(0.0)
                });
            }
        }
        for mut row in logits.rows_mut() {
            let largest = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            row.mapv_inplace(|logit| (logit - largest).exp());
            let sum = row.sum();
            row /= sum;
        }
        logits
    }
}

impl FromStr for Link {
    type Err = Error;

    fn from_str(text: &str) -> Result<Link> {
        let known = Link::ALL.into_iter().find(|link| link.name() == text);
        known.ok_or_else(|| {
            Error::input("link", format!("link {text:?}"), "binary, multinomial, multilabel or ordinal")
        })
    }
}
