//! The probing stage: each probe at every site, on groups held out, beside what it has to beat.

use crate::activations::Activations;
use crate::artifact::Header;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Selector, Site};
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
const SHUFFLES: usize = 24;

impl Sweep {
    pub fn best(&self) -> (Site, &Validated) {
        let (site, validated) = &self.sites[self.best];
        (*site, validated)
    }

    /// The fit at one site.
    pub fn at(&self, site: Site) -> Result<&Validated> {
        let found = self.sites.iter().find(|(other, _)| *other == site);
        found.map(|(_, validated)| validated).ok_or_else(|| {
            Error::input(
                format!("probe of {} at {site}", self.label),
                "not fitted there",
                "a site that is read",
            )
        })
    }
}

/// A figure of a validated probe.
pub fn figure<'a>(validated: &'a Validated, name: &str, split: &str) -> Result<&'a Figure> {
    let mut scores = validated.probe.scores.iter();
    scores.find(|score| score.name == name && score.split == split).ok_or_else(|| {
        Error::input(
            format!("probe of {}", validated.probe.source.label),
            format!("no {name} on {split}"),
            "two classes there",
        )
    })
}

/// What is asked of a sweep.
pub struct Question<'a> {
    pub label: &'a str,
    /// The classes in order; sorted by name where none are given.
    pub order: &'a [String],
    /// The label to group by, and the groups that are held out.
    pub group: &'a str,
    pub held_out: &'a [String],
    pub seed: u64,
}

/// Fits a probe at every site of `activations`, using these of its rows. `header` and `tokens` say how they were read,
/// `dialogues` are those that they were read from.
pub fn sweep(
    question: &Question,
    activations: &Activations,
    rows: &[usize],
    dialogues: &[Dialogue],
    header: &Header,
    tokens: &Selector,
) -> Result<Sweep> {
    let of = |row: &usize| &dialogues[activations.example[*row]];
    let values =
        |name: &str| -> Result<Vec<String>> { rows.iter().map(|row| label(of(row), name)).collect() };
    let order: Vec<&str> = question.order.iter().map(String::as_str).collect();
    let targets = Targets::new(&values(question.label)?, &values(question.group)?, &order)?;
    let held_out: Vec<&str> = question.held_out.iter().map(String::as_str).collect();
    let split = Split::hold_out(&targets, &held_out)?;
    let plan = Plan { seed: question.seed, ..Plan::default() };
    let method = Logistic::default();
    let examples = activations.sites.iter().map(|(site, values)| {
        let source = Source {
            site: *site,
            tokens: tokens.clone(),
            label: question.label.into(),
            model: header.model.clone(),
            model_hash: header.model_hash.clone(),
            data_hash: header.data_hash.clone(),
        };
        Examples::new(source, values.select(ndarray::Axis(0), rows), targets.clone())
    });
    let examples = examples.collect::<Result<Vec<_>>>()?;
    let validated = probe::sweep(&method, &examples, &split, &plan)?;
    let score = |validated: &Validated| figure(validated, "auroc", "validation").map(|figure| figure.value);
    let scores = validated.iter().map(score).collect::<Result<Vec<f64>>>()?;
    let best = (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
    let texts: Vec<String> = rows.iter().map(|row| of(row).user_text()).collect();
    let baseline = ngram::ngram(&texts, &targets, &split, &plan, &ngram::Grams::default())?;
    let baseline = baseline.scores.into_iter().find(|score| score.name == "auroc");
    let baseline = baseline
        .ok_or_else(|| Error::input("n-gram baseline", "no AUROC", "two classes in the test part"))?;
    let shuffled = control::shuffled(&method, &examples[best], &split, &plan, SHUFFLES)?;
    Ok(Sweep {
        label: question.label.into(),
        sites: activations.sites.iter().map(|(site, _)| *site).zip(validated).collect(),
        best,
        ngram: baseline,
        shuffled,
        split: format!("{} held out", question.group),
    })
}

/// A label's value.
pub fn label(dialogue: &Dialogue, name: &str) -> Result<String> {
    let missing = || {
        Error::input(format!("dialogue {}", dialogue.id), format!("no label {name}"), "one on every dialogue")
    };
    dialogue.label(name).ok_or_else(missing)
}
