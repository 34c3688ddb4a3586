//! The probing stage: each probe at every site, on groups held out, beside what it has to beat.

use super::data::Dataset;
use super::file::{Experiment, Probing};
use crate::activations::Activations;
use crate::error::{Error, Result};
use crate::model::{Model, Site};
use crate::probe::{self, Examples, Logistic, Plan, Source, Split, Targets, Validated, control, ngram};
use crate::stats::Figure;

/// A probe's sweep over sites, with its controls.
pub struct Sweep {
    pub label: String,
    /// One a site, in the order of the forward pass.
    pub sites: Vec<(Site, Validated)>,
    /// Index of the best site, by the folds inside the fit part.
    pub best: usize,
    /// Word-and-bigram baseline on the same split.
    pub ngram: Figure,
    /// The best site's pipeline on shuffled labels.
    pub shuffled: Figure,
    /// What the test part is.
    pub split: String,
}

/// Shuffles of the labels that the control takes the mean of.
const SHUFFLES: usize = 5;

impl Sweep {
    pub fn best(&self) -> (Site, &Validated) {
        let (site, validated) = &self.sites[self.best];
        (*site, validated)
    }

    /// The fit at one site.
    pub fn at(&self, site: Site) -> Result<&Validated> {
        let found = self.sites.iter().find(|(other, _)| *other == site);
        found.map(|(_, validated)| validated).ok_or_else(|| {
            Error::input(format!("probe of {} at {site}", self.label), "not fitted there", "a site that is read")
        })
    }
}

/// A figure of a validated probe.
pub fn figure<'a>(validated: &'a Validated, name: &str, split: &str) -> Result<&'a Figure> {
    let mut scores = validated.probe.scores.iter();
    scores.find(|score| score.name == name && score.split == split).ok_or_else(|| {
        Error::input(format!("probe of {}", validated.probe.source.label), format!("no {name} on {split}"), "two classes there")
    })
}

/// Fits a probe at every site that was read. `activations` has a row a dialogue.
pub fn sweep(experiment: &Experiment, probing: &Probing, model: &Model, data: &Dataset, activations: &Activations) -> Result<Sweep> {
    let group = probing.group.as_ref().unwrap_or(&experiment.data.group);
    let held_out = if probing.group.is_some() { &probing.held_out } else { &experiment.data.held_out };
    let (labels, groups) = (data.labels(&probing.label)?, data.labels(group)?);
    // Validation dialogues are for choosing strengths: here they belong to no part.
    let rows: Vec<usize> = data.fit.iter().chain(&data.test).copied().collect();
    let pick = |all: &[String]| rows.iter().map(|&row| all[row].clone()).collect::<Vec<_>>();
    let order: Vec<&str> = probing.order.iter().map(String::as_str).collect();
    let targets = Targets::new(&pick(&labels), &pick(&groups), &order)?;
    let names: Vec<&str> = held_out.iter().map(String::as_str).collect();
    let split = Split::hold_out(&targets, &names)?;
    let plan = Plan { seed: experiment.seed, ..Plan::default() };
    let method = Logistic::default();
    let examples = activations.sites.iter().map(|(site, values)| {
        let source = Source {
            site: *site,
            tokens: experiment.read.tokens.clone(),
            label: probing.label.clone(),
            model: Some(model.name.clone()),
            model_hash: Some(model.hash.clone()),
            data_hash: Some(data.hash.clone()),
        };
        Examples::new(source, values.select(ndarray::Axis(0), &rows), targets.clone())
    });
    let examples = examples.collect::<Result<Vec<_>>>()?;
    let validated = probe::sweep(&method, &examples, &split, &plan)?;
    let score = |validated: &Validated| figure(validated, "auroc", "validation").map(|figure| figure.value);
    let scores = validated.iter().map(score).collect::<Result<Vec<f64>>>()?;
    let best = (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
    let texts: Vec<String> = rows.iter().map(|&row| data.dialogues[row].user_text()).collect();
    let baseline = ngram::ngram(&texts, &targets, &split, &plan, &ngram::Grams::default())?;
    let baseline = baseline.scores.into_iter().find(|score| score.name == "auroc");
    let baseline = baseline.ok_or_else(|| Error::input("n-gram baseline", "no AUROC", "two classes in the test part"))?;
    let shuffled = control::shuffled(&method, &examples[best], &split, &plan, SHUFFLES)?;
    Ok(Sweep {
        label: probing.label.clone(),
        sites: activations.sites.iter().map(|(site, _)| *site).zip(validated).collect(),
        best,
        ngram: baseline,
        shuffled,
        split: format!("{group} held out"),
    })
}
