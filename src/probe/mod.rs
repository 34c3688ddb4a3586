//! Probes: linear readings of activations, fitted on labelled examples, and the doubt that comes with every score.
//! It knows nothing of models, dialogues or files of activations: it takes matrices with a class and a group a row.
//!
//! - [`Examples`]: what a probe is fitted on; [`Probe`]: what comes out, weights in raw activation space.
//! - [`Logistic`], [`Ridge`], [`Lda`], [`Means`]: methods, each a [`Fit`].
//! - [`split`], [`validate()`]: groups held out, the penalty chosen without seeing them, calibration, scores.
//! - [`control`], [`ngram`]: what a probe has to beat.

mod calibration;
pub mod controls;
mod design_matrix;
mod examples;
mod metrics;
mod lbfgs;
mod lda;
#[expect(clippy::module_inception, reason = "the file of the type that the folder is named after")]
mod probe;
mod logistic;
mod loss;
mod means;
pub mod ngram_baseline;
mod solver;
#[cfg(test)]
mod sklearn_parity;
mod penalised;
mod ridge;
pub mod split;
pub mod validation;

pub use calibration::Calibration;
pub use examples::{Examples, Source, Targets};
pub use lda::Lda;
pub use logistic::Logistic;
pub use means::Means;
pub use metrics::figures;
pub use probe::{Link, NONE, Probe};
pub use ridge::Ridge;
pub use split::Split;
pub use validation::{Plan, Trial, Validated, cross_validate, validate};

use ndarray::Array2;

use crate::error::Result;

/// A method: examples in, probes out.
pub trait Fit: Sync {
    /// Its name in files and tables.
    fn name(&self) -> &'static str;

    /// The strengths worth trying, ascending from the most restrained to the freest (inverse penalties, scikit-learn's C,
    /// where the method has a penalty); `[1.0]` where there is nothing to choose.
    fn strengths(&self) -> Vec<f64>;

    /// For each of `splits` a probe for each of `strengths`, in their order, fitted on the split's fit rows alone. All
    /// are asked for at once, because they share the matrix and most of the work on it.
    ///
    /// # Errors
    /// If the fit rows can't be learned from: fewer than two classes, a class with fewer than two rows, features that do
    /// not vary, …
    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<Reading>>>;

    /// A probe fitted on all rows with one strength.
    ///
    /// # Errors
    /// As [`Fit::fit`].
    fn whole(&self, examples: Examples, strength: f64) -> Result<Probe> {
        let all = Split { fit: (0..examples.targets().rows()).collect(), test: Vec::new() };
        let place = examples.place();
        let readings = self.fit(examples, &[all], &[strength])?.into_iter().flatten().next();
        let nothing = || crate::Error::input(place, "a method without a fit", "a probe for each strength");
        Ok(readings.ok_or_else(nothing)?.probe)
    }
}

/// The method of this name, with these strengths to choose among, or its own where none are given.
///
/// # Errors
/// If there is no such method, or strengths do not ascend from above 0.
pub fn method(name: &str, strengths: &[f64]) -> Result<Box<dyn Fit>> {
    let rising = strengths.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || strengths.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
        let found = strengths.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
        return Err(crate::Error::input("strengths", found, "ascending numbers above 0"));
    }
    let or = |own: Vec<f64>| if strengths.is_empty() { own } else { strengths.to_vec() };
    Ok(match name {
        "logistic" => Box::new(Logistic { strengths: or(Logistic::default().strengths) }),
        "ridge" => Box::new(Ridge { strengths: or(Ridge::default().strengths) }),
        "lda" => Box::new(Lda { strengths: or(Lda::default().strengths) }),
        "means" if strengths.is_empty() => Box::new(Means),
        "means" => return Err(crate::Error::input("method means", "strengths", "none: it has no penalty")),
        _ => {
            let found = format!("no method {name:?}");
            return Err(crate::Error::input("method", found, "logistic, ridge, lda or means"));
        }
    })
}

/// A probe, and what it reads where it was not fitted.
pub struct Reading {
    pub probe: Probe,
    /// `[test rows of the split, heads]`, not calibrated.
    pub logits: Array2<f64>,
}
