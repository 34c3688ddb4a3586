//! Steering vectors from labelled activations: the direction from one value of a label to another.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis};

use crate::activations::Labelled;
use crate::config::defaults::RESAMPLES;
use crate::error::{Error, Result};
use crate::model::Site;
use crate::stats::{self, Interval};
use crate::steer::{ContrastRows, ContrastSet, Direction, Method, Null, Vector};

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
            group: None,
            held_out: Vec::new(),
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
    group: Option<String>,
    held_out: Vec<String>,
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

    /// The label whose values [`VectorBuilder::hold_out`] names.
    pub fn group(mut self, label: impl Into<String>) -> Self {
        self.group = Some(label.into());
        self
    }

    /// Groups that the vector is not made from; its effect is measured on them.
    pub fn hold_out<T: Into<String>>(mut self, groups: impl IntoIterator<Item = T>) -> Self {
        self.held_out = groups.into_iter().map(Into::into).collect();
        self
    }

    /// The vector, and how many rows of `to` and of `from` it was computed from.
    ///
    /// # Errors
    /// A label, value, group or site that does not exist; no pair, where the method needs pairs.
    pub fn build(self) -> Result<(Vector, [usize; 2])> {
        self.build_and_test().map(|built| (built.vector, built.rows))
    }

    /// The vector, with its effect on the groups held out. Its best site is the one of the highest AUROC there.
    ///
    /// # Errors
    /// As [`VectorBuilder::build`]; groups held out in which one of the two values is missing.
    pub fn build_and_test(self) -> Result<BuiltVector> {
        let states = self.states;
        let sites = match &self.sites {
            None => states.sites().to_vec(),
            Some(text) => states.parse_sites(text)?,
        };
        let [all_to, all_from] = [&self.to, &self.from].map(|value| states.rows_with(&self.label, value));
        let is_held_out = self.held_out_rows()?;
        let ([test_to, mut to], [test_from, mut from]) =
            (parted(all_to?, &is_held_out), parted(all_from?, &is_held_out));
        if !self.held_out.is_empty() {
            for (value, fit, test) in [(&self.to, &to, &test_to), (&self.from, &from, &test_from)] {
                if fit.is_empty() || test.is_empty() {
                    let found = format!("{} rows of {value} held out, {} left", test.len(), fit.len());
                    return Err(Error::input(
                        "held-out groups",
                        found,
                        "some rows of both values in both parts",
                    ));
                }
            }
        }
        if self.method == Method::Pca {
            let pair = |row: usize| match &self.pair {
                Some(label) => states.dialogue(row).label(label),
                None => states.dialogue(row).id.rsplit_once('#').map(|(pair, _)| pair.to_string()),
            };
            (to, from) = pairs(&to, &from, &pair)?;
        }
        let chosen = ContrastRows { sites: states.sites(), position: states.position(), rows: [&to, &from] };
        let sets = sites.iter().map(|&site| chosen.contrast(site, |site| states.at(site)));
        let sets = sets.collect::<Result<Vec<_>>>()?;
        let mut vector = Vector::build(self.method, &sets)?;
        let mut effects = Vec::new();
        for (&site, direction) in vector.directions.iter().filter(|_| !self.held_out.is_empty()) {
            let values = states.at(site)?;
            let [positive, negative] = [&test_to, &test_from].map(|rows| values.select(Axis(0), rows));
            effects.push((site, HeldOutEffect::of(direction, &positive, &negative)?));
        }
        // Of equal separations, the larger effect; of equal effects, the earlier site.
        let order = |a: &HeldOutEffect, b: &HeldOutEffect| {
            a.auroc.value.total_cmp(&b.auroc.value).then(a.share.total_cmp(&b.share))
        };
        vector.best = effects.iter().rev().max_by(|a, b| order(&a.1, &b.1)).map(|(site, _)| *site);
        Ok(BuiltVector { vector, rows: [to.len(), from.len()], held_out: effects, contrasts: sets })
    }

    /// For each row, whether its group is held out.
    fn held_out_rows(&self) -> Result<Vec<bool>> {
        let states = self.states;
        match (&self.group, self.held_out.as_slice()) {
            (_, []) => Ok(vec![false; states.rows()]),
            (None, _) => {
                let expected = "the label that they are values of: --group LABEL";
                Err(Error::input("held-out groups", "no label to group by", expected))
            }
            (Some(group), held_out) => {
                for value in held_out {
                    states.rows_with(group, value)?;
                }
                Ok(states.labels(group)?.iter().map(|value| held_out.contains(value)).collect())
            }
        }
    }
}

/// The rows that are held out, and the others.
fn parted(rows: Vec<usize>, is_held_out: &[bool]) -> [Vec<usize>; 2] {
    let (held_out, others) = rows.into_iter().partition(|&row| is_held_out[row]);
    [held_out, others]
}

/// A vector with what it was made from and how it does on groups that it was not made from.
pub struct BuiltVector {
    /// The vector.
    pub vector: Vector,
    /// Number of rows of `to` and of `from` that it was made from.
    pub rows: [usize; 2],
    /// At each site, the effect on the groups held out; empty where none are.
    pub held_out: Vec<(Site, HeldOutEffect)>,
    contrasts: Vec<ContrastSet>,
}

impl BuiltVector {
    /// Null directions of a kind, as long as the vector at each site, from the same rows: what the vector has to beat.
    ///
    /// # Errors
    /// None for the sites that the vector was built at.
    pub fn nulls(&self, null: Null, draws: usize, seed: u64) -> Result<Vec<Vector>> {
        null.directions(&self.vector, &self.contrasts, draws, seed)
    }
}

/// What a direction is worth on rows that it was not made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOutEffect {
    /// Distance of the two class means along the direction, as a share of its length: 1 is what strength 1 adds.
    pub share: f64,
    /// Separation: AUROC of the projections on the direction, with its bootstrap interval.
    pub auroc: Interval,
    /// Number of rows.
    pub rows: usize,
}

impl HeldOutEffect {
    fn of(direction: &Direction, positive: &Array2<f32>, negative: &Array2<f32>) -> Result<HeldOutEffect> {
        let rows = || positive.rows().into_iter().chain(negative.rows());
        let along =
            rows().map(|row| stats::project(row, direction.values.view())).collect::<Result<Vec<f64>>>()?;
        let is_positive: Vec<bool> = (0..along.len()).map(|row| row < positive.nrows()).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (to, from) = along.split_at(positive.nrows());
        let units: Vec<Vec<usize>> = (0..along.len()).map(|row| vec![row]).collect();
        let separation = |rows: &[usize]| {
            let scores: Vec<f64> = rows.iter().map(|&row| along[row]).collect();
            let labels: Vec<bool> = rows.iter().map(|&row| is_positive[row]).collect();
            stats::auroc(&scores, &labels)
        };
        let auroc = stats::bootstrap(&units, RESAMPLES, 0, separation).ok_or_else(|| {
            Error::input("held-out groups", "too few rows for an interval", "several of both values")
        })?;
        let share = (mean(to) - mean(from)) / f64::from(direction.length());
        Ok(HeldOutEffect { share, auroc: auroc.within(0.0, 1.0), rows: along.len() })
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
