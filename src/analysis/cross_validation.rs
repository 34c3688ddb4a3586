//! Probes that are tested on every dialogue, each by a probe that never saw it: for data too few to hold a part out.
//! Choices are made inside each fold's fit part.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::layer_sweep::{Question, Rows};
use crate::error::{Error, Result};
use crate::model::Site;
use crate::probe::{ValidationPlan, TargetKind, Targets, cross_validate, method, split};
use crate::report::charts::chart::{LinePoint, Series};
use crate::report::{Chart, LineChart};
use crate::stats::Metric;

/// One way of holding out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cross {
    /// What is held out, for figures and charts: rows, kinds, …
    pub name: String,
    pub label: String,
    #[serde(default)]
    pub kind: TargetKind,
    #[serde(default)]
    pub order: Vec<String>,
    /// The label whose values are held out whole; without one, single dialogues are.
    pub group: Option<String>,
    /// Folds; left out, every group is held out alone.
    pub folds: Option<usize>,
    #[serde(default = "logistic")]
    pub method: String,
    #[serde(default)]
    pub strengths: Vec<f64>,
}

fn logistic() -> String {
    "logistic".into()
}

/// What was found one way.
pub struct Crossed {
    pub name: String,
    pub label: String,
    /// At every site.
    pub sites: Vec<(Site, Vec<Metric>)>,
    /// Numbers of the rows that each fold held out.
    pub folds: Vec<Vec<usize>>,
}

impl Crossed {
    /// The site with the greatest AUROC, all rows together. Picked by what is then reported: where it is taken as one
    /// number, it flatters a little.
    pub fn best(&self) -> Option<&(Site, Vec<Metric>)> {
        let area = |(_, figures): &&(Site, Vec<Metric>)| {
            let area = figures.iter().find(|figure| figure.name == "auroc");
            area.map_or(f64::NEG_INFINITY, |figure| figure.value)
        };
        self.sites.iter().max_by(|a, b| area(a).total_cmp(&area(b)))
    }

    /// Figures with names that say what was held out, the best site's first.
    pub fn figures(&self) -> Vec<Metric> {
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

/// Cross-validates at every site of `rows`.
pub fn cross(
    cross: &Cross,
    seed: u64,
    rows: &Rows,
    read: &mut dyn FnMut(Site) -> Result<Array2<f32>>,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Crossed> {
    let method = method(&cross.method, &cross.strengths)?;
    let question = Question {
        label: &cross.label,
        kind: cross.kind,
        order: &cross.order,
        group: cross.group.as_deref(),
        held_out: &[],
        method: method.as_ref(),
        plan: ValidationPlan { seed, ..ValidationPlan::default() },
    };
    let targets: Targets = rows.targets(&question)?;
    let all: Vec<usize> = (0..targets.rows()).collect();
    let folds = match (cross.folds, &cross.group) {
        (Some(folds), _) => folds,
        (None, Some(_)) => targets.group_names.len(),
        (None, None) => {
            return Err(Error::input(
                format!("cross {}", cross.name),
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
        let examples = rows.read.examples(site, &cross.label, read(site)?, &targets)?;
        sites.push((site, cross_validate(method.as_ref(), &examples, &splits, &question.plan)?));
    }
    on_progress(rows.read.sites.len());
    Ok(Crossed {
        name: cross.name.clone(),
        label: cross.label.clone(),
        sites,
        folds: splits.into_iter().map(|split| split.test).collect(),
    })
}

/// AUROC at every site, a line a way of holding out, of all that read one label.
pub fn chart(label: &str, crossed: &[&Crossed]) -> Chart {
    let line = |crossed: &&Crossed| {
        let point = |(place, (_, figures)): (usize, &(Site, Vec<Metric>))| {
            let figure = figures.iter().find(|figure| figure.name == "auroc")?;
            Some(LinePoint { x: place as f64, y: figure.value, low: figure.low, high: figure.high })
        };
        Series {
            name: format!("{} held out", crossed.name),
            points: crossed.sites.iter().enumerate().filter_map(point).collect(),
            ..Series::default()
        }
    };
    let sites = crossed.first().map(|first| &first.sites);
    Chart::Line(LineChart {
        title: format!("What a score is worth: {label}"),
        subtitle: "AUROC of a linear probe at each site, every dialogue scored by a probe that never saw it; bands are 95 % intervals".into(),
        x_label: "site".into(),
        y_label: "AUROC".into(),
        x_ticks: sites.map(|sites| sites.iter().map(|(site, _)| crate::plots::charts::tick(*site)).collect()),
        y_range: Some([0.4, 1.0]),
        series: crossed.iter().map(line).collect(),
        ..LineChart::default()
    })
}
