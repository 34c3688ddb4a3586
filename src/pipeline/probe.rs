//! Fitting of probes on labelled activations: a probe at every site, with its controls.

use ndarray::Array2;

use super::{OnProgress, should_continue};
use crate::activations::Labelled;
use crate::analysis::layer_sweep::{self, Fitted, Question, Read, Rows, Sweep};
use crate::error::Result;
use crate::model::Site;
use crate::probe::{Fit, Logistic, Probe, TargetKind, ValidationPlan, method};
use crate::progress::Progress;
use crate::stats::Metric;

impl Labelled {
    /// A probe of a label, to be fitted at every site: see [`ProbeBuilder`].
    pub fn probe(&self, label: impl Into<String>) -> ProbeBuilder<'_> {
        ProbeBuilder::new(States::Borrowed(self), label.into())
    }

    /// As [`Labelled::probe`], but the dialogues are dropped before the fit: thousands of them take as much memory as
    /// the matrices of a site.
    pub fn into_probe<'a>(self, label: impl Into<String>) -> ProbeBuilder<'a> {
        ProbeBuilder::new(States::Owned(Box::new(self)), label.into())
    }
}

enum States<'a> {
    Borrowed(&'a Labelled),
    Owned(Box<Labelled>),
}

/// How a probe is fitted. By default: one of several classes, in the order of their names; no groups; logistic regression
/// whose penalty is chosen on five folds; every site.
#[must_use]
pub struct ProbeBuilder<'a> {
    states: States<'a>,
    label: String,
    kind: TargetKind,
    order: Vec<String>,
    group: Option<String>,
    held_out: Vec<String>,
    sites: Option<String>,
    method: Box<dyn Fit>,
    plan: ValidationPlan,
    on_progress: Option<OnProgress<'a>>,
}

impl<'a> ProbeBuilder<'a> {
    fn new(states: States<'a>, label: String) -> ProbeBuilder<'a> {
        ProbeBuilder {
            states,
            label,
            kind: TargetKind::default(),
            order: Vec::new(),
            group: None,
            held_out: Vec::new(),
            sites: None,
            method: Box::new(Logistic::default()),
            plan: ValidationPlan::default(),
            on_progress: None,
        }
    }

    /// The target type: multiclass, ordinal or multilabel.
    pub fn kind(mut self, kind: TargetKind) -> Self {
        self.kind = kind;
        self
    }

    /// The classes in order, the lowest first.
    pub fn order<T: Into<String>>(mut self, classes: impl IntoIterator<Item = T>) -> Self {
        self.order = classes.into_iter().map(Into::into).collect();
        self
    }

    /// The label to group by: rows of one group are never on both sides of a split. Without it, each dialogue is a group.
    pub fn group(mut self, label: impl Into<String>) -> Self {
        self.group = Some(label.into());
        self
    }

    /// The groups to test on. Without them, scores are out of fold.
    pub fn hold_out<T: Into<String>>(mut self, groups: impl IntoIterator<Item = T>) -> Self {
        self.held_out = groups.into_iter().map(Into::into).collect();
        self
    }

    /// The sites to fit at, as in [`Model::extract`](crate::model::Model::extract).
    pub fn sites(mut self, sites: impl Into<String>) -> Self {
        self.sites = Some(sites.into());
        self
    }

    /// The method (`logistic`, `ridge`, `lda` or `means`) and the inverse penalties C to choose among, ascending; its own
    /// where `c_grid` is empty.
    ///
    /// # Errors
    /// No such method; a grid that does not ascend from above 0.
    pub fn method(mut self, name: &str, c_grid: &[f64]) -> Result<Self> {
        self.method = method(name, c_grid)?;
        Ok(self)
    }

    /// How the probe is validated: folds, intervals, seed.
    pub fn plan(mut self, plan: ValidationPlan) -> Self {
        self.plan = plan;
        self
    }

    /// Hears how many sites are fitted, and stops the fit by returning false.
    pub fn on_progress(mut self, on_progress: impl FnMut(Progress) -> bool + 'a) -> Self {
        self.on_progress = Some(Box::new(on_progress));
        self
    }

    /// Fits a probe at every site, scores it on the groups held out, and its controls at the best site.
    ///
    /// # Errors
    /// A label, group or site that does not exist (the message names those that do); too few rows of a class.
    pub fn fit(mut self) -> Result<ProbeSweep> {
        let question = Question {
            label: &self.label,
            kind: self.kind,
            order: &self.order,
            group: self.group.as_deref(),
            held_out: &self.held_out,
            method: self.method.as_ref(),
            plan: self.plan,
        };
        let states = match &self.states {
            States::Borrowed(states) => *states,
            States::Owned(states) => states,
        };
        states.check_label(&self.label)?;
        self.group.as_deref().map_or(Ok(()), |group| states.check_label(group))?;
        let sites = match &self.sites {
            None => states.sites().to_vec(),
            Some(text) => states.parse_sites(text)?,
        };
        let (header, tokens, example) =
            (states.header().clone(), states.tokens().clone(), states.example().to_vec());
        let chosen: Vec<usize> = (0..example.len()).collect();
        let read = Read { header: &header, tokens: &tokens, sites: &sites, chosen: &chosen };
        let known = Rows { read, example: &example, dialogues: states.dialogues() }.known(&question)?;
        if let States::Owned(states) = &mut self.states {
            drop(states.take_dialogues());
        }
        let states = match &self.states {
            States::Borrowed(states) => *states,
            States::Owned(states) => states,
        };
        let mut values = |site: Site| -> Result<Array2<f32>> { Ok(states.at(site)?.into_owned()) };
        let (mut on_progress, total) = (self.on_progress, sites.len());
        let mut on_site = |done| should_continue(&mut on_progress, "fitting", done, total);
        Ok(ProbeSweep(layer_sweep::sweep(&question, read, &known, &mut values, &mut on_site)?))
    }
}

/// Probes of one label at every site, with the controls of the best.
pub struct ProbeSweep(Sweep);

impl ProbeSweep {
    /// The probe of the best site, chosen on folds of the fit part.
    pub fn best(&self) -> &Probe {
        &self.0.best().1.probe
    }

    /// The probe at a site.
    ///
    /// # Errors
    /// A site that no probe was fitted at.
    pub fn at(&self, site: Site) -> Result<&Probe> {
        Ok(&self.0.at(site)?.probe)
    }

    /// Every site with its probe, in the order of the forward pass.
    pub fn sites(&self) -> &[(Site, Fitted)] {
        &self.0.sites
    }

    /// AUROC of what a probe has to beat: n-grams, TF-IDF of words and characters, pairs of words, text lengths, shuffled labels,
    /// random features.
    pub fn controls(&self) -> [&Metric; 6] {
        self.0.controls()
    }

    /// The best site's AUROC less that of each control on texts, with 95 % intervals of the paired differences.
    pub fn differences(&self) -> &[Metric] {
        &self.0.differences
    }

    /// The metrics of the best site on the part that was held out, with 95 % intervals.
    pub fn metrics(&self) -> Vec<Metric> {
        self.0.best_figures()
    }

    /// One line for each control that the best site's probe does not clearly beat.
    ///
    /// # Errors
    /// A part to score on that holds one class only.
    pub fn doubts(&self) -> Result<Vec<String>> {
        self.0.doubts()
    }

    /// The sweep as tables and charts take it.
    pub fn as_sweep(&self) -> &Sweep {
        &self.0
    }
}
