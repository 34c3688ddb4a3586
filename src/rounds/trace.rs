//! Trace: dialogues and probes in; a reading a round, probe and condition out, with the scalars of each trajectory and, where labels
//! are, how well the probe's one direction ranks each round beside a direction fitted on that round alone.

use std::collections::BTreeMap;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::condition::{Condition, user_messages};
use super::trajectory::Scalars;
use crate::activations::{Request, extract};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::probe::{Examples, Fit, Logistic, Probe, Split, Targets};
use crate::stats::{self, Interval, Linearised, Units};

/// A probe, the class that is followed, and the name that records give it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeOfClass {
    /// The name.
    pub name: String,
    /// The probe.
    pub probe: Probe,
    /// The class.
    pub class: String,
}

/// A record a turn, condition and probe: a line of `turns.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// The dialogue's id.
    pub dialogue: String,
    /// The round, from 1.
    pub turn: usize,
    /// What the model was shown.
    pub condition: Condition,
    /// The probe's name.
    pub probe: String,
    /// The class whose probability was read.
    pub class: String,
    /// The probability.
    pub reading: f64,
    /// The change since the round before; none in the first.
    pub change: Option<f64>,
    /// The dialogue's value of the probe's label, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The scalars of one dialogue's trajectory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// The dialogue's id.
    pub dialogue: String,
    /// What the model was shown.
    pub condition: Condition,
    /// The probe's name.
    pub probe: String,
    /// The scalars.
    #[serde(flatten)]
    pub scalars: Scalars,
}

/// How a round is read over all dialogues that reach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundScore {
    /// What the model was shown.
    pub condition: Condition,
    /// The probe's name.
    pub probe: String,
    /// The round, from 1.
    pub turn: usize,
    /// Dialogues that reach it.
    pub dialogues: usize,
    /// Mean reading with its 95 % interval; none of one dialogue.
    pub mean: Option<Interval>,
    /// AUROC of the probe as it is; none where the labels are missing or of one kind.
    pub fixed: Option<f64>,
    /// AUROC, out of fold, of a probe of the same site that is fitted on this round alone; none where a kind has fewer than ten
    /// dialogues.
    pub refitted: Option<f64>,
    /// Cosine of that probe's direction and the fixed one's, as far as the fixed one has one.
    pub cosine: Option<f64>,
}

/// All that was traced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Scores round by round.
    pub rounds: Vec<RoundScore>,
    /// Scalars by dialogue.
    pub trajectories: Vec<TraceSummary>,
    /// The records.
    #[serde(skip)]
    pub records: Vec<TurnRecord>,
}

/// Dialogues of each kind that a round needs for a direction of its own.
const LEAST: usize = 10;
/// Folds of that direction's out-of-fold scores.
const FOLDS: usize = 5;
/// Its inverse penalty.
const STRENGTH: f64 = 0.01;

/// Traces dialogues. `on_progress` gets the number of passes over the data that are done, of one a condition and probe, and stops
/// the trace by returning false.
///
/// # Errors
/// No dialogue with a message of the user; no probe, or one that picks several tokens a round; two probes of one name; a stop.
pub fn trace(
    model: &Model,
    dialogues: &[Dialogue],
    probes: &[ProbeOfClass],
    conditions: &[Condition],
    thinking: Option<bool>,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Trace> {
    check(dialogues, probes)?;
    let mut trace = Trace { rounds: Vec::new(), trajectories: Vec::new(), records: Vec::new() };
    let mut done = 0;
    for &condition in conditions {
        let mut shown = Vec::new();
        let mut place = Vec::new();
        for (number, dialogue) in dialogues.iter().enumerate() {
            for turn in 1..=user_messages(dialogue).len() {
                shown.extend(condition.of(dialogue, turn));
                place.push((number, turn));
            }
        }
        for one in probes {
            let source = &one.probe.source;
            let request = Request::new([source.site]).tokens(source.tokens.clone()).thinking(thinking);
            let states = extract(model, &shown, &request, &mut |_| true)?;
            if !states.example.iter().copied().eq(0..shown.len()) {
                let found = format!("{} tokens of {} rounds", states.example.len(), shown.len());
                let expected = "a selector that picks one token a round, or pools";
                return Err(Error::input(
                    format!("probe {}, tokens {}", one.name, source.tokens),
                    found,
                    expected,
                ));
            }
            let rows = states.at(source.site)?;
            let class = one.probe.class(&one.class)?;
            let readings = one.probe.probabilities(rows.view())?.column(class).to_vec();
            add_records(&mut trace, dialogues, &place, &readings, one, condition);
            add_rounds(&mut trace, dialogues, &place, &readings, rows, one, condition)?;
            done += 1;
            if !on_progress(done) {
                return Err(Error::Stopped);
            }
        }
    }
    Ok(trace)
}

fn check(dialogues: &[Dialogue], probes: &[ProbeOfClass]) -> Result<()> {
    if probes.is_empty() {
        return Err(Error::input("trace", "no probe", "one or more"));
    }
    for (place, one) in probes.iter().enumerate() {
        if probes[..place].iter().any(|other| other.name == one.name) {
            return Err(Error::input("trace", format!("two probes named {}", one.name), "a name a probe"));
        }
        one.probe.class(&one.class)?;
    }
    match dialogues.iter().any(|dialogue| !user_messages(dialogue).is_empty()) {
        true => Ok(()),
        false => Err(Error::input("trace", "no message of the user", "a dialogue with one or more")),
    }
}

fn add_records(
    trace: &mut Trace,
    dialogues: &[Dialogue],
    place: &[(usize, usize)],
    readings: &[f64],
    one: &ProbeOfClass,
    condition: Condition,
) {
    let mut begin = 0;
    while begin < place.len() {
        let number = place[begin].0;
        let end = begin + place[begin..].iter().take_while(|(other, _)| *other == number).count();
        let dialogue = &dialogues[number];
        let own = &readings[begin..end];
        for (index, &reading) in own.iter().enumerate() {
            trace.records.push(TurnRecord {
                dialogue: dialogue.id.clone(),
                turn: index + 1,
                condition,
                probe: one.name.clone(),
                class: one.class.clone(),
                reading,
                change: index.checked_sub(1).map(|before| reading - own[before]),
                label: dialogue.label(&one.probe.source.label),
            });
        }
        trace.trajectories.extend(Scalars::of(own).map(|scalars| TraceSummary {
            dialogue: dialogue.id.clone(),
            condition,
            probe: one.name.clone(),
            scalars,
        }));
        begin = end;
    }
}

fn add_rounds(
    trace: &mut Trace,
    dialogues: &[Dialogue],
    place: &[(usize, usize)],
    readings: &[f64],
    states: &Array2<f32>,
    one: &ProbeOfClass,
    condition: Condition,
) -> Result<()> {
    let mut by_round: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    place.iter().enumerate().for_each(|(row, (_, turn))| by_round.entry(*turn).or_default().push(row));
    for (turn, rows) in by_round {
        let own: Vec<f64> = rows.iter().map(|&row| readings[row]).collect();
        let mean = Linearised::mean(&own).filter(|_| own.len() > 1);
        let labels: Option<Vec<bool>> = rows
            .iter()
            .map(|&row| {
                let label = dialogues[place[row].0].label(&one.probe.source.label)?;
                Some(label == one.class)
            })
            .collect();
        let fixed = labels.as_ref().and_then(|labels| stats::auroc(&own, labels));
        let refitted = match &labels {
            Some(labels) => refit(one, states, &rows, labels)?,
            None => None,
        };
        trace.rounds.push(RoundScore {
            condition,
            probe: one.name.clone(),
            turn,
            dialogues: rows.len(),
            mean: mean.map(|mean| mean.interval(&Units::rows(own.len()))),
            fixed,
            refitted: refitted.map(|(auroc, _)| auroc),
            cosine: refitted.and_then(|(_, cosine)| cosine),
        });
    }
    Ok(())
}

/// Out-of-fold AUROC of a probe of one round's states, and the cosine of its direction and the fixed probe's.
fn refit(
    one: &ProbeOfClass,
    states: &Array2<f32>,
    rows: &[usize],
    labels: &[bool],
) -> Result<Option<(f64, Option<f64>)>> {
    let positives = labels.iter().filter(|label| **label).count();
    if positives < LEAST || labels.len() - positives < LEAST {
        return Ok(None);
    }
    let names: Vec<&str> = labels.iter().map(|&label| if label { "class" } else { "other" }).collect();
    let groups: Vec<String> = (0..rows.len()).map(|row| row.to_string()).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let targets = Targets::new(&names, &groups, &["other", "class"])?;
    let features = states.select(ndarray::Axis(0), rows);
    // Each kind's rows in turn, so that every fold has both.
    let mut fold = vec![0; rows.len()];
    let (mut seen, mut other) = (0, 0);
    for (row, &label) in labels.iter().enumerate() {
        let count = if label { &mut seen } else { &mut other };
        fold[row] = *count % FOLDS;
        *count += 1;
    }
    let part =
        |own: usize, is_test: bool| (0..rows.len()).filter(|&row| (fold[row] == own) == is_test).collect();
    let splits: Vec<Split> =
        (0..FOLDS).map(|own| Split { fit: part(own, false), test: part(own, true) }).collect();
    let examples = Examples::new(one.probe.source.clone(), features, targets)?;
    let mut scores = vec![0.0; rows.len()];
    for (split, fits) in splits.iter().zip(Logistic::default().fit(examples.clone(), &splits, &[STRENGTH])?) {
        let Some(fit) = fits.into_iter().next() else { return Ok(None) };
        for (&row, logit) in split.test.iter().zip(fit.logits.column(0)) {
            scores[row] = *logit;
        }
    }
    let Some(auroc) = stats::auroc(&scores, labels) else { return Ok(None) };
    let own = Logistic::default().fit_all(examples, STRENGTH)?.direction("other", "class")?;
    let cosine = match fixed_direction(one) {
        Some(fixed) => Some(stats::cosine(own.view(), fixed.view())?),
        None => None,
    };
    Ok(Some((auroc, cosine)))
}

/// The fixed probe's direction toward its class, from the mean of the others.
fn fixed_direction(one: &ProbeOfClass) -> Option<ndarray::Array1<f32>> {
    let others = one.probe.classes.iter().filter(|class| **class != one.class);
    let directions = others.map(|other| one.probe.direction(other, &one.class).ok());
    directions.reduce(|sum, next| Some(sum? + next?))?
}
