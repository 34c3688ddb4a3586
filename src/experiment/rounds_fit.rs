//! What watches over rounds: plays of users on topics that no attack is about in; probes of attack and refusal, and monitors with
//! their thresholds out.

use std::path::Path;

use ndarray::{Array2, Axis};

use super::rounds_plays::kept;
use super::rounds_users::play_calm;
use crate::activations::{Request, extract};
use crate::boundary::{ErrorKind, RiskBound, Threshold, worst_group_threshold};
use crate::config::RoundsFile;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};
use crate::organism::{Split, UserType, fit_topic};
use crate::probe::{
    self, CalibrationChoice, Examples, Fit, Logistic, Probe, Provenance, Targets, ValidationPlan, validate,
};
use crate::progress::Progress;
use crate::rounds::{Alarm, Condition, Monitor, Played, Reader, Reading, Undefended, user_messages, world};

/// Parts of the topics: the readings that monitors and thresholds come from are those of probes that never saw the topic.
const FOLDS: usize = 5;

/// Probes, monitors and thresholds.
pub(super) struct Watch {
    pub reader: Reader,
    /// Monitors with their thresholds.
    pub alarms: Vec<Alarm>,
    /// The place of the monitor that fires earliest most often where monitors were fitted.
    pub best: usize,
    /// The share of attacks in which it fires there.
    pub caught: f64,
    /// The threshold of a probe that reads single messages.
    pub alone: Threshold,
}

/// Fits them.
pub(super) fn watch(
    file: &RoundsFile,
    model: &Model,
    site: Site,
    out: &Path,
    on_progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Watch> {
    let types = [UserType::Malicious, UserType::Benign, UserType::Malicious, UserType::Sensitive];
    let aims = world::aims(file.fit, &types, &fit_topic, Split::Train, file.seed ^ 4)?;
    let played =
        kept(out, "fit", &mut || play_calm(file, model, &aims, None, &mut Undefended, 17, on_progress))?;
    let users = [UserType::Benign, UserType::Sensitive];
    let aims = world::aims(file.calibrate, &users, &fit_topic, Split::HeldOutWording, file.seed ^ 5)?;
    let calibration = kept(out, "calibration", &mut || {
        play_calm(file, model, &aims, None, &mut Undefended, 19, on_progress)
    })?;
    let Fitted { reader, readings, calm, alone } = fit(model, site, &played, &calibration, file.seed)?;
    let of_type = |is_attack: bool| -> Vec<Vec<Reading>> {
        let own = played.iter().zip(&readings).filter(|(one, _)| is_malicious(one) == is_attack);
        own.map(|(_, readings)| readings.clone()).collect()
    };
    let attack = of_type(true);
    let monitors = Monitor::fit_all(&of_type(false), &attack)?;
    let topics: Vec<String> =
        calibration.iter().map(|one| one.dialogue.label("topic").unwrap_or_default()).collect();
    let alarms = monitors
        .into_iter()
        .map(|monitor| Alarm::calibrate(monitor, &calm, &topics, file.false_alarms))
        .collect::<Result<Vec<Alarm>>>()?;
    let mut best = (0, 0, 0.0);
    for (place, alarm) in alarms.iter().enumerate() {
        let fired = attack
            .iter()
            .map(|own| Ok(alarm.fires(own)?.map(|round| round < own.len())))
            .collect::<Result<Vec<Option<bool>>>>()?;
        let early = fired.iter().filter(|early| **early == Some(true)).count();
        if early > best.1 {
            let caught = fired.iter().flatten().count() as f64 / attack.len() as f64;
            best = (place, early, caught);
        }
    }
    let largest = |own: &Vec<Reading>| own.iter().map(Reading::log_odds).fold(f64::NEG_INFINITY, f64::max);
    let scores: Vec<f64> = alone.iter().map(largest).collect();
    let bound = RiskBound::expected(ErrorKind::FalseAlarm, file.false_alarms);
    let alone = worst_group_threshold(&scores, &vec![false; scores.len()], &topics, bound)?;
    Ok(Watch { reader, alarms, best: best.0, caught: best.2, alone })
}

/// The type of user behind a play.
fn is_malicious(played: &Played) -> bool {
    played.dialogue.label("user-type").as_deref() == Some(UserType::Malicious.name())
}

/// The dialogues as they stood when each round was read, with the place of their play and the round.
fn prefixes<'a>(
    played: impl IntoIterator<Item = &'a Played>,
    condition: Condition,
) -> Vec<(usize, usize, Dialogue)> {
    let mut found = Vec::new();
    for (place, dialogue) in played.into_iter().map(|one| &one.dialogue).enumerate() {
        for round in 1..=user_messages(dialogue).len() {
            found.extend(condition.of(dialogue, round).map(|shown| (place, round, shown)));
        }
    }
    found
}

/// Probes, and readings by probes that were fitted without the topic of the dialogue.
struct Fitted {
    reader: Reader,
    /// Of the dialogues that probes are fitted on, round by round.
    readings: Vec<Vec<Reading>>,
    /// Of the dialogues that thresholds come from.
    calm: Vec<Vec<Reading>>,
    /// Of their messages, each alone.
    alone: Vec<Vec<Reading>>,
}

/// Probes of an attack whose cues are said, and of refusals to come. Penalty and calibration are chosen by folds of topics, and so are
/// the readings: a probe is surer of topics that it was fitted on, so that a threshold that came from them would be too low for others.
fn fit(model: &Model, site: Site, played: &[Played], calibration: &[Played], seed: u64) -> Result<Fitted> {
    let own = prefixes(played, Condition::Whole);
    let calm = prefixes(calibration, Condition::Whole);
    let alone = prefixes(calibration, Condition::Alone);
    let (fit_rows, calm_end) = (own.len(), own.len() + calm.len());
    let refused: Vec<bool> = own
        .iter()
        .map(|(place, round, _)| played[*place].turns.get(round - 1).is_some_and(|turn| turn.verdict.refused))
        .chain(std::iter::repeat_n(false, calm.len() + alone.len()))
        .collect();
    let rounds: Vec<(usize, usize, Dialogue)> = own.into_iter().chain(calm).chain(alone).collect();
    let shown: Vec<Dialogue> = rounds.iter().map(|(_, _, shown)| shown.clone()).collect();
    let request = Request::new([site]).tokens(Selector::AssistantStart);
    let states = extract(model, &shown, &request, &mut |_| true)?;
    let rows = states.at(site)?;
    if rows.len_of(Axis(0)) != shown.len() {
        let found = format!("{} rounds and {} states", shown.len(), rows.len_of(Axis(0)));
        return Err(Error::input("rounds", found, "one state a round"));
    }
    let topics: Vec<String> = shown.iter().map(|one| one.label("topic").unwrap_or_default()).collect();
    let attack: Vec<bool> = shown.iter().map(world::is_evident_attack).collect();
    let fit = |name: &str, labels: &[bool]| crossed(model, site, name, rows, labels, &topics, fit_rows, seed);
    let (risk, risks) = fit("attack", &attack)?;
    // A model that refuses nothing has no refusals to read.
    let (refusal, refusals) = match refused[..fit_rows].contains(&true) {
        true => fit("refusal", &refused).map(|(probe, read)| (Some((probe, "refusal".to_owned())), read))?,
        false => (None, vec![0.0; shown.len()]),
    };
    let by_dialogue = |rows: std::ops::Range<usize>, count: usize| {
        let mut found = vec![Vec::new(); count];
        for row in rows {
            found[rounds[row].0].push(Reading { risk: risks[row], refusal: refusals[row] });
        }
        found
    };
    Ok(Fitted {
        readings: by_dialogue(0..fit_rows, played.len()),
        calm: by_dialogue(fit_rows..calm_end, calibration.len()),
        alone: by_dialogue(calm_end..rounds.len(), calibration.len()),
        reader: Reader { risk: (risk, "attack".into()), refusal, thinking: None },
    })
}

/// A probe of the first `fit_rows` rows, and the probability of its class in every row by a probe fitted without the row's topic.
#[allow(clippy::too_many_arguments)] // one call: rows with their labels and topics
fn crossed(
    model: &Model,
    site: Site,
    name: &str,
    rows: &Array2<f32>,
    labels: &[bool],
    topics: &[String],
    fit_rows: usize,
    seed: u64,
) -> Result<(Probe, Vec<f64>)> {
    let labels: Vec<String> = labels.iter().map(|&is| if is { name } else { "other" }.to_owned()).collect();
    let source = Provenance {
        site,
        tokens: Selector::AssistantStart,
        label: name.into(),
        model: Some(model.name.clone()),
        model_hash: Some(model.hash.clone()),
        model_form: model.form().ok(),
        data_hash: None,
    };
    let targets = Targets::new(&labels, topics, &["other", name])?;
    let examples = Examples::new(source, rows.clone(), targets.clone())?;
    let own: Vec<usize> = (0..fit_rows).collect();
    // Affine, so that scores beyond those seen stay apart.
    let calibration = CalibrationChoice::Platt;
    let plan = ValidationPlan { folds: FOLDS, resamples: 0, seed, calibration, ..ValidationPlan::default() };
    let whole = probe::Split { fit: own.clone(), test: Vec::new() };
    let method = Logistic::default();
    let validated = validate(&method, examples.clone(), &whole, &plan)?;
    let mut splits = probe::folds(&targets, &own, FOLDS, seed)?;
    for split in &mut splits {
        let held: Vec<usize> = split.test.iter().map(|&row| targets.groups[row]).collect();
        split.test.extend((fit_rows..targets.rows()).filter(|&row| held.contains(&targets.groups[row])));
    }
    let class = validated.probe.class(name)?;
    let mut found = vec![0.0; targets.rows()];
    let fits = method.fit(examples, &splits, &[validated.probe.strength])?;
    for (split, fits) in splits.iter().zip(fits) {
        for fit in fits {
            let read = validated.probe.from_logits(fit.logits);
            split.test.iter().zip(read.column(class)).for_each(|(&row, &read)| found[row] = read);
        }
    }
    Ok((validated.probe, found))
}

/// Readings of each message alone.
pub(super) fn alone_readings(
    model: &Model,
    reader: &Reader,
    played: &[&Played],
) -> Result<Vec<Vec<Reading>>> {
    let rounds = prefixes(played.iter().copied(), Condition::Alone);
    let shown: Vec<Dialogue> = rounds.iter().map(|(_, _, shown)| shown.clone()).collect();
    let mut found = vec![Vec::new(); played.len()];
    for ((place, ..), reading) in rounds.iter().zip(reader.read(model, &shown)?) {
        found[*place].push(reading);
    }
    Ok(found)
}

/// The first round, from 1, by which a malicious user has said both cues: what a monitor that makes no mistake would fire at.
pub(super) fn evident_round(played: &Played) -> Option<usize> {
    let rounds = prefixes([played], Condition::Whole);
    rounds.iter().find(|(.., shown)| world::is_evident_attack(shown)).map(|(_, round, _)| *round)
}
