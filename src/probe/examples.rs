//! Examples of a probe: activations `[rows, width]` of one site, with a target for each row.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::artifact::Origin;
use crate::error::{Error, Result};
use crate::model::{Selector, Site};
use crate::probe::link::Link;
use crate::probe::targets::Targets;

/// Provenance of activations: site, tokens, label, model and data. A probe keeps it, so that it is only applied to
/// activations of the same kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Where in the model the activations were read.
    pub site: Site,
    /// The tokens that they were read at.
    pub tokens: Selector,
    /// The label whose values are the classes.
    pub label: String,
    /// Name of the model.
    pub model: Option<String>,
    /// SHA-256 of the model's weights, in hex.
    pub model_hash: Option<String>,
    /// Family, shape and tokenizer of the model.
    #[serde(default)]
    pub model_form: Option<String>,
    /// SHA-256 of the dialogues, in hex.
    pub data_hash: Option<String>,
}

impl Provenance {
    /// The model.
    pub fn origin(&self) -> Origin<'_> {
        Origin {
            name: self.model.as_deref(),
            hash: self.model_hash.as_deref(),
            form: self.model_form.as_deref(),
        }
    }
}

/// Activations of one site with their targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    /// Where the activations come from.
    pub source: Provenance,
    /// `[rows, width]`, finite.
    features: Array2<f32>,
    targets: Targets,
}

impl Examples {
    /// Examples of features `[rows, width]` and as many targets.
    ///
    /// # Errors
    /// No row or no column; another number of targets; a feature that is NaN or infinite.
    pub fn new(source: Provenance, features: Array2<f32>, targets: Targets) -> Result<Examples> {
        let place = format!("examples of {} at {}", source.label, source.site);
        if features.is_empty() {
            let found = format!("features of shape {:?}", features.shape());
            return Err(Error::input(place, found, "at least one row and one column"));
        }
        if features.nrows() != targets.rows() || targets.groups.len() != targets.rows() {
            let found = format!("{} rows of features", features.nrows());
            return Err(Error::input(place, found, format!("{} as there are labels", targets.rows())));
        }
        let not_finite = features.indexed_iter().find(|(_, value)| !value.is_finite());
        if let Some(((row, column), value)) = not_finite {
            let found = format!("{value} in row {row}, column {column}");
            return Err(Error::input(place, found, "finite activations"));
        }
        Ok(Examples { source, features, targets })
    }

    /// `[rows, width]`.
    pub fn features(&self) -> &Array2<f32> {
        &self.features
    }

    /// The target of each row.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Provenance, features and targets, without a copy.
    pub(super) fn into_parts(self) -> (Provenance, Array2<f32>, Targets) {
        (self.source, self.features, self.targets)
    }

    /// The place that errors about these examples name.
    pub(super) fn place(&self) -> String {
        format!("probe of {} at {}", self.source.label, self.source.site)
    }

    /// Checks that every class has enough of these rows to be learned.
    pub(super) fn check(&self, rows: &[usize]) -> Result<()> {
        let counts = self.targets.select(rows).counts();
        let names = &self.targets.class_names;
        let wrong = |found: String, expected: &str| Err(Error::input(self.place(), found, expected));
        if self.targets.link == Link::MultiLabel {
            return match counts.iter().position(|&count| count < 2 || count + 2 > rows.len()) {
                None => Ok(()),
                Some(label) => wrong(
                    format!("label {:?} on {} of {} rows to fit on", names[label], counts[label], rows.len()),
                    "at least two rows with it and two without",
                ),
            };
        }
        if names.len() < 2 {
            return wrong(format!("one class only ({})", names.join("")), "two classes or more");
        }
        match counts.iter().position(|&count| count < 2) {
            None => Ok(()),
            Some(class) => wrong(
                format!("{} rows of class {:?} to fit on", counts[class], names[class]),
                "at least two of each class",
            ),
        }
    }

    /// Checks that the features vary over these rows.
    ///
    /// # Errors
    /// The same activations in all of them.
    pub fn check_spread(&self, rows: &[usize]) -> Result<()> {
        let first = rows.first().map(|&row| self.features.row(row));
        match rows.iter().all(|&row| Some(self.features.row(row)) == first) {
            false => Ok(()),
            true => {
                let found = format!("the same activations in all of {} rows", rows.len());
                let expected =
                    "activations that vary from row to row (a site or token that depends on the words)";
                Err(Error::input(self.place(), found, expected))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ndarray::array;

    /// Provenance of examples that come from no model.
    pub(crate) fn source() -> Provenance {
        Provenance {
            site: "3.resid_post".parse().unwrap(),
            tokens: Selector::UserLast,
            label: "user_type".into(),
            model: Some("organism".into()),
            model_hash: None,
            model_form: None,
            data_hash: Some("d0".into()),
        }
    }

    /// Examples with numbered classes, each row a group of its own where `groups` is `None`.
    pub(crate) fn examples(features: Array2<f32>, classes: &[usize], groups: Option<&[usize]>) -> Examples {
        let rows: Vec<usize> = (0..classes.len()).collect();
        let name = |&number: &usize| format!("{number:04}");
        let labels: Vec<String> = classes.iter().map(name).collect();
        let groups: Vec<String> = groups.unwrap_or(&rows).iter().map(name).collect();
        Examples::new(source(), features, Targets::new(&labels, &groups, &[]).unwrap()).unwrap()
    }

    /// Features of very different scales, and a number that classes are cut from.
    pub(crate) fn formula(rows: usize, width: usize, noise: f64, collinear: bool) -> (Array2<f32>, Vec<f64>) {
        let mut x = Array2::from_shape_fn((rows, width), |(r, c)| {
            let (r, c) = (r as f64, c as f64);
            (1.0 + r * (0.37 + 0.11 * c) + 0.5 * c * c).sin() * (1.0 + c) + 10.0 * c
        });
        if collinear {
            let twin = &x.column(0) * 2.0 - 1.0;
            x.column_mut(width - 1).assign(&twin);
        }
        let x = x.mapv(|value| value as f32);
        let cut = (0..rows).map(|r| f64::from(x[[r, 0]]) + noise * (2.9 * r as f64).sin());
        let cut = cut.collect();
        (x, cut)
    }

    /// Two or three classes, by thresholds on the second result of [`formula`].
    pub(crate) fn classes(cut: &[f64], count: usize) -> Vec<usize> {
        let class = |&s: &f64| match count {
            2 => usize::from(s > 0.0),
            _ => usize::from(s > -0.5) + usize::from(s > 0.5),
        };
        cut.iter().map(class).collect()
    }

    #[test]
    fn rejects_nan_and_wrong_shapes() {
        let targets = Targets::new(&["a", "b"], &["t", "t"], &[]).unwrap();
        let error = |features| {
            let refused = Examples::new(source(), features, targets.clone());
            refused.unwrap_err().to_string()
        };
        assert!(error(array![[1.0, 2.0], [f32::NAN, 0.0]]).contains("NaN in row 1, column 0"));
        assert!(error(array![[1.0]]).contains("1 rows of features; expected 2"));
        assert!(error(Array2::zeros((0, 4))).contains("at least one row"));
    }
}
