//! Check of a probe on a second set of activations of the same dialogues (another precision, engine or fine-tune of its model):
//! what moved, with paired intervals, and a verdict.
//!
//! A quantity holds where the whole interval of its change lies within a margin, as in a test of equivalence; it has moved where
//! the estimate lies beyond the margin and the interval excludes 0.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView1, Axis};
use serde::{Deserialize, Serialize};

use crate::activations::Labelled;
use crate::config::defaults::{RELIABILITY_BINS, RESAMPLES};
use crate::error::{Error, Result};
use crate::probe::{Link, Probe, Targets, ValidationPlan, linearised_auroc, units};
use crate::stats::{self, Interval, Units, wilson};

/// How far a quantity may move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margins {
    /// Loss of AUROC.
    pub auroc: f64,
    /// Change of the share of misses, or of false alarms, at a threshold.
    pub rate: f64,
    /// Rise of the expected calibration error.
    pub calibration: f64,
}

impl Default for Margins {
    /// Two hundredths of AUROC; five errors more or fewer in a hundred; five hundredths of a probability.
    fn default() -> Margins {
        Margins { auroc: 0.02, rate: 0.05, calibration: 0.05 }
    }
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every change is within its margin.
    Holds,
    /// The ranking holds, but errors at a threshold, or the calibration, have moved: a threshold has to be set anew.
    ThresholdStale,
    /// The probe ranks the rows worse: it has to be fitted anew.
    ReadingDegraded,
    /// The rows are too few to say.
    Inconclusive,
}

impl Verdict {
    /// In words.
    pub fn in_words(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::ThresholdStale => "threshold stale",
            Verdict::ReadingDegraded => "reading degraded",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

/// A quantity on both stores, and its change (the second less the first).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// On the first store and on the second.
    pub values: [f64; 2],
    /// The paired change.
    pub change: Interval,
}

/// The readings of both stores, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    /// Mean absolute change of a probability.
    pub mean_change: f64,
    /// Largest change of a probability.
    pub largest_change: f64,
    /// Pearson's correlation of the logits.
    pub correlation: Option<f64>,
    /// Share of rows whose most probable class changes.
    pub flips: f64,
}

/// Errors at the threshold of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdChange {
    /// The class.
    pub class: String,
    /// The probability from which on a row is assigned to it.
    pub threshold: f64,
    /// Share of its rows below the threshold.
    pub misses: Option<Change>,
    /// Share of the other rows at the threshold or above.
    pub false_alarms: Option<Change>,
}

/// All that a check found (JSON, kind `probe-check`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeCheck {
    /// The result.
    pub verdict: Verdict,
    /// What it rests on, a line a quantity that doesn't hold.
    pub reasons: Vec<String>,
    /// Rows that both stores have.
    pub rows: usize,
    /// Rows of one store that the other lacks.
    pub unpaired: usize,
    /// Independent units of the intervals: groups, or dialogues.
    pub units: usize,
    /// Row by row.
    pub readings: Readings,
    /// AUROC, averaged over the classes; none where the rows are of one class.
    pub auroc: Option<Change>,
    /// Expected calibration error.
    pub calibration: Option<Change>,
    /// Share of rows whose most probable class is another than theirs; for probes of several classes without a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Change>,
    /// Errors at the thresholds.
    pub thresholds: Vec<ThresholdChange>,
    /// The margins.
    pub margins: Margins,
}

/// Changes of a probability that only rounding makes. Where no row's reading moves by more, nothing is left to be inferred.
const ROUNDING: f64 = 1e-4;

/// Checks the probe on two sets of activations of the same dialogues. `chosen`: rows of the first; `group`: the label whose values
/// are independent units, in place of dialogues.
///
/// # Errors
/// Activations that the probe can't read; no row of both; rows without the probe's label.
pub fn check(
    probe: &Probe,
    stores: [&Labelled; 2],
    chosen: &[usize],
    group: Option<&str>,
    margins: Margins,
) -> Result<ProbeCheck> {
    stores.into_iter().try_for_each(|store| store.check_probe(probe))?;
    let (rows, unpaired) = paired(stores, chosen);
    if rows[0].is_empty() {
        let found = "no row that both have";
        return Err(Error::input("stores", found, "activations of the same dialogues at the same tokens"));
    }
    let targets = stores[0].truth_by_group(probe, &rows[0], group)?;
    let mut logits = Vec::new();
    for (store, rows) in stores.iter().zip(&rows) {
        logits.push(probe.logits(store.at(probe.source.site)?.select(Axis(0), rows).view())?);
    }
    let [first, second] = [&logits[0], &logits[1]].map(|logits| probe.from_logits(logits.clone()));
    let units = units(&targets, &ValidationPlan::default());
    let readings = readings([&first, &second], &logits);
    let auroc = match [&first, &second].map(|own| linearised_auroc(own.view(), &targets, &[])) {
        [Some(one), Some(two)] => {
            // Where both rank every row right, only the readings themselves show how alike they are.
            let known = readings.correlation.unwrap_or(0.0);
            let change = two.minus_correlated(&one, &units, known);
            Some(Change { values: [one.value, two.value], change })
        }
        _ => None,
    };
    let calibration = calibration([&first, &second], &targets, &units);
    let is_still = readings.largest_change <= ROUNDING;
    let thresholds = thresholds(probe)
        .into_iter()
        .map(|(class, threshold)| {
            threshold_change(probe, (class, threshold), [&first, &second], (&targets, &units), is_still)
        })
        .collect();
    let decides = probe.threshold.is_empty() && probe.classes.len() > 2 && targets.link != Link::MultiLabel;
    let all: Vec<usize> = (0..targets.rows()).collect();
    let is_wrong = |own: &Array2<f64>, row: usize| largest(own.row(row)) != Some(targets.classes[row]);
    let errors = rate_change([&first, &second], &all, &units, readings.largest_change <= ROUNDING, &is_wrong)
        .filter(|_| decides);
    let mut check = ProbeCheck {
        errors,
        verdict: Verdict::Holds,
        reasons: Vec::new(),
        rows: rows[0].len(),
        unpaired,
        units: units.count(),
        readings,
        auroc,
        calibration,
        thresholds,
        margins,
    };
    (check.verdict, check.reasons) = judge(&check);
    Ok(check)
}

/// The rows of both stores that belong together: the same dialogue, and the same place among its rows.
fn paired(stores: [&Labelled; 2], chosen: &[usize]) -> ([Vec<usize>; 2], usize) {
    // Dialogues are told by their messages; of several with the same ones, the first goes with the first.
    let keys = |store: &Labelled, rows: &[usize]| -> Vec<((i64, usize), usize)> {
        let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
        let mut fingerprints: BTreeMap<usize, i64> = BTreeMap::new();
        let mut key = |&row: &usize| {
            let number = store.example()[row];
            let print = *fingerprints.entry(number).or_insert_with(|| store.dialogue(row).fingerprint());
            let place = seen.entry(print).or_default();
            *place += 1;
            ((print, *place), row)
        };
        rows.iter().map(&mut key).collect()
    };
    let all: Vec<usize> = (0..stores[1].rows()).collect();
    let others: BTreeMap<(i64, usize), usize> = keys(stores[1], &all).into_iter().collect();
    // Every row of the first store takes part in the count, whichever are chosen.
    let own: Vec<usize> = (0..stores[0].rows()).collect();
    let mut rows = [Vec::new(), Vec::new()];
    let mut unpaired = 0;
    for (key, row) in keys(stores[0], &own) {
        if chosen.binary_search(&row).is_err() {
            continue;
        }
        match others.get(&key) {
            None => unpaired += 1,
            Some(other) => {
                rows[0].push(row);
                rows[1].push(*other);
            }
        }
    }
    (rows, unpaired)
}

fn readings([first, second]: [&Array2<f64>; 2], logits: &[Array2<f64>]) -> Readings {
    let moved: Vec<f64> = first.iter().zip(second).map(|(a, b)| (a - b).abs()).collect();
    let flips = first.rows().into_iter().zip(second.rows()).filter(|(a, b)| largest(*a) != largest(*b));
    Readings {
        mean_change: moved.iter().sum::<f64>() / moved.len() as f64,
        largest_change: moved.iter().fold(0.0, |most, &own| most.max(own)),
        correlation: correlation(&logits[0], &logits[1]),
        flips: flips.count() as f64 / first.nrows() as f64,
    }
}

/// The class of the largest probability.
fn largest(row: ArrayView1<f64>) -> Option<usize> {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class)
}

fn correlation(a: &Array2<f64>, b: &Array2<f64>) -> Option<f64> {
    let (mean_a, mean_b) = (a.mean()?, b.mean()?);
    let sum = |product: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| product(a - mean_a, b - mean_b)).sum()
    };
    let value = sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    value.is_finite().then_some(value)
}

/// The change of the binned calibration error, whose bias by noise is the same on both.
fn calibration([first, second]: [&Array2<f64>; 2], targets: &Targets, units: &Units) -> Option<Change> {
    if targets.link == Link::MultiLabel {
        return None;
    }
    let error = |probabilities: &Array2<f64>, rows: &[usize]| {
        let classes: Vec<usize> = rows.iter().map(|&row| targets.classes[row]).collect();
        stats::calibration_error(probabilities.select(Axis(0), rows).view(), &classes, RELIABILITY_BINS)
    };
    let all: Vec<usize> = (0..targets.rows()).collect();
    let change = stats::bootstrap(&units.members(), RESAMPLES, 0, |rows| {
        Some(error(second, rows)? - error(first, rows)?)
    });
    Some(Change { values: [error(first, &all)?, error(second, &all)?], change: change? })
}

/// The classes with a threshold: the probe's own, or else one half for the second of two classes.
fn thresholds(probe: &Probe) -> Vec<(String, f64)> {
    match (probe.threshold.is_empty(), probe.classes.as_slice()) {
        (true, [_, class]) => vec![(class.clone(), 0.5)],
        _ => probe.threshold.iter().map(|(class, threshold)| (class.clone(), *threshold)).collect(),
    }
}

fn threshold_change(
    probe: &Probe,
    (class, threshold): (String, f64),
    probabilities: [&Array2<f64>; 2],
    (targets, units): (&Targets, &Units),
    is_still: bool,
) -> ThresholdChange {
    let column = probe.classes.iter().position(|other| *other == class);
    let rates = |wanted: bool| {
        let column = column?;
        let own: Vec<usize> = (0..targets.rows()).filter(|&row| targets.is(row, column) == wanted).collect();
        let is_error = |own: &Array2<f64>, row: usize| (own[[row, column]] >= threshold) != wanted;
        rate_change(probabilities, &own, units, is_still, &is_error)
    };
    ThresholdChange { misses: rates(true), false_alarms: rates(false), class, threshold }
}

/// The change of a share of errors among `own` rows, ascending. `is_still`: no reading moves by more than rounding.
fn rate_change(
    [first, second]: [&Array2<f64>; 2],
    own: &[usize],
    units: &Units,
    is_still: bool,
    is_error: &(dyn Fn(&Array2<f64>, usize) -> bool + Sync),
) -> Option<Change> {
    let share = |readings: &Array2<f64>, rows: &[usize]| {
        let mut errors = (0, 0);
        for &row in rows.iter().filter(|row| own.binary_search(row).is_ok()) {
            errors = (errors.0 + usize::from(is_error(readings, row)), errors.1 + 1);
        }
        (errors.1 > 0).then(|| errors.0 as f64 / errors.1 as f64)
    };
    let values = [share(first, own)?, share(second, own)?];
    let flips = own.iter().filter(|&&row| is_error(first, row) != is_error(second, row)).count();
    // Rows none of which flips bound the share that does, unless no reading moves at all.
    if flips == 0 {
        let reach = if is_still { 0.0 } else { wilson(0, own.len().min(units.count()))?.high };
        return Some(Change { values, change: Interval { value: 0.0, low: -reach, high: reach } });
    }
    let change = stats::bootstrap(&units.members(), RESAMPLES, 0, |rows| {
        Some(share(second, rows)? - share(first, rows)?)
    });
    let unknown = Interval { value: values[1] - values[0], low: -1.0, high: 1.0 };
    Some(Change { values, change: change.unwrap_or(unknown) })
}

/// How a change lies to its margin.
#[derive(PartialEq)]
enum Place {
    Within,
    Beyond,
    Unknown,
}

/// The place of a change that is harmful upwards; with `both`, downwards as well.
fn place(change: &Interval, margin: f64, both: bool) -> Place {
    let is_beyond = |value: f64, low: f64| value > margin && low > 0.0;
    let Interval { value, low, high } = *change;
    if is_beyond(value, low) || both && is_beyond(-value, -high) {
        return Place::Beyond;
    }
    match high <= margin && (!both || low >= -margin) {
        true => Place::Within,
        false => Place::Unknown,
    }
}

/// The verdict, with its reasons.
fn judge(check: &ProbeCheck) -> (Verdict, Vec<String>) {
    let margins = &check.margins;
    let mut reasons = Vec::new();
    let mut places = Vec::new();
    let mut note = |name: String, change: &Change, place: Place, margin: f64| {
        let words = match place {
            Place::Within => None,
            Place::Beyond => Some("beyond"),
            Place::Unknown => Some("its interval is not within"),
        };
        if let Some(words) = words {
            let Interval { value, low, high } = change.change;
            reasons.push(format!(
                "{name}: {:.3} to {:.3}, change {value:+.3} [{low:+.3}, {high:+.3}]: {words} the margin {margin}",
                change.values[0], change.values[1]
            ));
        }
        place
    };
    let ranking = match &check.auroc {
        None => Place::Unknown,
        Some(auroc) => {
            let Interval { value, low, high } = auroc.change;
            let loss = Interval { value: -value, low: -high, high: -low };
            note("AUROC".into(), auroc, place(&loss, margins.auroc, false), margins.auroc)
        }
    };
    if let Some(calibration) = &check.calibration {
        let own = place(&calibration.change, margins.calibration, false);
        places.push(note("calibration error".into(), calibration, own, margins.calibration));
    }
    if let Some(errors) = &check.errors {
        let own = place(&errors.change, margins.rate, true);
        places.push(note("errors of the most probable class".into(), errors, own, margins.rate));
    }
    for ThresholdChange { class, threshold, misses, false_alarms } in &check.thresholds {
        for (what, change) in [("misses", misses), ("false alarms", false_alarms)] {
            if let Some(change) = change {
                let own = place(&change.change, margins.rate, true);
                places.push(note(format!("{what} of {class} at {threshold:.3}"), change, own, margins.rate));
            }
        }
    }
    if check.auroc.is_none() {
        reasons.push("AUROC: rows of one class".into());
    }
    let verdict = match ranking {
        Place::Beyond => Verdict::ReadingDegraded,
        _ if places.contains(&Place::Beyond) => Verdict::ThresholdStale,
        Place::Within if places.iter().all(|place| *place == Place::Within) => Verdict::Holds,
        _ => Verdict::Inconclusive,
    };
    (verdict, reasons)
}
