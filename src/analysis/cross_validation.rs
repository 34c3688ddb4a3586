//! Cross-validation at every site: each dialogue is tested on by a probe that never saw it, for data too few to hold a part
//! out. Strengths are chosen inside each fold's fit part.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::layer_sweep::{Question, Rows};
use crate::config::experiment::CrossValidation;
use crate::error::{Error, Result};
use crate::model::Site;
use crate::probe::{Targets, ValidationPlan, cross_validate, method, split};
use crate::stats::Metric;

/// Scores of one cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossValidated {
    /// What was held out.
    pub name: String,
    /// The label that the probes read.
    pub label: String,
    /// Scores at every site, all rows together.
    pub sites: Vec<(Site, Vec<Metric>)>,
    /// Numbers of the rows that each fold held out.
    pub folds: Vec<Vec<usize>>,
}

impl CrossValidated {
    /// The site with the greatest AUROC. It is chosen by the score that is then reported, which makes that score a little
    /// too high.
    pub fn best(&self) -> Option<&(Site, Vec<Metric>)> {
        let area = |(_, figures): &&(Site, Vec<Metric>)| {
            let area = figures.iter().find(|figure| figure.name == "auroc");
            area.map_or(f64::NEG_INFINITY, |figure| figure.value)
        };
        self.sites.iter().max_by(|a, b| area(a).total_cmp(&area(b)))
    }

    /// Metrics under their names in a run's results (`cross/LABEL/NAME/…`), the best site's first.
    pub fn metrics(&self) -> Vec<Metric> {
        let name = |what: &str| format!("cross/{}/{}/{what}", self.label, self.name);
        let split = format!("{} held out", self.name);
        let named =
            |what: &str, figure: &Metric| Metric { name: name(what), split: split.clone(), ..figure.clone() };
        let best = self.best().into_iter().flat_map(|(_, figures)| figures);
        let sites = self.sites.iter().flat_map(|(site, figures)| {
            let areas = figures.iter().filter(|figure| figure.name.starts_with("auroc"));
            areas.map(move |figure| (format!("{site}/{}", figure.name), figure))
        });
        let all = best.map(|figure| (figure.name.clone(), figure)).chain(sites);
        all.map(|(what, figure)| named(&what, figure)).collect()
    }
}

/// Cross-validates at every site of `rows`. `read` gives a site's activations, `[rows, width]`; `on_progress` gets the
/// number of sites done, and stops by giving false.
///
/// # Errors
/// Neither folds nor a group, a dialogue without its label, a fold without a class, or a stop.
pub fn cross_validate_sites(
    file: &CrossValidation,
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
    let targets: Targets = rows.targets(&question)?;
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
    let mut sites = Vec::new();
    for (done, &site) in rows.read.sites.iter().enumerate() {
        if !on_progress(done) {
            return Err(Error::Stopped);
        }
        let examples = rows.read.examples(site, &file.label, read(site)?, &targets)?;
        sites.push((site, cross_validate(method.as_ref(), &examples, &splits, &question.plan)?));
    }
    on_progress(rows.read.sites.len());
    Ok(CrossValidated {
        name: file.name.clone(),
        label: file.label.clone(),
        sites,
        folds: splits.into_iter().map(|split| split.test).collect(),
    })
}
