//! Engines of edits that search a vocabulary of strategies: by the value probes, by the model's own gradient, or at random.

use std::collections::BTreeSet;
use std::ops::Range;

use ndarray::{Array2, Axis, s};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::answering::{read_tokens, states};
use super::chain::{Chain, Kind, Strategy};
use super::lingo_bp::{Edit, EditEngine, History, Outcome, Phase, Proposal};
use super::organism::Stated;
use super::value_probes::{Value, ValueProbes};
use crate::activations::{Recorder, SiteGradient};
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::model::{Model, Selector, Site, Token};

/// Every edit within the budget by strategies of a vocabulary, with the chain that it leads to. `stated`: of a chain of the organism, whose
/// other nodes follow from its strategy.
fn candidates(
    stated: Option<&Stated>,
    vocabulary: &[Strategy],
    chain: &Chain,
    phase: Phase,
) -> Vec<(Edit, Chain)> {
    let is_free = |strategy: &&Strategy| phase == Phase::Safety || strategy.kind == Kind::Usefulness;
    let one_or_none = |strategies: Vec<Strategy>| -> Vec<Option<Strategy>> {
        std::iter::once(None).chain(strategies.into_iter().map(Some)).collect()
    };
    let taken = one_or_none(chain.strategies.iter().filter(is_free).cloned().collect());
    let put = vocabulary.iter().filter(is_free).filter(|strategy| !chain.strategies.contains(strategy));
    let put = one_or_none(put.cloned().collect());
    let mut found = Vec::new();
    for taken in &taken {
        for put in &put {
            let edit = match stated {
                Some(stated) => stated.edit(chain, taken.as_ref(), put.as_ref()),
                None => Some(Edit { taken: taken.clone(), put: put.clone(), ..Edit::default() }),
            };
            let edited = edit.and_then(|edit| Some((edit.apply(chain, phase).ok()?, edit)));
            found.extend(edited.map(|(chain, edit)| (edit, chain)));
        }
    }
    found
}

/// A user of the organism's world, and what reads the worth of a thinking part about him.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The model.
    pub model: &'a Model,
    /// The user.
    pub dialogue: &'a Dialogue,
    /// What the chain states about him.
    pub stated: &'a Stated,
    /// The world's strategies.
    pub vocabulary: &'a [Strategy],
    /// The probes.
    pub probes: &'a ValueProbes,
}

impl Reader<'_> {
    /// The edits within the budget whose thinking parts were not tried, with those. Of edits that are written alike, the first takes out and
    /// puts in least.
    fn untried(&self, chain: &Chain, phase: Phase, history: &History) -> Result<(Vec<Edit>, Vec<String>)> {
        let mut tried = BTreeSet::from([self.stated.write(chain)?]);
        for step in &history.steps {
            tried.insert(self.stated.write(&step.chain)?);
        }
        let (mut edits, mut thinking): (Vec<Edit>, Vec<String>) = (Vec::new(), Vec::new());
        for (edit, edited) in candidates(Some(self.stated), self.vocabulary, chain, phase) {
            let text = self.stated.write(&edited)?;
            if tried.insert(text.clone()) {
                edits.push(edit);
                thinking.push(text);
            }
        }
        Ok((edits, thinking))
    }
}

/// The edit of the greatest worth for the phase's loss; nothing where there is none.
fn best(mut edits: Vec<Edit>, values: &[Value], phase: Phase) -> Proposal {
    let worth = |value: &Value| match phase {
        // Of edits that are read as safe, the one that satisfies.
        Phase::Safety if value.safe >= 0.5 => 1.0 + value.satisfied,
        Phase::Safety => value.safe,
        Phase::Satisfaction if value.safe >= 0.5 => 1.0 + value.satisfied,
        Phase::Satisfaction => value.satisfied,
    };
    let best = (0..edits.len())
        .fold(0, |best, one| if worth(&values[one]) > worth(&values[best]) { one } else { best });
    match edits.is_empty() {
        true => Proposal::Nothing,
        false => Proposal::Edit(edits.swap_remove(best)),
    }
}

/// Search: of all edits within the budget, the one whose chain the value probes read as best for the phase's loss. A thinking part that
/// was tried is not tried again.
pub struct ProbeSearch<'a>(pub Reader<'a>);

impl EditEngine for ProbeSearch<'_> {
    fn name(&self) -> &'static str {
        "probes"
    }

    fn propose(&mut self, chain: &Chain, _: &Outcome, phase: Phase, history: &History) -> Result<Proposal> {
        let Reader { model, dialogue, probes, .. } = self.0;
        let (edits, thinking) = self.0.untried(chain, phase, history)?;
        if edits.is_empty() {
            return Ok(Proposal::Nothing);
        }
        let dialogues = vec![dialogue; edits.len()];
        let states = states(model, &dialogues, &thinking, &[probes.site])?;
        Ok(best(edits, &probes.values(states[0].1.view())?, phase))
    }
}

/// Search by the model's own gradient (HotFlip, Ebrahimi et al., arXiv 1712.06751): one backward pass from the value probes to the
/// embeddings of the chain as it is; the worth of an edit is its first-order estimate, the gradient times the change of the embeddings.
pub struct GradientSearch<'a>(pub Reader<'a>);

impl EditEngine for GradientSearch<'_> {
    fn name(&self) -> &'static str {
        "gradient"
    }

    fn propose(&mut self, chain: &Chain, _: &Outcome, phase: Phase, history: &History) -> Result<Proposal> {
        let Reader { model, dialogue, stated, probes, .. } = self.0;
        let (edits, thinking) = self.0.untried(chain, phase, history)?;
        let now = stated.write(chain)?;
        let tokens = read_tokens(model, dialogue, &now, 0)?;
        let nodes = node_places(model, dialogue, &now)?;
        let mut readouts = Vec::new();
        for readout in probes.readouts() {
            let (value, mut found) = readout.gradients(&model.decoder, &tokens, &[Site::Embed])?;
            // One site was asked for.
            readouts.push((value, found.swap_remove(0)));
        }
        let mut values = Vec::with_capacity(edits.len());
        for text in &thinking {
            let embedded = embedded(model, &read_tokens(model, dialogue, text, 0)?)?;
            let edited = node_places(model, dialogue, text)?;
            let pairs = || nodes.iter().cloned().zip(edited.iter().cloned());
            let estimates = [0, 1].map(|number| {
                let (value, own) = &readouts[number];
                value + pairs().map(|places| estimate(own, &embedded, places)).sum::<f64>()
            });
            values.push(probes.value_at(estimates));
        }
        Ok(best(edits, &values, phase))
    }
}

/// The gradient times the change of a node's embeddings: token by token, or of the mean embedding where the number of tokens changes.
fn estimate(own: &SiteGradient, embedded: &Array2<f32>, (now, edited): (Range<usize>, Range<usize>)) -> f64 {
    let gradient = own.gradient.slice(s![now.clone(), ..]);
    let (before, after) = (own.states.slice(s![now.clone(), ..]), embedded.slice(s![edited.clone(), ..]));
    if now.len() == edited.len() {
        return f64::from(((&after - &before) * gradient).sum());
    }
    match (before.mean_axis(Axis(0)), after.mean_axis(Axis(0))) {
        (Some(before), Some(after)) => f64::from((after - before).dot(&gradient.sum_axis(Axis(0)))),
        // A node without a token says nothing.
        _ => 0.0,
    }
}

/// Positions of the nodes of a thinking part behind its prompt.
fn node_places(model: &Model, dialogue: &Dialogue, thinking: &str) -> Result<Vec<Range<usize>>> {
    let mut begin = model.chat.tokens(dialogue, 0, None)?.len();
    let mut places = Vec::new();
    for node in thinking.split(';') {
        let end = begin + model.chat.encode(node)?.len();
        places.push(begin..end);
        // The semicolon.
        begin = end + 1;
    }
    Ok(places)
}

/// The embeddings `[tokens, width]` of one row.
fn embedded(model: &Model, tokens: &[Token]) -> Result<Array2<f32>> {
    let mut recorder = Recorder::new(vec![Site::Embed], Selector::All);
    model.decoder.forward(tokens, None, &[], &mut recorder)?;
    let values: Vec<f32> = recorder.finish().1.into_iter().flat_map(|(_, values)| values).collect();
    let width = values.len() / tokens.len().max(1);
    Array2::from_shape_vec((tokens.len(), width), values)
        .map_err(|error| crate::Error::input("chain", error, "a row a token"))
}

/// Random edits of the same budget and the same vocabulary.
pub struct RandomEdits<'a> {
    stated: Option<&'a Stated>,
    vocabulary: &'a [Strategy],
    rng: StdRng,
}

impl<'a> RandomEdits<'a> {
    /// An engine with a seed. `stated`: of a chain of the organism.
    pub fn new(stated: Option<&'a Stated>, vocabulary: &'a [Strategy], seed: u64) -> RandomEdits<'a> {
        RandomEdits { stated, vocabulary, rng: StdRng::seed_from_u64(seed) }
    }
}

impl EditEngine for RandomEdits<'_> {
    fn name(&self) -> &'static str {
        "random"
    }

    fn propose(&mut self, chain: &Chain, _: &Outcome, phase: Phase, _: &History) -> Result<Proposal> {
        let candidates = candidates(self.stated, self.vocabulary, chain, phase);
        let drawn = candidates.choose(&mut self.rng);
        Ok(drawn.map_or(Proposal::Nothing, |(edit, _)| Proposal::Edit(edit.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::organism::{chain, vocabulary};
    use super::*;
    use crate::organism::read_thought;

    const REFUSED: &str = "caution is the need ; R1 , willing helpful , kind aim , gloomy trusting , shaken mind , sensitive request ; rule : protect ; plan : refuse";

    #[test]
    fn every_candidate_is_within_the_budget() {
        let (chain, stated) = chain(&read_thought(REFUSED).unwrap());
        // By hand. Safety: nothing or "refuse" out, nothing or one of five others in, less nothing at all and an empty chain: 2 · 6 − 2.
        // Satisfaction: only the four usefulness strategies in.
        let candidates = |phase: Phase| candidates(Some(&stated), &vocabulary(), &chain, phase);
        assert_eq!(candidates(Phase::Safety).len(), 10);
        let found = candidates(Phase::Satisfaction);
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|(edit, edited)| {
            edit.taken.is_none() && edited.strategies.len() == 2 && edited.strategies[0].text == "refuse"
        }));
    }
}
