//! ROC curves of a probe's classes: probabilities and true classes in, a table of curves out.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::probe::{Probe, Targets};
use crate::stats;

/// The curves of one probe on one part of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roc {
    /// Label of the probe.
    pub label: String,
    /// Its site.
    pub site: String,
    /// What the rows are: "topic held out", say.
    pub split: String,
    /// Number of rows.
    pub n: usize,
    /// One a class; of two classes the second one's.
    pub curves: Vec<RocCurve>,
}

/// The curve of one class against the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocCurve {
    /// The class.
    pub class: String,
    /// Its index among the probe's classes.
    pub index: usize,
    /// `[false positive rate, true positive rate]`, from (0, 0) to (1, 1).
    pub points: Vec<[f64; 2]>,
    /// Area under it.
    pub auroc: f64,
}

/// The curves of a probe on features `[rows, width]` with their targets. A class of no row, or of every one, has none.
///
/// # Errors
/// Features of another width.
pub fn roc(probe: &Probe, features: ArrayView2<f32>, targets: &Targets, split: &str) -> Result<Roc> {
    let probabilities = probe.probabilities(features)?;
    let first = if probe.classes.len() == 2 { 1 } else { 0 };
    let curve = |index: usize| {
        let scores = probabilities.column(index).to_vec();
        let positive: Vec<bool> = (0..targets.rows()).map(|row| targets.is(row, index)).collect();
        let class = probe.classes[index].clone();
        let auroc = stats::auroc(&scores, &positive)?;
        Some(RocCurve { class, index, points: stats::roc(&scores, &positive)?, auroc })
    };
    Ok(Roc {
        label: probe.source.label.clone(),
        site: probe.source.site.to_string(),
        split: split.into(),
        n: targets.rows(),
        curves: (first..probe.classes.len()).filter_map(curve).collect(),
    })
}
