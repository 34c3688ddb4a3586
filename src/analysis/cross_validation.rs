//! Cross-validation at every site: each dialogue is tested on by a probe that never saw it, for data too few to hold a part
//! out. Strengths are chosen inside each fold's fit part.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::layer_sweep::{Known, Question, Rows};
use crate::config::experiment;
use crate::error::{Error, Result};
use crate::model::Site;
use crate::probe::{
    CrossValidation, Split, Targets, ValidationPlan, cross_validate, linearised_auroc, method, split, tfidf,
    units,
};
use crate::stats::{Linearised, Metric};

/// Scores of one cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossValidated {
    /// What was held out.
    pub name: String,
    /// The label that the probes read.
    pub label: String,
    /// Scores at every site; AUROC is the mean over the folds.
    pub sites: Vec<(Site, Vec<Metric>)>,
    /// Scores of the probes at the site that each fold chose inside its own fit part, words by TF-IDF on the same folds, and the
    /// paired difference.
    #[serde(default)]
    pub chosen: Vec<Metric>,
    /// The site that each fold chose.
    #[serde(default)]
    pub chosen_sites: Vec<Site>,
    /// Numbers of the rows that each fold held out.
    pub folds: Vec<Vec<usize>>,
}

impl CrossValidated {
    /// Metrics under their names in a run's results (`cross/LABEL/NAME/…`), those with the site chosen inside the folds first.
    pub fn metrics(&self) -> Vec<Metric> {
        let name = |what: &str| format!("cross/{}/{}/{what}", self.label, self.name);
        let split = format!("{} held out", self.name);
        let named =
            |what: &str, figure: &Metric| Metric { name: name(what), split: split.clone(), ..figure.clone() };
        let sites = self.sites.iter().flat_map(|(site, figures)| {
            let areas = figures.iter().filter(|figure| figure.name.starts_with("auroc"));
            areas.map(move |figure| (format!("{site}/{}", figure.name), figure))
        });
        let all = self.chosen.iter().map(|figure| (figure.name.clone(), figure)).chain(sites);
        all.map(|(what, figure)| named(&what, figure)).collect()
    }
}

/// Cross-validates at every site of `rows`. `read` gives a site's activations, `[rows, width]`; `on_progress` gets the
/// number of sites done, and stops by giving false.
///
/// # Errors
/// Neither folds nor a group, a dialogue without its label, a fold without a class, or a stop.
pub fn cross_validate_sites(
    file: &experiment::CrossValidation,
    seed: u64,
    rows: &Rows,
    read: &mut dyn FnMut(Site) -> Result<Array2<f32>>,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<CrossValidated> {
    let method = method(&file.method, &file.strengths)?;
    let question = Question {
        label: &file.label,
        kind: file.kind,
        order: &file.order,
        group: file.group.as_deref(),
        held_out: &[],
        method: method.as_ref(),
        plan: ValidationPlan { seed, ..ValidationPlan::default() },
    };
    let Known { targets, texts, .. } = rows.known(&question)?;
    let all: Vec<usize> = (0..targets.rows()).collect();
    let folds = match (file.folds, &file.group) {
        (Some(folds), _) => folds,
        (None, Some(_)) => targets.group_names.len(),
        (None, None) => {
            return Err(Error::input(
                format!("cross_validation {}", file.name),
                "neither folds nor a group",
                "folds = 5, or group = LABEL",
            ));
        }
    };
    let splits = split::folds(&targets, &all, folds, seed)?;
    let mut validated: Vec<(Site, CrossValidation)> = Vec::new();
    for (done, &site) in rows.read.sites.iter().enumerate() {
        if !on_progress(done) {
            return Err(Error::Stopped);
        }
        let examples = rows.read.examples(site, &file.label, read(site)?, &targets)?;
        validated.push((site, cross_validate(method.as_ref(), &examples, &splits, &question.plan)?));
    }
    on_progress(rows.read.sites.len());
    let (mut chosen, chosen_sites) = choose_sites(&validated, &targets, &question.plan);
    chosen.extend(words(&texts, &targets, &splits, &question.plan, &validated, &chosen_sites)?);
    let metrics = |(site, one): &(Site, CrossValidation)| (*site, one.metrics(&targets, &question.plan));
    Ok(CrossValidated {
        name: file.name.clone(),
        label: file.label.clone(),
        sites: validated.iter().map(metrics).collect(),
        chosen,
        chosen_sites,
        folds: splits.into_iter().map(|split| split.test).collect(),
    })
}

/// The predictions of each fold at the site that it chose.
fn at_chosen(validated: &[(Site, CrossValidation)], chosen: &[Site]) -> Option<CrossValidation> {
    let mut whole = validated.first()?.1.clone();
    for (fold, site) in chosen.iter().enumerate() {
        let (_, own) = validated.iter().find(|(other, _)| other == site)?;
        for &place in &own.folds[fold] {
            whole.probabilities.row_mut(place).assign(&own.probabilities.row(place));
        }
    }
    Some(whole)
}

/// The site of each fold with the greatest AUROC inside its fit part (the first among equals), and the scores of the folds' probes
/// there: no site is chosen by the rows that it is tested on.
fn choose_sites(
    validated: &[(Site, CrossValidation)],
    targets: &Targets,
    plan: &ValidationPlan,
) -> (Vec<Metric>, Vec<Site>) {
    let folds = validated.first().map_or(0, |(_, one)| one.folds.len());
    let best = |fold: usize| {
        let inner = |(_, one): &&(Site, CrossValidation)| one.inner[fold].unwrap_or(f64::NEG_INFINITY);
        let best = validated.iter().rev().max_by(|a, b| inner(a).total_cmp(&inner(b)));
        best.map(|(site, _)| *site)
    };
    let sites: Vec<Site> = (0..folds).filter_map(best).collect();
    let whole = at_chosen(validated, &sites);
    (whole.map_or(Vec::new(), |whole| whole.metrics(targets, plan)), sites)
}

/// Words and characters by TF-IDF on the same folds, and the paired difference of the probes at the chosen sites.
fn words(
    texts: &[String],
    targets: &Targets,
    splits: &[Split],
    plan: &ValidationPlan,
    validated: &[(Site, CrossValidation)],
    chosen: &[Site],
) -> Result<Vec<Metric>> {
    let Some(whole) = at_chosen(validated, chosen) else { return Ok(Vec::new()) };
    let plain = ValidationPlan { resamples: 0, ..plan.clone() };
    let unordered = targets.unordered();
    let baselines = splits.iter().map(|split| tfidf(texts, &unordered, split, &plain));
    let baselines = baselines.collect::<Result<Vec<_>>>()?;
    let parts = baselines.into_iter().zip(&whole.folds);
    let parts: Vec<_> = parts.filter_map(|(one, rows)| Some((one.area?, rows.as_slice()))).collect();
    let tested = targets.select(&whole.rows);
    let own = linearised_auroc(whole.probabilities.view(), &tested, &whole.folds);
    let words = Linearised::average_of_parts(&parts, whole.rows.len());
    let (Some(own), Some(words)) = (own, words) else { return Ok(Vec::new()) };
    let units = units(&tested, plan);
    let metric = |name: &str, interval| Metric::new(name, interval, whole.rows.len(), "folds");
    Ok(vec![
        metric("tfidf/auroc", words.interval(&units)),
        metric("difference/tfidf", own.minus(&words, &units)),
    ])
}
