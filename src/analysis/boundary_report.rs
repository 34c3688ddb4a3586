//! The boundary report of one probe: margins, faces of a class's region, calibration, and a threshold with an error bound.
//!
//! Activations with ids and labels in, from rows that the probe was not fitted on; a map, margins and a card out.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::boundary::{
    Coverage, ErrorKind, GroupTrial, Guarantee, Margin, Region, RiskBound, RiskMap, Threshold, coverage,
    group_coverage, guaranteed_threshold, margins, nearest, try_on_groups,
};
use crate::config::defaults::RELIABILITY_BINS;
use crate::dialogue::{Dialogue, Label};
use crate::error::{Error, Result};
use crate::probe::{Calibration, Link, NONE, Probe, Targets, ValidationPlan, classification_metrics};
use crate::stats::{self, Bin, Metric};

/// Examples, a row each.
pub struct Rows {
    /// `[rows, width]` at the probe's site.
    pub states: Array2<f32>,
    /// Ids of the dialogues.
    pub ids: Vec<String>,
    /// None where a row has no label yet; a list where classes do not exclude one another (see [`label`]).
    pub labels: Vec<Option<Label>>,
    /// The groups that intervals and trials are over; ids where rows are independent.
    pub groups: Vec<String>,
    /// The name of this part of the data, for figures: "topic held out".
    pub split: String,
}

/// A dialogue's label as a probe has it: one value, or, where classes do not exclude one another, a list.
pub fn label(dialogue: &Dialogue, probe: &Probe) -> Option<Label> {
    let name = &probe.source.label;
    match probe.link {
        Link::MultiLabel => dialogue.values(name).map(Label::List),
        _ => dialogue.label(name).map(Label::Text),
    }
}

/// What a report is about.
#[derive(Clone, Debug)]
pub struct Question {
    /// The map's first axis runs from this class …
    pub from: String,
    /// … to this one.
    pub to: String,
    /// The class whose region's faces are counted.
    pub safe: String,
    /// The class that the threshold flags.
    pub flag: String,
    /// The error bound of the threshold; without it there is no threshold.
    pub promise: Option<RiskBound>,
    /// The rows over which the bound holds.
    pub guarantee: Guarantee,
    /// Resamplings on which the bound is tested.
    pub resamplings: usize,
    /// Number of nearest examples that are listed for labelling.
    pub next: usize,
    /// Seed of intervals and resamplings.
    pub seed: u64,
}

/// The numbers of a boundary (JSON, kind `boundary`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Label of the probe.
    pub label: String,
    /// Its site.
    pub site: String,
    /// The part of the data.
    pub split: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of rows with a label.
    pub labelled: usize,
    /// The probe's calibration method.
    pub calibration: String,
    /// Expected calibration error before calibration.
    pub ece_as_fitted: Metric,
    /// Expected calibration error after it.
    pub ece: Metric,
    /// The threshold, where a bound was given.
    pub flagged: Option<Flagged>,
    /// The faces of the safe class's region.
    pub faces: Faces,
}

/// A threshold with its error bound, and the bound's test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flagged {
    /// The class that is flagged.
    pub class: String,
    /// The bound, in words.
    pub promise: String,
    /// The rows over which it holds.
    #[serde(default)]
    pub over: Guarantee,
    /// The threshold.
    pub threshold: Threshold,
    /// The threshold chosen on resamplings of these rows, and its true rates there.
    pub trial: Coverage,
    /// Whether the test agrees with the bound: the 95 % interval of the share in which it held reaches 1 − delta, or the mean
    /// rate is within alpha.
    pub held: bool,
    /// Each group, tried with the threshold chosen on the others; empty without groups.
    #[serde(default)]
    pub groups: Vec<GroupTrial>,
}

/// The share of the other rows from which on a threshold that keeps its bound is of no use.
const USELESS: f64 = 0.9;

impl Flagged {
    /// What is to be doubted of the threshold: that it keeps its bound by flagging nearly every row, or nearly none.
    pub fn doubt(&self) -> Option<String> {
        let Threshold { other_rate, risk_bound, .. } = &self.threshold;
        let what = match risk_bound.error {
            ErrorKind::Miss => "flags",
            ErrorKind::FalseAlarm => "misses",
        };
        let whose = match risk_bound.error {
            ErrorKind::Miss => format!("the rows that are not {}", self.class),
            ErrorKind::FalseAlarm => format!("the rows that are {}", self.class),
        };
        (*other_rate >= USELESS).then(|| {
            format!(
                "the threshold that keeps the bound {} {what} {:.1} % of {whose}: it tells the classes hardly apart; a larger alpha, or a \
                 better probe, is needed",
                risk_bound.alpha,
                100.0 * other_rate
            )
        })
    }

    /// The trial on groups in a sentence: in how many the rate is within alpha, and the worst. None without groups.
    pub fn group_sentence(&self) -> Option<String> {
        let alpha = self.threshold.risk_bound.alpha;
        let within = self.groups.iter().filter(|trial| trial.rate <= alpha).count();
        let worst = self.groups.iter().max_by(|a, b| a.rate.total_cmp(&b.rate))?;
        Some(format!(
            "chosen on the other groups and tried on each in turn, the rate was within {alpha} in {within} of {} groups, and {:.3} in the \
             worst ({}, {} rows){}",
            self.groups.len(),
            worst.rate,
            worst.group,
            worst.n,
            if within < self.groups.len() { ": the bound does not carry over to a new group" } else { "" }
        ))
    }
}

/// The faces of a class's region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Faces {
    /// The class.
    pub class: String,
    /// One a neighbouring class.
    pub faces: Vec<Face>,
}

/// The face of a region towards one neighbouring class, and the examples that lie nearest to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// The neighbouring class.
    pub across: String,
    /// Number of examples inside the region.
    pub inside: usize,
    /// Their mean distance, in activation units.
    pub inside_distance: Option<f64>,
    /// Number of examples outside.
    pub outside: usize,
    /// Their mean distance, in activation units.
    pub outside_distance: Option<f64>,
    /// Number of examples outside with another label than the region's class.
    pub labelled: usize,
    /// Number of those whose label is `across`.
    pub own: usize,
}

/// Everything about one boundary.
pub struct Report {
    /// The numbers.
    pub card: Card,
    /// The risk map.
    pub map: RiskMap,
    /// Every row's distance to the boundary.
    pub margins: Vec<Margin>,
    /// Margins to label next, nearest first: of rows without a label where there are any.
    pub next: Vec<Margin>,
    /// Bins of the reliability diagram, before calibration and after.
    pub bins: [Vec<Bin>; 2],
}

/// Computes the report.
///
/// # Errors
/// If no row is labelled, a label or a class is not among the probe's, or the rows are too few for the error bound.
pub fn report(probe: &Probe, rows: &Rows, question: &Question) -> Result<Report> {
    let labelled: Vec<usize> = (0..rows.ids.len()).filter(|&row| rows.labels[row].is_some()).collect();
    if labelled.is_empty() {
        let place = format!("boundary of {}", probe.source.label);
        return Err(Error::input(place, "no row with a label", "labelled rows, to test the probe on"));
    }
    let labels: Vec<&Label> = labelled.iter().filter_map(|&row| rows.labels[row].as_ref()).collect();
    let groups: Vec<String> = labelled.iter().map(|&row| rows.groups[row].clone()).collect();
    let targets = targets(probe, &labels, &groups)?;
    let states = rows.states.select(Axis(0), &labelled);
    let mut map = RiskMap::of_probe(probe, states.view(), &targets, &question.from, &question.to)?;
    map.split = Some(rows.split.clone());

    let calibrated = probe.probabilities(states.view())?;
    let as_fitted = Probe { calibration: Calibration::None, ..probe.clone() }.probabilities(states.view())?;
    let plan = ValidationPlan { seed: question.seed, ..ValidationPlan::default() };
    let ece = |probabilities: &Array2<f64>| {
        let found = classification_metrics(probabilities.view(), &targets, &plan, &rows.split);
        found
            .into_iter()
            .find(|figure| figure.name == "ece")
            .ok_or_else(|| Error::input("calibration error", "no value", "rows with labels"))
    };
    let bins = [&as_fitted, &calibrated].map(|probabilities| {
        let (probabilities, classes) = decisions(probabilities, &targets);
        stats::reliability(probabilities.view(), &classes, RELIABILITY_BINS)
    });

    let margins = margins(probe, rows.states.view(), &rows.ids, &rows.labels)?;
    let open: Vec<Margin> = margins.iter().filter(|margin| margin.label.is_none()).cloned().collect();
    let pool = if open.is_empty() { &margins } else { &open };
    let next = nearest(pool, question.next).into_iter().map(|row| pool[row].clone()).collect();

    let column = probe.class(&question.flag)?;
    let flagged = question.promise.map(|promise| -> Result<Flagged> {
        let scores = calibrated.column(column).to_vec();
        let positive: Vec<bool> = (0..targets.rows()).map(|row| targets.is(row, column)).collect();
        let guarantee = question.guarantee;
        let threshold = guaranteed_threshold(&scores, &positive, &groups, promise, guarantee)?;
        let (resamplings, seed) = (question.resamplings, question.seed);
        let trial = match guarantee {
            Guarantee::Exchangeable => coverage(&scores, &positive, promise, threshold.n, resamplings, seed)?,
            Guarantee::WorstGroup => group_coverage(&scores, &positive, &groups, promise, resamplings, seed)?,
        };
        let on_groups = match has_groups(&groups) {
            true => try_on_groups(&scores, &positive, &groups, promise, guarantee),
            false => Vec::new(),
        };
        let over = match guarantee {
            Guarantee::Exchangeable => promise.sentence(),
            Guarantee::WorstGroup => promise.sentence_over_groups(),
        };
        // A share below 1 − delta whose interval reaches it is no evidence against the bound.
        let held = match promise.delta {
            Some(delta) => {
                let count = (trial.coverage * trial.resamplings as f64).round() as usize;
                stats::wilson(count, trial.resamplings).is_some_and(|share| share.high >= 1.0 - delta)
            }
            None => trial.mean_rate <= promise.alpha,
        };
        Ok(Flagged {
            class: question.flag.clone(),
            promise: over,
            over: guarantee,
            threshold,
            trial,
            held,
            groups: on_groups,
        })
    });
    let card = Card {
        label: probe.source.label.clone(),
        site: probe.source.site.to_string(),
        split: rows.split.clone(),
        rows: rows.ids.len(),
        labelled: labelled.len(),
        calibration: probe.calibration.name().into(),
        ece_as_fitted: ece(&as_fitted)?,
        ece: ece(&calibrated)?,
        flagged: flagged.transpose()?,
        faces: faces(probe, rows, &question.safe)?,
    };
    if let Some(flagged) = &card.flagged {
        map.threshold = Some((flagged.class.clone(), flagged.threshold.value));
    }
    Ok(Report { card, map, margins, next, bins })
}

/// Whether rows share groups, so that a group can be tried on its own.
fn has_groups(groups: &[String]) -> bool {
    let mut names: Vec<&String> = groups.iter().collect();
    names.sort();
    names.dedup();
    names.len() > 1 && names.len() < groups.len()
}

/// Targets of rows with these labels, in the probe's own classes.
fn targets(probe: &Probe, labels: &[&Label], groups: &[String]) -> Result<Targets> {
    let order: Vec<&str> = probe.classes.iter().map(String::as_str).collect();
    let names: Vec<String> = labels.iter().map(ToString::to_string).collect();
    match probe.link {
        Link::Ordinal => Targets::ordinal(&names, groups, &order),
        Link::Binary | Link::Multinomial => Targets::new(&names, groups, &order),
        Link::MultiLabel => {
            let list = |label: &&Label| match label {
                Label::List(list) => list.clone(),
                one => vec![one.to_string()],
            };
            Targets::multilabel(&labels.iter().map(list).collect::<Vec<_>>(), groups, &order)
        }
    }
}

/// Probabilities and true classes of the decisions: one a row, or of a multilabel probe one a row and label, as `[no, yes]`.
fn decisions(probabilities: &Array2<f64>, targets: &Targets) -> (Array2<f64>, Vec<usize>) {
    if targets.link != Link::MultiLabel {
        return (probabilities.clone(), targets.classes.clone());
    }
    let (rows, labels) = probabilities.dim();
    let cell = |n: usize| (n / labels, n % labels);
    let both = Array2::from_shape_fn((rows * labels, 2), |(n, yes)| {
        let p = probabilities[cell(n)];
        if yes == 1 { p } else { 1.0 - p }
    });
    let truth = (0..rows * labels).map(|n| usize::from(targets.is(cell(n).0, cell(n).1)));
    (both, truth.collect())
}

/// Counts the examples at each face of a class's region.
fn faces(probe: &Probe, rows: &Rows, class: &str) -> Result<Faces> {
    let region = Region::of_class(probe, class)?;
    let standings = region.signed_distances(rows.states.view())?;
    // Distance and label of each example, by face and side.
    type Examples<'a> = Vec<(f64, Option<&'a Label>)>;
    let mut examples: BTreeMap<(usize, bool), Examples> = BTreeMap::new();
    for (standing, label) in standings.iter().zip(&rows.labels) {
        let inside = standing.margin >= 0.0;
        examples
            .entry((standing.half_space, inside))
            .or_default()
            .push((standing.margin.abs(), label.as_ref()));
    }
    let face = |index: usize| {
        let side = |inside: bool| examples.get(&(index, inside)).map_or(&[][..], Vec::as_slice);
        let mean = |of: &[(f64, Option<&Label>)]| {
            (!of.is_empty()).then(|| of.iter().map(|(distance, _)| distance).sum::<f64>() / of.len() as f64)
        };
        let across = region.across[index].clone();
        let is_class = |label: &Label| match label {
            Label::List(list) if list.is_empty() => class == NONE,
            label => label.holds(class),
        };
        let risky: Vec<&Label> =
            side(false).iter().filter_map(|(_, label)| *label).filter(|label| !is_class(label)).collect();
        Face {
            inside: side(true).len(),
            inside_distance: mean(side(true)),
            outside: side(false).len(),
            outside_distance: mean(side(false)),
            labelled: risky.len(),
            own: risky.iter().filter(|label| label.holds(&across)).count(),
            across,
        }
    };
    Ok(Faces { class: class.to_owned(), faces: (0..region.across.len()).map(face).collect() })
}
