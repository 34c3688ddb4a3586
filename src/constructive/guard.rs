//! Guard: the policy as a defence over the rounds of a dialogue. A monitor says from which round on it acts; then it decides for every
//! answer anew, by what it reads of the whole dialogue, and steers.

use super::policy::Policy;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::{Model, PromptCache};
use crate::rounds::{Alarm, Choice, Defence, Open};
use crate::steer::Plan;

/// The guard.
pub struct Guard<'a> {
    policy: &'a Policy,
    alarm: Option<(Alarm, f64)>,
    seed: u64,
    round: u64,
}

impl<'a> Guard<'a> {
    /// A guard that acts from the round on in which the alarm fires; without one from the first. Beside the alarm: the share of attacks
    /// in which it fires. By Bayes' rule from the game's priors, that share over the share of false alarms says how likely an attack
    /// is once it has fired.
    pub fn new(policy: &'a Policy, alarm: Option<(Alarm, f64)>, seed: u64) -> Guard<'a> {
        Guard { policy, alarm, seed, round: 0 }
    }

    /// Probability of an attack after the alarm.
    fn attack(&self) -> Option<f64> {
        let (alarm, caught) = self.alarm.as_ref()?;
        let attack = |kind: &&crate::game::UserType| kind.name == self.policy.settings.attack;
        let prior = self.policy.game.types.iter().find(attack)?.prior;
        let (attacks, calm) = (prior * caught, (1.0 - prior) * alarm.threshold.risk_bound.alpha);
        (attacks + calm > 0.0).then(|| attacks / (attacks + calm))
    }
}

impl Defence for Guard<'_> {
    fn choose(
        &mut self,
        model: &Model,
        open: &[Open],
        prompts: &mut PromptCache,
    ) -> Result<(Vec<Choice>, Plan)> {
        self.round += 1;
        let acts = |open: &Open| match &self.alarm {
            Some((alarm, _)) => Ok(alarm.fires(open.readings)?.is_some()),
            None => Ok(true),
        };
        let acts = open.iter().map(acts).collect::<Result<Vec<bool>>>()?;
        let own: Vec<Dialogue> = open
            .iter()
            .zip(&acts)
            .filter(|(_, acts)| **acts)
            .map(|(open, _)| open.dialogue.clone())
            .collect();
        let seed = self.seed.wrapping_add(self.round);
        let decisions = self.policy.decide_after(model, &own, self.attack(), seed, prompts)?;
        let plan = self.policy.plan(&decisions, &[])?;
        let mut steered = decisions.iter().map(|decision| decision.steering.is_some());
        let choice = |acts: &bool| match *acts && steered.next().unwrap_or(false) {
            true => Choice::Steer,
            false => Choice::Answer,
        };
        Ok((acts.iter().map(choice).collect(), plan))
    }
}
