//! Cross-validation at every site: each dialogue is tested on by a probe that never saw it, for data too few to hold a part
//! out. Strengths are chosen inside each fold's fit part.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::layer_sweep::{Known, Question, Rows};
use crate::config::defaults::SHUFFLES;
use crate::config::experiment;
use crate::error::{Error, Result};
use crate::model::Site;
use crate::probe::{
    CrossValidation, Examples, Fit, Logistic, Provenance, Split, Targets, ValidationPlan, controls,
    cross_validate, linearised_auroc, method, ngram_baseline, ngram_baseline::NgramOptions, split, tfidf,
    units, word_pairs,
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
    /// Scores of the probes at the site that each fold chose inside its own fit part, every control on the same folds, and the
    /// paired differences.
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
    let Known { targets, texts, messages } = rows.known(&question)?;
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
    let mut source: Option<Provenance> = None;
    for (done, &site) in rows.read.sites.iter().enumerate() {
        if !on_progress(done) {
            return Err(Error::Stopped);
        }
        let examples = rows.read.examples(site, &file.label, read(site)?, &targets)?;
        source.get_or_insert_with(|| examples.source.clone());
        validated.push((site, cross_validate(method.as_ref(), &examples, &splits, &question.plan)?));
    }
    on_progress(rows.read.sites.len());
    let (mut chosen, chosen_sites) = choose_sites(&validated, &targets, &question.plan);
    let Some(source) = source else {
        return Err(Error::input(format!("cross_validation {}", file.name), "no site", "at least one"));
    };
    let beside = Controls {
        texts: &texts,
        messages: &messages,
        targets: &targets,
        splits: &splits,
        plan: &question.plan,
        method: method.as_ref(),
        source,
        validated: &validated,
        chosen: &chosen_sites,
    };
    chosen.extend(beside.on_texts()?);
    let mut examples = |site: Site| rows.read.examples(site, &file.label, read(site)?, &targets);
    chosen.extend(beside.of_the_pipeline(&mut examples)?);
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

/// The controls of a cross-validation, on the same folds.
struct Controls<'a> {
    texts: &'a [String],
    messages: &'a [usize],
    targets: &'a Targets,
    splits: &'a [Split],
    plan: &'a ValidationPlan,
    method: &'a dyn Fit,
    source: Provenance,
    validated: &'a [(Site, CrossValidation)],
    chosen: &'a [Site],
}

impl Controls<'_> {
    /// Each baseline on texts, and the paired difference of the probes at the chosen sites. A baseline that can't be fitted in some
    /// fold (no word in enough texts) is left out.
    fn on_texts(&self) -> Result<Vec<Metric>> {
        let Some(whole) = at_chosen(self.validated, self.chosen) else { return Ok(Vec::new()) };
        let plain = ValidationPlan { resamples: 0, ..self.plan.clone() };
        let targets = self.targets.unordered();
        let source = &self.source;
        type Baseline<'b> = Box<dyn Fn(&Split) -> Result<Option<Linearised>> + 'b>;
        let (texts, counts) = (self.texts, self.messages);
        let baselines: [(&str, Baseline); 4] = [
            (
                "ngram",
                Box::new(|split| {
                    Ok(ngram_baseline::ngram(texts, &targets, split, &plain, &NgramOptions::default())?.area)
                }),
            ),
            ("tfidf", Box::new(|split| Ok(tfidf(texts, &targets, split, &plain)?.area))),
            ("pairs", Box::new(|split| Ok(word_pairs(texts, &targets, split, &plain)?.area))),
            (
                "length",
                Box::new(|split| {
                    let (texts, method) = ((texts, counts), Logistic::default());
                    Ok(controls::lengths(&method, (source, &targets), texts, split, &plain)?.1)
                }),
            ),
        ];
        let tested = self.targets.select(&whole.rows);
        let own = linearised_auroc(whole.probabilities.view(), &tested, &whole.folds);
        let units = units(&tested, self.plan);
        let metric = |name: String, interval| Metric::new(name, interval, whole.rows.len(), "folds");
        let mut metrics = Vec::new();
        for (name, baseline) in &baselines {
            let Ok(areas) = self.splits.iter().map(baseline).collect::<Result<Vec<_>>>() else { continue };
            let parts = areas.into_iter().zip(&whole.folds);
            let parts: Vec<_> = parts.filter_map(|(area, rows)| Some((area?, rows.as_slice()))).collect();
            let area = Linearised::average_of_parts(&parts, whole.rows.len());
            let (Some(own), Some(area)) = (&own, area) else { continue };
            metrics.push(metric(format!("{name}/auroc"), area.interval(&units)));
            metrics.push(metric(format!("difference/{name}"), own.minus(&area, &units)));
        }
        Ok(metrics)
    }

    /// The same pipeline on shuffled labels and on random features, at the site that each fold chose: means over the folds that
    /// test on two classes. `examples` gives a site's examples.
    fn of_the_pipeline(&self, examples: &mut dyn FnMut(Site) -> Result<Examples>) -> Result<Vec<Metric>> {
        let two = |split: &Split| {
            let first = split.test.first().map(|&row| self.targets.classes[row]);
            split.test.iter().any(|&row| Some(self.targets.classes[row]) != first)
        };
        let folds: Vec<(&Split, Site)> = self.splits.iter().zip(self.chosen.iter().copied()).collect();
        let folds: Vec<(&Split, Site)> = folds.into_iter().filter(|(split, _)| two(split)).collect();
        if folds.is_empty() {
            return Ok(Vec::new());
        }
        let repeats = SHUFFLES.div_ceil(folds.len());
        let plain = ValidationPlan { resamples: 0, ..self.plan.clone() };
        let (mut shuffled, mut random) = (Vec::new(), Vec::new());
        for (split, site) in folds {
            let mut again = || examples(site);
            shuffled.push(controls::shuffled(self.method, &mut again, split, &plain, repeats)?);
            let width = examples(site)?.features().ncols();
            let given = (&self.source, self.targets);
            random.push(controls::random(self.method, given, width, split, &plain)?);
        }
        let mean = |own: &[Metric]| Metric {
            name: own[0].name.clone(),
            value: own.iter().map(|metric| metric.value).sum::<f64>() / own.len() as f64,
            // The least and the greatest of any fold.
            low: own.iter().filter_map(|metric| metric.low.or(Some(metric.value))).reduce(f64::min),
            high: own.iter().filter_map(|metric| metric.high.or(Some(metric.value))).reduce(f64::max),
            n: own.iter().map(|metric| metric.n).sum(),
            split: "folds".into(),
        };
        Ok(vec![mean(&shuffled), mean(&random)])
    }
}
