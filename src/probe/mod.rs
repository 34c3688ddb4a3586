//! Probes: linear readings of activations, fitted on labelled examples, and the doubt that comes with every score.
//! It knows nothing of models, dialogues or files of activations: it takes matrices with a class and a group a row.
//!
//! - [`Examples`]: what a probe is fitted on; [`Probe`]: what comes out, weights in raw activation space.
//! - [`Logistic`], [`Means`]: methods, each a [`Fit`].
//! - [`split`], [`validate()`]: groups held out, the penalty chosen without seeing them, calibration, scores.
//! - [`control`], [`ngram`]: what a probe has to beat.

mod calibration;
pub mod control;
mod design;
mod examples;
mod figures;
mod lbfgs;
mod linear;
mod logistic;
mod means;
pub mod ngram;
pub mod split;
pub mod validate;

pub use calibration::Calibration;
pub use examples::{Examples, Source, Targets};
pub use figures::figures;
pub use linear::{Link, Probe};
pub use logistic::Logistic;
pub use means::Means;
pub use split::Split;
pub use validate::{Plan, Trial, Validated, sweep, validate};

use crate::error::Result;

/// A method: examples in, a probe out.
pub trait Fit: Sync {
    /// Its name in files and tables.
    fn name(&self) -> &'static str;

    /// The inverse penalties worth trying, ascending (scikit-learn's C: larger is freer); `[1.0]` where the method has
    /// no penalty.
    fn strengths(&self) -> Vec<f64>;

    /// A probe for each of `strengths`, in their order, sharing what can be shared between them.
    ///
    /// # Errors
    /// If the examples can't be learned from: fewer than two classes, a class with fewer than two rows, …
    fn path(&self, examples: &Examples, strengths: &[f64]) -> Result<Vec<Probe>>;
}
