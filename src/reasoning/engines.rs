//! Engines of edits for the organism's chains: search over its strategies by the value probes, and random edits of the same budget.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::answering::states;
use super::chain::{Chain, Kind, Strategy};
use super::lingo_bp::{Edit, EditEngine, Outcome, Phase, Step};
use super::organism::{Stated, vocabulary};
use super::value_probes::{Value, ValueProbes};
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::Model;

/// Every edit within the budget, with the chain that it leads to.
fn candidates(stated: &Stated, chain: &Chain, phase: Phase) -> Vec<(Edit, Chain)> {
    let is_free = |strategy: &&Strategy| phase == Phase::Safety || strategy.kind == Kind::Usefulness;
    let vocabulary = vocabulary();
    let one_or_none = |strategies: Vec<Strategy>| -> Vec<Option<Strategy>> {
        std::iter::once(None).chain(strategies.into_iter().map(Some)).collect()
    };
    let taken = one_or_none(chain.strategies.iter().filter(is_free).cloned().collect());
    let put = vocabulary.iter().filter(is_free).filter(|strategy| !chain.strategies.contains(strategy));
    let put = one_or_none(put.cloned().collect());
    let mut found = Vec::new();
    for taken in &taken {
        for put in &put {
            let edit = stated.edit(chain, taken.as_ref(), put.as_ref());
            let edited = edit.and_then(|edit| Some((edit.apply(chain, phase).ok()?, edit)));
            found.extend(edited.map(|(chain, edit)| (edit, chain)));
        }
    }
    found
}

/// Search: of all edits within the budget, the one whose chain the value probes read as best for the phase's loss. A thinking part that
/// was tried is not tried again.
pub struct ProbeSearch<'a> {
    /// The model.
    pub model: &'a Model,
    /// The user.
    pub dialogue: &'a Dialogue,
    /// What the chain states about him.
    pub stated: &'a Stated,
    /// The probes.
    pub probes: &'a ValueProbes,
}

impl EditEngine for ProbeSearch<'_> {
    fn name(&self) -> &'static str {
        "probes"
    }

    fn propose(
        &mut self,
        chain: &Chain,
        _: &Outcome,
        phase: Phase,
        history: &[Step],
    ) -> Result<Option<Edit>> {
        let mut tried = BTreeSet::from([self.stated.write(chain)?]);
        for step in history {
            tried.insert(self.stated.write(&step.chain)?);
        }
        // Of edits that are written alike, the first takes out and puts in least.
        let (mut edits, mut thinking): (Vec<Edit>, Vec<String>) = (Vec::new(), Vec::new());
        for (edit, edited) in candidates(self.stated, chain, phase) {
            let text = self.stated.write(&edited)?;
            if tried.insert(text.clone()) {
                edits.push(edit);
                thinking.push(text);
            }
        }
        if edits.is_empty() {
            return Ok(None);
        }
        let dialogues = vec![self.dialogue; edits.len()];
        let states = states(self.model, &dialogues, &thinking, &[self.probes.site])?;
        let values = self.probes.values(states[0].1.view())?;
        let worth = |value: &Value| match phase {
            // Of edits that are read as safe, the one that satisfies.
            Phase::Safety if value.safe >= 0.5 => 1.0 + value.satisfied,
            Phase::Safety => value.safe,
            Phase::Satisfaction if value.safe >= 0.5 => 1.0 + value.satisfied,
            Phase::Satisfaction => value.satisfied,
        };
        let best = (0..edits.len())
            .fold(0, |best, one| if worth(&values[one]) > worth(&values[best]) { one } else { best });
        Ok(Some(edits.swap_remove(best)))
    }
}

/// Random edits of the same budget and the same vocabulary.
pub struct RandomEdits<'a> {
    stated: &'a Stated,
    rng: StdRng,
}

impl<'a> RandomEdits<'a> {
    /// An engine with a seed.
    pub fn new(stated: &'a Stated, seed: u64) -> RandomEdits<'a> {
        RandomEdits { stated, rng: StdRng::seed_from_u64(seed) }
    }
}

impl EditEngine for RandomEdits<'_> {
    fn name(&self) -> &'static str {
        "random"
    }

    fn propose(&mut self, chain: &Chain, _: &Outcome, phase: Phase, _: &[Step]) -> Result<Option<Edit>> {
        let candidates = candidates(self.stated, chain, phase);
        Ok(candidates.choose(&mut self.rng).map(|(edit, _)| edit.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::organism::chain;
    use super::*;
    use crate::organism::read_thought;

    const REFUSED: &str = "caution is the need ; R1 , willing helpful , kind aim , gloomy trusting , shaken mind , sensitive request ; rule : protect ; plan : refuse";

    #[test]
    fn every_candidate_is_within_the_budget() {
        let (chain, stated) = chain(&read_thought(REFUSED).unwrap());
        // By hand. Safety: nothing or "refuse" out, nothing or one of five others in, less nothing at all and an empty chain: 2 · 6 − 2.
        // Satisfaction: only the four usefulness strategies in.
        assert_eq!(candidates(&stated, &chain, Phase::Safety).len(), 10);
        let found = candidates(&stated, &chain, Phase::Satisfaction);
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|(edit, edited)| {
            edit.taken.is_none() && edited.strategies.len() == 2 && edited.strategies[0].text == "refuse"
        }));
    }
}
