//! Defences: open dialogues in; whether each is answered, steered or refused in this round out.

use super::condition::Condition;
use super::monitors::{Alarm, Reading};
use super::reader::Reader;
use crate::boundary::Threshold;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::{Model, PromptCache};
use crate::steer::Plan;

/// A dialogue that waits for an answer.
pub struct Open<'a> {
    /// The dialogue, which ends with the user's message.
    pub dialogue: &'a Dialogue,
    /// What was read in each round so far, this one last; empty where nothing reads.
    pub readings: &'a [Reading],
}

/// What a defence does in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The model answers.
    Answer,
    /// The model answers under the defence's plan.
    Steer,
    /// The defence answers, with a refusal.
    Refuse,
}

/// A defence.
pub trait Defence {
    /// A system message that every dialogue begins with.
    fn system(&self) -> Option<&str> {
        None
    }

    /// A choice a dialogue, and the plan that steered answers are generated under. `prompts`: what was read of the dialogues before, without
    /// steering and with it.
    ///
    /// # Errors
    /// Dialogues or readings that the defence can't read.
    fn choose(
        &mut self,
        model: &Model,
        open: &[Open],
        prompts: &mut PromptCache,
    ) -> Result<(Vec<Choice>, Plan)>;
}

/// No defence.
pub struct Undefended;

impl Defence for Undefended {
    fn choose(&mut self, _: &Model, open: &[Open], _: &mut PromptCache) -> Result<(Vec<Choice>, Plan)> {
        Ok((vec![Choice::Answer; open.len()], Plan::default()))
    }
}

/// A system message, and no other defence.
pub struct SystemMessage(pub String);

impl Defence for SystemMessage {
    fn system(&self) -> Option<&str> {
        Some(&self.0)
    }

    fn choose(&mut self, _: &Model, open: &[Open], _: &mut PromptCache) -> Result<(Vec<Choice>, Plan)> {
        Ok((vec![Choice::Answer; open.len()], Plan::default()))
    }
}

/// A monitor that refuses from the round on in which it fires.
pub struct Refusing(pub Alarm);

impl Defence for Refusing {
    fn choose(&mut self, _: &Model, open: &[Open], _: &mut PromptCache) -> Result<(Vec<Choice>, Plan)> {
        let choice = |open: &Open| {
            Ok(match self.0.fires(open.readings)? {
                Some(_) => Choice::Refuse,
                None => Choice::Answer,
            })
        };
        Ok((open.iter().map(choice).collect::<Result<_>>()?, Plan::default()))
    }
}

/// A probe that reads the last message alone, and refuses it where its log-odds reach a threshold.
pub struct MessageProbe {
    /// The probes.
    pub reader: Reader,
    /// The threshold, over the largest reading of a dialogue.
    pub threshold: Threshold,
}

impl Defence for MessageProbe {
    fn choose(&mut self, model: &Model, open: &[Open], _: &mut PromptCache) -> Result<(Vec<Choice>, Plan)> {
        let alone: Vec<Dialogue> = open.iter().filter_map(|open| last_alone(open.dialogue)).collect();
        let readings = self.reader.read(model, &alone)?;
        let choice = |reading: &Reading| match reading.log_odds() >= self.threshold.value {
            true => Choice::Refuse,
            false => Choice::Answer,
        };
        Ok((readings.iter().map(choice).collect(), Plan::default()))
    }
}

/// The last message of the user alone; open dialogues have one.
pub(super) fn last_alone(dialogue: &Dialogue) -> Option<Dialogue> {
    let rounds = super::condition::user_messages(dialogue).len();
    Condition::Alone.of(dialogue, rounds)
}
