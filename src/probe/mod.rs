//! Linear probes of activations: fitting, calibration, validation and controls.
//!
//! - [`Examples`]: activations `[rows, width]` with a target and a group for each row; [`Probe`]: weights `[heads, width]`
//!   in raw activation space.
//! - [`Fit`]: a method of fitting; [`METHODS`] lists them.
//! - [`split`], [`validate()`]: group-wise splits; the penalty and the calibration chosen inside the fit part, scores on
//!   held-out groups.
//! - [`controls`], [`ngram_baseline`], [`tfidf`], [`word_pairs`]: baselines that a probe has to beat.

mod calibration;
mod calibration_choice;
pub mod controls;
pub mod defaults;
mod design_matrix;
mod examples;
mod fit;
mod isotonic;
mod lda;
mod link;
mod logistic;
mod loss;
mod means;
mod metrics;
pub mod ngram_baseline;
mod penalised;
mod plan;
mod platt;
#[expect(clippy::module_inception, reason = "the file of the type that the folder is named after")]
mod probe;
mod ridge;
#[cfg(test)]
mod sklearn_parity;
mod solver;
pub mod split;
mod targets;
mod text_baseline;
mod tfidf_baseline;
pub mod validation;
mod word_pairs;

pub use calibration::Calibration;
pub use calibration_choice::CalibrationChoice;
pub use examples::{Examples, Provenance};
pub use fit::{Fit, SplitFit};
pub use isotonic::IsotonicCurve;
pub use lda::Lda;
pub use link::{Link, NONE};
pub use logistic::Logistic;
pub use means::Means;
pub use metrics::{classification_metrics, fold_metrics, linearised_auroc, units};
pub use plan::ValidationPlan;
pub use probe::Probe;
pub use ridge::Ridge;
pub use split::{Split, folds};
pub use targets::{TargetKind, Targets};
pub use text_baseline::TextBaseline;
pub use tfidf_baseline::tfidf;
pub use validation::{CrossValidation, StrengthScore, Validated, cross_validate, validate};
pub use word_pairs::word_pairs;

use crate::error::{Error, Result};

/// A method as files and the command line name it.
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// What it is and what its strength means, in a line.
    pub about: &'static str,
    /// Makes it with these strengths to choose among; with its own where there are none.
    make: fn(&[f64]) -> Result<Box<dyn Fit>>,
}

/// Every method of fitting. A new one is a file with a [`Fit`] and a line here.
pub const METHODS: [Method; 4] = [
    Method {
        name: "logistic",
        about: "logistic regression with an L2 penalty; strengths are the inverse penalty C",
        make: |strengths| Ok(Box::new(Logistic { strengths: or(strengths, Logistic::default().strengths) })),
    },
    Method {
        name: "ridge",
        about: "ridge regression on ±1; strengths are the inverse penalty C",
        make: |strengths| Ok(Box::new(Ridge { strengths: or(strengths, Ridge::default().strengths) })),
    },
    Method {
        name: "lda",
        about: "linear discriminant analysis; strengths are the weight of the empirical covariance, below 1",
        make: |strengths| Ok(Box::new(Lda { strengths: or(strengths, Lda::default().strengths) })),
    },
    Method {
        name: "means",
        about: "difference of class means; no strengths",
        make: |strengths| match strengths {
            [] => Ok(Box::new(Means)),
            _ => Err(Error::input("method means", "strengths", "none: it has no penalty")),
        },
    },
];

/// The names of [`METHODS`], for help and error texts: "logistic, ridge, lda or means".
pub fn method_names() -> String {
    let names = METHODS.map(|method| method.name);
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The method of this name, with these strengths to choose among; with its own where `strengths` is empty.
///
/// # Errors
/// An unknown name; strengths that are not ascending numbers above 0; strengths for a method without any.
pub fn method(name: &str, strengths: &[f64]) -> Result<Box<dyn Fit>> {
    let ascending = strengths.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || strengths.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
        let found = strengths.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::input("strengths", found, "ascending numbers above 0"));
    }
    let method = METHODS.iter().find(|method| method.name == name);
    let unknown = || Error::input("method", format!("no method {name:?}"), method_names());
    (method.ok_or_else(unknown)?.make)(strengths)
}

fn or(strengths: &[f64], own: Vec<f64>) -> Vec<f64> {
    if strengths.is_empty() { own } else { strengths.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_table_fits_under_its_own_name() {
        let features = ndarray::array![[0.0, 1.0], [0.2, 0.0], [3.0, 1.0], [3.1, 0.0]];
        for Method { name, about, .. } in METHODS {
            let fit = method(name, &[]).unwrap();
            assert_eq!(fit.name(), name);
            assert!(!about.is_empty() && method_names().contains(name));
            let strength = fit.strengths()[0];
            let examples = examples::tests::examples(features.clone(), &[0, 0, 1, 1], None);
            let probe = fit.fit_all(examples, strength).unwrap();
            assert_eq!((probe.method.as_str(), probe.strength), (name, strength));
            assert_eq!(probe.predict(features.view()).unwrap().to_vec(), [0, 0, 1, 1], "{name}");
            if fit.strengths() != [1.0] {
                assert_eq!(method(name, &[0.25, 0.5]).unwrap().strengths(), [0.25, 0.5]);
            }
        }
        assert!(METHODS.iter().any(|method| method.name == defaults::METHOD));
    }

    #[test]
    fn unknown_methods_and_strengths_are_refused() {
        let refused = |name, strengths: &[f64]| method(name, strengths).err().unwrap().to_string();
        assert_eq!(
            refused("magic", &[]),
            "method: no method \"magic\"; expected logistic, ridge, lda or means"
        );
        assert!(refused("logistic", &[1.0, 0.1]).contains("ascending numbers above 0"));
        assert!(refused("means", &[1.0]).contains("it has no penalty"));
    }
}
