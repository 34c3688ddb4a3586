//! Steering vectors from labelled activations: the direction from one value of a label to another.

use std::collections::BTreeMap;

use ndarray::Axis;

use crate::activations::Labelled;
use crate::error::{Error, Result};
use crate::model::Site;
use crate::steer::{ContrastSet, Method, Vector};

impl Labelled {
    /// The steering vector from value `from` to value `to` of a label, at every site: the difference of the means.
    ///
    /// # Errors
    /// A label or value that does not exist; the message names those that do.
    pub fn vector(&self, label: &str, from: &str, to: &str) -> Result<Vector> {
        Ok(self.contrast(label, from, to).build()?.0)
    }

    /// As [`Labelled::vector`], with options.
    pub fn contrast(&self, label: &str, from: &str, to: &str) -> VectorBuilder<'_> {
        VectorBuilder {
            states: self,
            label: label.into(),
            from: from.into(),
            to: to.into(),
            method: Method::Means,
            pair: None,
            sites: None,
        }
    }
}

/// How a steering vector is computed. By default: the difference of the means, at every site.
#[must_use]
pub struct VectorBuilder<'a> {
    states: &'a Labelled,
    label: String,
    from: String,
    to: String,
    method: Method,
    pair: Option<String>,
    sites: Option<String>,
}

impl VectorBuilder<'_> {
    /// Means, PCA of paired differences, the normal of a probe, or whitened means (LDA).
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// For PCA: the label that the two rows of a pair share. Without it, pairs are those of contrast pairs' ids
    /// (`ID#one` and `ID#other`).
    pub fn pair(mut self, label: impl Into<String>) -> Self {
        self.pair = Some(label.into());
        self
    }

    /// The sites to compute it at, as in [`Model::extract`](crate::model::Model::extract).
    pub fn sites(mut self, sites: impl Into<String>) -> Self {
        self.sites = Some(sites.into());
        self
    }

    /// The vector, and how many rows of `to` and of `from` it was computed from.
    ///
    /// # Errors
    /// A label, value or site that does not exist; no pair, where the method needs pairs.
    pub fn build(self) -> Result<(Vector, [usize; 2])> {
        let states = self.states;
        let sites = match &self.sites {
            None => states.sites().to_vec(),
            Some(text) => states.parse_sites(text)?,
        };
        let mut to = states.rows_with(&self.label, &self.to)?;
        let mut from = states.rows_with(&self.label, &self.from)?;
        if self.method == Method::Pca {
            let pair = |row: usize| match &self.pair {
                Some(label) => states.dialogue(row).label(label),
                None => states.dialogue(row).id.rsplit_once('#').map(|(pair, _)| pair.to_string()),
            };
            (to, from) = pairs(&to, &from, &pair)?;
        }
        let contrast = |site: Site| {
            let values = states.at(site)?;
            let [positive, negative] = [&to, &from].map(|rows| values.select(Axis(0), rows));
            Ok(ContrastSet { site, positive, negative })
        };
        let sets = sites.into_iter().map(contrast).collect::<Result<Vec<_>>>()?;
        Ok((Vector::build(self.method, &sets)?, [to.len(), from.len()]))
    }
}

/// The rows that have a partner of the same pair on the other side, partners at the same index.
fn pairs(
    to: &[usize],
    from: &[usize],
    pair: &dyn Fn(usize) -> Option<String>,
) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut partners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    // From the last on, because `pop` then takes the first.
    for &row in from.iter().rev() {
        if let Some(name) = pair(row) {
            partners.entry(name).or_default().push(row);
        }
    }
    let partner = |&row: &usize| Some((row, partners.get_mut(&pair(row)?)?.pop()?));
    let (to, from): (Vec<usize>, Vec<usize>) = to.iter().filter_map(partner).unzip();
    match to.is_empty() {
        false => Ok((to, from)),
        true => {
            let expected = "contrast pairs, or --pair LABEL that the two rows of a pair share";
            Err(Error::input("method pca", "no pair among the rows", expected))
        }
    }
}
