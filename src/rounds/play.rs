//! Play of agents against a model: rounds one after the other, each with the model's real answer to the one before. Aims in, courses of
//! dialogues with their readings and verdicts out.

use serde::{Deserialize, Serialize};

use super::agent::{Agent, Course, Move};
use super::aim::Aim;
use super::attacker::Attacker;
use super::defence::{Choice, Defence, Open};
use super::manner::Bandit;
use super::monitors::Reading;
use super::pace::Similarities;
use super::reader::Reader;
use super::task::{Task, Verdict, visible};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::generate::{Finish, GenerateOptions, Sampling, Transcript, generate_after};
use crate::model::{Chain, Hook, Model, PromptCache};

/// How dialogues are played.
#[derive(Clone, Debug, PartialEq)]
pub struct PlayOptions {
    /// Rounds, at most.
    pub rounds: usize,
    /// Dialogues that are played side by side: the bandit learns from one such wave for the next.
    pub wave: usize,
    /// Tokens of an answer, at most.
    pub max_tokens: usize,
    /// How answers are sampled.
    pub sampling: Sampling,
    /// Mode of the chat template.
    pub thinking: Option<bool>,
    /// Seed of agents and answers.
    pub seed: u64,
}

/// A round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What the agent said.
    pub message: String,
    /// Whether it held the request.
    pub asks: bool,
    /// The manner that was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manner: Option<String>,
    /// What was read before the answer, where anything reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// The whole answer, its thinking part too.
    pub answer: String,
    /// What it was.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether the defence refused in the model's place.
    pub blocked: bool,
    /// Whether the defence steered the answer.
    pub steered: bool,
}

/// Why a dialogue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The aim was reached.
    Success,
    /// The agent had nothing more to say, or no round left.
    GaveUp,
    /// The dialogue was as long as the model's context.
    Context,
    /// The attacker behind an endpoint gave no usable message.
    Attacker,
}

/// A dialogue that was played.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// The aim's id.
    pub id: String,
    /// The dialogue as it stood after its last answer.
    pub dialogue: Dialogue,
    /// Its rounds.
    pub turns: Vec<Turn>,
    /// Why it ended.
    pub ended: Ended,
    /// What was wrong with the attacker, where that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Played {
    /// The round, from 1, in which the aim was reached.
    pub fn success(&self) -> Option<usize> {
        self.turns.iter().position(|turn| turn.verdict.success).map(|place| place + 1)
    }

    /// What was read round by round.
    pub fn readings(&self) -> Vec<Reading> {
        self.turns.iter().filter_map(|turn| turn.reading).collect()
    }
}

/// A dialogue while it is played.
struct Table<'a> {
    aim: &'a Aim,
    course: Course<'a>,
    dialogue: Dialogue,
    turns: Vec<Turn>,
    readings: Vec<Reading>,
    ended: Option<Ended>,
    failure: Option<String>,
}

impl<'a> Table<'a> {
    fn new(aim: &'a Aim, course: Course<'a>, system: Option<&str>) -> Table<'a> {
        let (turns, readings) = (Vec::new(), Vec::new());
        Table { aim, course, dialogue: opening(aim, system), turns, readings, ended: None, failure: None }
    }

    fn into_played(self) -> Played {
        Played {
            id: self.aim.dialogue.id.clone(),
            dialogue: self.dialogue,
            turns: self.turns,
            ended: self.ended.unwrap_or(Ended::GaveUp),
            failure: self.failure,
        }
    }
}

/// Plays every aim. `on_progress` gets the number of dialogues that are over, and stops the play by returning false.
///
/// # Errors
/// Dialogues that the template or a probe refuses; an agent that goes by readings where nothing reads; [`Error::Stopped`].
#[allow(clippy::too_many_arguments, reason = "the parts of a play, each of which is swapped alone")]
pub fn play(
    model: &Model,
    aims: &[Aim],
    similarities: &Similarities,
    agent: &Agent,
    task: &dyn Task,
    reader: Option<&Reader>,
    defence: &mut dyn Defence,
    options: &PlayOptions,
    on_progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Played>> {
    let mut bandit = Bandit::default();
    let mut played = Vec::with_capacity(aims.len());
    for (begin, wave) in (0..).step_by(options.wave.max(1)).zip(aims.chunks(options.wave.max(1))) {
        let mut tables: Vec<Table> = wave
            .iter()
            .enumerate()
            .map(|(place, aim)| {
                let known = similarities.get(begin + place).map_or(&[][..], Vec::as_slice);
                let seed = options.seed ^ ((begin + place) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let course = Course::new(agent, aim, known, options.rounds, seed);
                Table::new(aim, course, defence.system())
            })
            .collect();
        // Rows of two waves don't share their random numbers.
        let own = PlayOptions {
            seed: options.seed.wrapping_add((begin as u64 + 1).wrapping_mul(0xA24B_AED4_963E_E407)),
            ..options.clone()
        };
        let (mut round, mut prompts) = (0, PromptCache::default());
        while one_round(
            model,
            &mut tables,
            &mut bandit,
            None,
            task,
            reader,
            defence,
            &own,
            round,
            &mut prompts,
        )? {
            round += 1;
            let over = tables.iter().filter(|table| table.ended.is_some()).count();
            if !on_progress(begin + over) {
                return Err(Error::Stopped);
            }
        }
        played.extend(tables.into_iter().map(Table::into_played));
    }
    Ok(played)
}

/// Plays one aim with messages that come from elsewhere. Where the attacker has no usable message the dialogue ends ([`Ended::Attacker`]).
///
/// # Errors
/// As [`play`].
#[allow(clippy::too_many_arguments, reason = "as play")]
pub fn play_from(
    model: &Model,
    aim: &Aim,
    attacker: &mut dyn Attacker,
    task: &dyn Task,
    reader: Option<&Reader>,
    defence: &mut dyn Defence,
    options: &PlayOptions,
    on_round: &mut dyn FnMut() -> bool,
) -> Result<Played> {
    let (agent, mut bandit) = (Agent::of_messages("attacker"), Bandit::default());
    let course = Course::new(&agent, aim, &[], options.rounds, options.seed);
    let mut table = [Table::new(aim, course, defence.system())];
    let mut prompts = PromptCache::default();
    for round in 1..=options.rounds {
        if !on_round() {
            return Err(Error::Stopped);
        }
        let next = match attacker.message(&table[0].dialogue, round, options.rounds) {
            Ok(text) => Move::said(text),
            Err(error @ Error::Input { .. }) => {
                (table[0].ended, table[0].failure) = (Some(Ended::Attacker), Some(error.to_string()));
                break;
            }
            Err(error) => return Err(error),
        };
        one_round(
            model,
            &mut table,
            &mut bandit,
            Some(&next),
            task,
            reader,
            defence,
            options,
            round as u64 - 1,
            &mut prompts,
        )?;
        if table[0].ended.is_some() {
            break;
        }
    }
    let [table] = table;
    Ok(table.into_played())
}

/// The dialogue before its first round.
fn opening(aim: &Aim, system: Option<&str>) -> Dialogue {
    let mut dialogue = aim.dialogue.clone();
    if let Some(text) = system {
        match dialogue.messages.first_mut().filter(|first| first.role == Role::System) {
            Some(first) => first.content = format!("{text}\n\n{}", first.content),
            None => dialogue.messages.insert(0, Message::new(Role::System, text)),
        }
    }
    dialogue
}

/// One round of every dialogue that is not over, with a message that is given or one that its agent chooses. False where none is left.
#[allow(clippy::too_many_arguments, reason = "as play")]
fn one_round(
    model: &Model,
    tables: &mut [Table],
    bandit: &mut Bandit,
    given: Option<&Move>,
    task: &dyn Task,
    reader: Option<&Reader>,
    defence: &mut dyn Defence,
    options: &PlayOptions,
    round: u64,
    prompts: &mut PromptCache,
) -> Result<bool> {
    let mut moves: Vec<(usize, Move)> = Vec::new();
    for (place, table) in tables.iter_mut().enumerate().filter(|(_, table)| table.ended.is_none()) {
        if table.course.begins_anew() && !table.turns.is_empty() {
            table.dialogue = opening(table.aim, defence.system());
            table.readings.clear();
        }
        let candidates = match given {
            Some(own) => vec![own.clone()],
            None => table.course.candidates(bandit),
        };
        match chosen(model, &table.dialogue, candidates, reader, prompts)? {
            None => table.ended = Some(Ended::GaveUp),
            Some(own) => {
                table.dialogue.messages.push(Message::new(Role::User, own.text.as_str()));
                if model.excess(&table.dialogue, options.thinking)?.is_some() {
                    table.dialogue.messages.pop();
                    table.ended = Some(Ended::Context);
                    continue;
                }
                table.course.say(&own);
                moves.push((place, own));
            }
        }
    }
    if moves.is_empty() {
        return Ok(false);
    }
    let dialogues: Vec<Dialogue> = moves.iter().map(|(place, _)| tables[*place].dialogue.clone()).collect();
    if let Some(reader) = reader {
        for ((place, _), reading) in moves.iter().zip(reader.read_after(model, &dialogues, prompts)?) {
            tables[*place].readings.push(reading);
        }
    }
    let open: Vec<Open> = moves
        .iter()
        .zip(&dialogues)
        .map(|((place, _), dialogue)| Open { dialogue, readings: &tables[*place].readings })
        .collect();
    let (choices, plan) = defence.choose(model, &open, prompts)?;
    let answered: Vec<usize> = (0..moves.len()).filter(|&row| choices[row] != Choice::Refuse).collect();
    let asked: Vec<Dialogue> = answered.iter().map(|&row| dialogues[row].clone()).collect();
    let generation = GenerateOptions::default()
        .sampling(options.sampling)
        .max_tokens(options.max_tokens)
        .seed(options.seed.wrapping_add(round.wrapping_mul(0xD1B5_4A32_D192_ED03)))
        .thinking(options.thinking);
    let mut hooks = plan.hooks(model, &asked, options.thinking)?;
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    let transcripts = generate_after(model, &asked, &generation, &mut chain, prompts)?;
    let mut given: Vec<Option<Transcript>> = vec![None; moves.len()];
    answered.into_iter().zip(transcripts).for_each(|(row, transcript)| given[row] = Some(transcript));
    for (row, ((place, own), transcript)) in moves.iter().zip(given).enumerate() {
        let table = &mut tables[*place];
        let blocked = transcript.is_none();
        let refused = || Transcript::new(&dialogues[row], task.refusal().into(), Vec::new(), Finish::Stop);
        let transcript = transcript.unwrap_or_else(refused);
        let verdict = match blocked {
            true => Verdict::blocked(),
            false => task.judge(&dialogues[row], &transcript)?,
        };
        table.dialogue.messages.push(Message::new(Role::Assistant, visible(&transcript.text)));
        table.course.hear(own, verdict.success, bandit);
        if verdict.success {
            table.ended = Some(Ended::Success);
        }
        table.turns.push(Turn {
            message: own.text.clone(),
            asks: own.asks,
            manner: own.manner.map(|manner| table.aim.manners[manner].name.clone()),
            reading: reader.and_then(|_| table.readings.last().copied()),
            answer: transcript.text,
            verdict,
            blocked,
            steered: choices[row] == Choice::Steer,
        });
    }
    Ok(true)
}

/// The candidate that is read as the least risky; the only one without reading. None of none.
fn chosen(
    model: &Model,
    dialogue: &Dialogue,
    mut candidates: Vec<Move>,
    reader: Option<&Reader>,
    prompts: &mut PromptCache,
) -> Result<Option<Move>> {
    if candidates.len() < 2 {
        return Ok(candidates.pop());
    }
    let Some(reader) = reader else {
        return Err(Error::input(
            "agent",
            "a pace by readings, and nothing that reads",
            "a probe of attacks",
        ));
    };
    let longer = |own: &Move| {
        let mut longer = dialogue.clone();
        longer.messages.push(Message::new(Role::User, own.text.as_str()));
        longer
    };
    let dialogues: Vec<Dialogue> = candidates.iter().map(longer).collect();
    let readings = reader.read_after(model, &dialogues, prompts)?;
    let best = (0..candidates.len()).fold(0, |best, one| match readings[one].risk < readings[best].risk {
        true => one,
        false => best,
    });
    Ok(Some(candidates.swap_remove(best)))
}
