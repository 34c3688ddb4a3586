//! What watches over rounds: plays of users on topics that no attack is about in; probes of attack and refusal, and monitors with
//! their thresholds out.

use std::path::Path;

use ndarray::{Array2, Axis};

use super::rounds_plays::kept;
use super::rounds_users::play_calm;
use crate::activations::{Request, extract};
use crate::boundary::{ErrorKind, RiskBound, Threshold, threshold};
use crate::config::RoundsFile;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};
use crate::organism::{Split, UserType, fit_topic};
use crate::probe::{Examples, Fit, Logistic, Probe, Provenance, Targets};
use crate::progress::Progress;
use crate::rounds::{Alarm, Condition, Monitor, Played, Reader, Reading, Undefended, user_messages, world};

/// Inverse penalty of the probes.
const STRENGTH: f64 = 0.01;

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
    // Probes on one half of the dialogues, monitors on the other, each half with every type and number of rounds.
    let half = |own: usize| -> Vec<&Played> {
        played.iter().enumerate().filter(|(number, _)| number / 20 % 2 == own).map(|(_, one)| one).collect()
    };
    let reader = reader(model, site, &half(0))?;
    let others = half(1);
    let readings = whole_readings(model, &reader, &others)?;
    let of_type = |is_attack: bool| -> Vec<Vec<Reading>> {
        let own = others.iter().zip(&readings).filter(|(one, _)| is_malicious(one) == is_attack);
        own.map(|(_, readings)| readings.clone()).collect()
    };
    let (calm, attack) = (of_type(false), of_type(true));
    let monitors = Monitor::fit_all(&calm, &attack)?;
    let users = [UserType::Benign, UserType::Sensitive];
    let aims = world::aims(file.calibrate, &users, &fit_topic, Split::HeldOutWording, file.seed ^ 5)?;
    let calibration = kept(out, "calibration", &mut || {
        play_calm(file, model, &aims, None, &mut Undefended, 19, on_progress)
    })?;
    let own: Vec<&Played> = calibration.iter().collect();
    let calm = whole_readings(model, &reader, &own)?;
    let alarms = monitors
        .into_iter()
        .map(|monitor| Alarm::calibrate(monitor, &calm, file.false_alarms))
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
    let scores: Vec<f64> = alone_readings(model, &reader, &own)?.iter().map(largest).collect();
    let bound = RiskBound::expected(ErrorKind::FalseAlarm, file.false_alarms);
    let alone = threshold(&scores, &vec![false; scores.len()], bound)?;
    Ok(Watch { reader, alarms, best: best.0, caught: best.2, alone })
}

/// The type of user behind a play.
fn is_malicious(played: &Played) -> bool {
    played.dialogue.label("user-type").as_deref() == Some(UserType::Malicious.name())
}

/// The dialogues as they stood when each round was read, with the place of their play and the round.
fn prefixes(played: &[&Played], condition: Condition) -> Vec<(usize, usize, Dialogue)> {
    let mut found = Vec::new();
    for (place, dialogue) in played.iter().map(|one| &one.dialogue).enumerate() {
        for round in 1..=user_messages(dialogue).len() {
            found.extend(condition.of(dialogue, round).map(|shown| (place, round, shown)));
        }
    }
    found
}

/// Probes of an attack whose cues are said, and of refusals to come.
fn reader(model: &Model, site: Site, played: &[&Played]) -> Result<Reader> {
    let rounds = prefixes(played, Condition::Whole);
    let shown: Vec<Dialogue> = rounds.iter().map(|(_, _, shown)| shown.clone()).collect();
    let request = Request::new([site]).tokens(Selector::AssistantStart);
    let states = extract(model, &shown, &request, &mut |_| true)?;
    let rows = states.at(site)?;
    let groups: Vec<String> = rounds.iter().map(|(place, ..)| place.to_string()).collect();
    let attack: Vec<bool> = shown.iter().map(world::is_evident_attack).collect();
    let refusal: Vec<bool> = rounds
        .iter()
        .map(|(place, round, _)| played[*place].turns.get(round - 1).is_some_and(|turn| turn.verdict.refused))
        .collect();
    let risk = probe(model, site, "attack", rows, &attack, &groups)?;
    // A model that refuses nothing has no refusals to read.
    let refusal =
        probe(model, site, "refusal", rows, &refusal, &groups).ok().map(|probe| (probe, "refusal".into()));
    Ok(Reader { risk: (risk, "attack".into()), refusal, thinking: None })
}

fn probe(
    model: &Model,
    site: Site,
    name: &str,
    rows: &Array2<f32>,
    labels: &[bool],
    groups: &[String],
) -> Result<Probe> {
    if labels.len() != rows.len_of(Axis(0)) {
        let found = format!("{} rounds and {} states", labels.len(), rows.len_of(Axis(0)));
        return Err(Error::input("rounds", found, "one state a round"));
    }
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
    let targets = Targets::new(&labels, groups, &["other", name])?;
    Logistic::default().fit_all(Examples::new(source, rows.clone(), targets)?, STRENGTH)
}

/// Readings of the whole context, round by round.
fn whole_readings(model: &Model, reader: &Reader, played: &[&Played]) -> Result<Vec<Vec<Reading>>> {
    readings(model, reader, played, Condition::Whole)
}

/// Readings of each message alone.
pub(super) fn alone_readings(
    model: &Model,
    reader: &Reader,
    played: &[&Played],
) -> Result<Vec<Vec<Reading>>> {
    readings(model, reader, played, Condition::Alone)
}

fn readings(
    model: &Model,
    reader: &Reader,
    played: &[&Played],
    condition: Condition,
) -> Result<Vec<Vec<Reading>>> {
    let rounds = prefixes(played, condition);
    let shown: Vec<Dialogue> = rounds.iter().map(|(_, _, shown)| shown.clone()).collect();
    let mut found = vec![Vec::new(); played.len()];
    for ((place, ..), reading) in rounds.iter().zip(reader.read(model, &shown)?) {
        found[*place].push(reading);
    }
    Ok(found)
}
