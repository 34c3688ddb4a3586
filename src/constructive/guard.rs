//! Guard: the policy as a defence over the rounds of a dialogue. A monitor says from which round on it acts; then it decides for every
//! answer anew, by what it reads of the whole dialogue, and steers.

use super::policy::Policy;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::Model;
use crate::rounds::{Alarm, Choice, Defence, Open};
use crate::steer::Plan;

/// The guard.
pub struct Guard<'a> {
    policy: &'a Policy,
    alarm: Option<Alarm>,
    seed: u64,
    round: u64,
}

impl<'a> Guard<'a> {
    /// A guard that acts from the round on in which the alarm fires; without one from the first.
    pub fn new(policy: &'a Policy, alarm: Option<Alarm>, seed: u64) -> Guard<'a> {
        Guard { policy, alarm, seed, round: 0 }
    }
}

impl Defence for Guard<'_> {
    fn choose(&mut self, model: &Model, open: &[Open]) -> Result<(Vec<Choice>, Plan)> {
        self.round += 1;
        let acts = |open: &Open| match &self.alarm {
            Some(alarm) => Ok(alarm.fires(open.readings)?.is_some()),
            None => Ok(true),
        };
        let acts = open.iter().map(acts).collect::<Result<Vec<bool>>>()?;
        let own: Vec<Dialogue> = open
            .iter()
            .zip(&acts)
            .filter(|(_, acts)| **acts)
            .map(|(open, _)| open.dialogue.clone())
            .collect();
        let decisions = self.policy.decide(model, &own, &[], self.seed.wrapping_add(self.round))?;
        let plan = self.policy.plan(&decisions, &[])?;
        let mut steered = decisions.iter().map(|decision| decision.steering.is_some());
        let choice = |acts: &bool| match *acts && steered.next().unwrap_or(false) {
            true => Choice::Steer,
            false => Choice::Answer,
        };
        Ok((acts.iter().map(choice).collect(), plan))
    }
}
