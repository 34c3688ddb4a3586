//! The boundary of one probe over the rows that it was not fitted on: margins, faces, honesty, and thresholds with their
//! promise, as one card.
//! It knows nothing of models: it takes states with ids and labels.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::boundary::{
    Coverage, Margin, Region, RiskBound, RiskMap, Threshold, coverage, margins, nearest, threshold,
};
use crate::dialogue::{Dialogue, Label};
use crate::error::{Error, Result};
use crate::probe::{Calibration, Link, NONE, Plan, Probe, Targets, figures};
use crate::stats::{self, Bin, Metric};

/// Examples, a row each.
pub struct Rows {
    /// `[rows, width]` at the probe's site.
    pub states: Array2<f32>,
    pub ids: Vec<String>,
    /// None where a row has no label yet; a list where classes do not exclude one another (see [`label`]).
    pub labels: Vec<Option<Label>>,
    /// What these rows are, for figures: "topic held out".
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

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Axis of the map.
    pub from: String,
    pub to: String,
    /// The class whose region's faces are counted.
    pub safe: String,
    /// The class that a threshold is to flag, and what is promised of it.
    pub flag: String,
    pub promise: Option<RiskBound>,
    /// Resamplings by which the promise is tried.
    pub resamplings: usize,
    /// How many of the nearest examples are listed for labelling.
    pub next: usize,
    pub seed: u64,
}

/// What is known of a boundary (JSON, kind `boundary`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub label: String,
    pub site: String,
    pub split: String,
    pub rows: usize,
    pub labelled: usize,
    pub calibration: String,
    /// Expected calibration error of the probe as fitted, and calibrated.
    pub ece_as_fitted: Metric,
    pub ece: Metric,
    pub flagged: Option<Flagged>,
    pub faces: Faces,
}

/// A threshold with its promise and how that fared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flagged {
    pub class: String,
    pub promise: String,
    pub threshold: Threshold,
    /// The promise made again and again on resamplings of these rows.
    pub trial: Coverage,
    /// Whether the trial agrees with the promise: the 95 % interval of the share in which it held reaches 1 − delta, or
    /// the mean rate is within alpha.
    pub held: bool,
}

/// How the examples lie around the region of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Faces {
    pub class: String,
    pub faces: Vec<HalfSpace>,
}

/// One neighbour's face of the region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HalfSpace {
    pub across: String,
    /// Examples inside and outside that lie nearest to this face, and their mean distances in activation units.
    pub inside: usize,
    pub inside_distance: Option<f64>,
    pub outside: usize,
    pub outside_distance: Option<f64>,
    /// Of the examples outside with a label: those that lie nearest to the face of their own class.
    pub labelled: usize,
    pub own: usize,
}

/// Everything about one boundary.
pub struct Bounded {
    pub card: Card,
    pub map: RiskMap,
    pub margins: Vec<Margin>,
    /// Margins to be labelled next: of rows without a label where there are any, nearest first.
    pub next: Vec<Margin>,
    /// For the reliability diagram: before calibration and after.
    pub bins: [Vec<Bin>; 2],
}

/// Bins of a reliability diagram.
const BINS: usize = 12;

/// Draws the boundary.
///
/// # Errors
/// If no row is labelled, a label or a class is not among the probe's, or so few rows can't promise what is asked.
pub fn bound(probe: &Probe, rows: &Rows, question: &Question) -> Result<Bounded> {
    let labelled: Vec<usize> = (0..rows.ids.len()).filter(|&row| rows.labels[row].is_some()).collect();
    if labelled.is_empty() {
        let place = format!("boundary of {}", probe.source.label);
        return Err(Error::input(place, "no row with a label", "some, to hold the probe against"));
    }
    let labels: Vec<&Label> = labelled.iter().filter_map(|&row| rows.labels[row].as_ref()).collect();
    let targets = targets(probe, &labels)?;
    let states = rows.states.select(Axis(0), &labelled);
    let map = RiskMap::of_probe(probe, states.view(), &targets, &question.from, &question.to)?;

    let calibrated = probe.probabilities(states.view())?;
    let as_fitted = Probe { calibration: Calibration::None, ..probe.clone() }.probabilities(states.view())?;
    let plan = Plan { seed: question.seed, ..Plan::default() };
    let ece = |probabilities: &Array2<f64>| {
        let found = figures(probabilities.view(), &targets, &plan, &rows.split);
        found
            .into_iter()
            .find(|figure| figure.name == "ece")
            .ok_or_else(|| Error::input("calibration error", "no value", "rows with labels"))
    };
    let bins = [&as_fitted, &calibrated].map(|probabilities| {
        let (probabilities, classes) = decisions(probabilities, &targets);
        stats::reliability(probabilities.view(), &classes, BINS)
    });

    let margins = margins(probe, rows.states.view(), &rows.ids, &rows.labels)?;
    let open: Vec<Margin> = margins.iter().filter(|margin| margin.label.is_none()).cloned().collect();
    let pool = if open.is_empty() { &margins } else { &open };
    let next = nearest(pool, question.next).into_iter().map(|row| pool[row].clone()).collect();

    let column = probe.class(&question.flag)?;
    let flagged = question.promise.map(|promise| -> Result<Flagged> {
        let scores = calibrated.column(column).to_vec();
        let positive: Vec<bool> = (0..targets.rows()).map(|row| targets.is(row, column)).collect();
        let threshold = threshold(&scores, &positive, promise)?;
        let trial = coverage(&scores, &positive, promise, threshold.n, question.resamplings, question.seed)?;
        // A share that chance alone may have brought below what was promised does not speak against it.
        let held = match promise.delta {
            Some(delta) => {
                let count = (trial.coverage * trial.resamplings as f64).round() as usize;
                stats::wilson(count, trial.resamplings).is_some_and(|share| share.high >= 1.0 - delta)
            }
            None => trial.mean_rate <= promise.alpha,
        };
        Ok(Flagged { class: question.flag.clone(), promise: promise.sentence(), threshold, trial, held })
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
    Ok(Bounded { card, map, margins, next, bins })
}

/// What is true of rows with these labels, in the probe's own classes.
fn targets(probe: &Probe, labels: &[&Label]) -> Result<Targets> {
    let order: Vec<&str> = probe.classes.iter().map(String::as_str).collect();
    let names: Vec<String> = labels.iter().map(ToString::to_string).collect();
    match probe.link {
        Link::Ordinal => Targets::levels(&names, &names, &order),
        Link::Binary | Link::Multinomial => Targets::new(&names, &names, &order),
        Link::MultiLabel => {
            let list = |label: &&Label| match label {
                Label::List(list) => list.clone(),
                one => vec![one.to_string()],
            };
            Targets::sets(&labels.iter().map(list).collect::<Vec<_>>(), &names, &order)
        }
    }
}

/// Probabilities and truth of what was decided: one of several a row, or a yes or no a label of each row.
fn decisions(probabilities: &Array2<f64>, targets: &Targets) -> (Array2<f64>, Vec<usize>) {
    if targets.link != Link::MultiLabel {
        return (probabilities.clone(), targets.classes.clone());
    }
    let (rows, labels) = probabilities.dim();
    let at = |n: usize| (n / labels, n % labels);
    let both = Array2::from_shape_fn((rows * labels, 2), |(n, yes)| {
        let p = probabilities[at(n)];
        if yes == 1 { p } else { 1.0 - p }
    });
    let truth = (0..rows * labels).map(|n| usize::from(targets.is(at(n).0, at(n).1)));
    (both, truth.collect())
}

/// Counts the examples at each face of a class's region.
fn faces(probe: &Probe, rows: &Rows, class: &str) -> Result<Faces> {
    let region = Region::of_class(probe, class)?;
    let standings = region.signed_distances(rows.states.view())?;
    // By face and side: how far each example is, and its label.
    type Lying<'a> = Vec<(f64, Option<&'a Label>)>;
    let mut at: BTreeMap<(usize, bool), Lying> = BTreeMap::new();
    for (standing, label) in standings.iter().zip(&rows.labels) {
        let inside = standing.margin >= 0.0;
        at.entry((standing.half_space, inside)).or_default().push((standing.margin.abs(), label.as_ref()));
    }
    let face = |index: usize| {
        let side = |inside: bool| at.get(&(index, inside)).map_or(&[][..], Vec::as_slice);
        let mean = |of: &[(f64, Option<&Label>)]| {
            (!of.is_empty()).then(|| of.iter().map(|(distance, _)| distance).sum::<f64>() / of.len() as f64)
        };
        let across = region.across[index].clone();
        let is_of_it = |label: &Label| match label {
            Label::List(list) if list.is_empty() => class == NONE,
            label => label.holds(class),
        };
        let risky: Vec<&Label> =
            side(false).iter().filter_map(|(_, label)| *label).filter(|label| !is_of_it(label)).collect();
        HalfSpace {
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
