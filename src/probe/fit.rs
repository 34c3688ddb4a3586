//! Fitting interface: examples and splits in, linear probes out.

use ndarray::Array2;

use crate::error::{Error, Result};
use crate::probe::examples::Examples;
use crate::probe::probe::Probe;
use crate::probe::split::Split;

/// A method of fitting a linear probe.
pub trait Fit: Sync {
    /// Its name in files and tables.
    fn name(&self) -> &'static str;

    /// The strengths to choose among, ascending from the strongest regularisation to the weakest (the inverse penalty C,
    /// where the method has a penalty); `[1.0]` for a method without one.
    fn strengths(&self) -> Vec<f64>;

    /// For each split, a probe for each of `strengths` in their order, fitted on the split's fit rows alone:
    /// `[split][strength]`. One call fits them all, because they share the matrix and most of the work on it.
    ///
    /// # Errors
    /// Fit rows that can't be learned from: fewer than two classes, a class with fewer than two rows, features that do
    /// not vary; a target type or a strength that the method does not support.
    fn fit(&self, examples: Examples, splits: &[Split], strengths: &[f64]) -> Result<Vec<Vec<SplitFit>>>;

    /// A probe fitted on all rows with one strength.
    ///
    /// # Errors
    /// As [`Fit::fit`].
    fn fit_all(&self, examples: Examples, strength: f64) -> Result<Probe> {
        let all = Split { fit: (0..examples.targets().rows()).collect(), test: Vec::new() };
        let place = examples.place();
        let fit = self.fit(examples, &[all], &[strength])?.into_iter().flatten().next();
        let missing = || Error::input(place, "a method without a fit", "a probe for each strength");
        Ok(fit.ok_or_else(missing)?.probe)
    }
}

/// A probe fitted on one split's fit rows with one strength, and its logits on the split's test rows.
pub struct SplitFit {
    /// The probe.
    pub probe: Probe,
    /// `[test rows of the split, heads]`, uncalibrated.
    pub logits: Array2<f64>,
}
