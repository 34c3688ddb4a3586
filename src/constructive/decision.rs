//! Decisions of a policy: dialogues in; for each what was read, believed, solved and chosen out, as data and as a card.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::policy::{Policy, StrategyDose};
use crate::activations::{Request, extract, extract_after};
use crate::artifact;
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::game::{Belief, Equilibrium, solve};
use crate::model::{Model, PromptCache};
use crate::probe::Probe;
use crate::steer::{Intervention, Operation, Plan, Strength, Vector};

/// A part of the loop that is taken away, to see what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ablation {
    /// No game: the strategy whose direction was found on the likeliest type, or else the game's first action.
    Game,
    /// No probe: the game's priors are the belief about every user.
    Belief,
    /// No reasoning: the answer alone is steered, and the thinking part before it is left as it is.
    Reasoning,
    /// No face: the direction alone is added.
    Face,
}

impl Ablation {
    /// All of them.
    pub const ALL: [Ablation; 4] = [Ablation::Game, Ablation::Belief, Ablation::Reasoning, Ablation::Face];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Ablation::Game => "game",
            Ablation::Belief => "belief",
            Ablation::Reasoning => "reasoning",
            Ablation::Face => "face",
        }
    }
}

impl FromStr for Ablation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ablation> {
        let found = Ablation::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| {
            Error::input("ablation", format!("{text:?}"), Ablation::ALL.map(Ablation::name).join(" or "))
        })
    }
}

/// What was decided for one dialogue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// The dialogue's id.
    pub id: String,
    /// The belief probe's probabilities, by type.
    pub reading: BTreeMap<String, f64>,
    /// The risk probe's probabilities, by level; empty without one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub risk: BTreeMap<String, f64>,
    /// The belief after the reading, by type.
    pub belief: BTreeMap<String, f64>,
    /// The leader's mixture, by action.
    pub mixture: BTreeMap<String, f64>,
    /// The reaction that the game expects of each type.
    pub reactions: BTreeMap<String, String>,
    /// The leader's expected payoff.
    pub value: f64,
    /// The action drawn from the mixture.
    pub action: String,
    /// Where and how strongly the answer is steered; none where the action leaves it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<String>,
    /// Whether the face is held, because an attack is likely enough.
    pub holds_face: bool,
    /// The same for a person to read.
    pub card: String,
}

impl Decision {
    /// The decision as JSON, as transcripts hold it.
    ///
    /// # Errors
    /// A number that JSON can't hold.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self)
            .map_err(|error| Error::input("decision", error, "numbers that JSON can hold"))
    }

    /// Another action than the game's, without a face: what a policy has to beat.
    pub(super) fn force(&mut self, action: &str) {
        self.action = action.into();
        self.holds_face = false;
        self.steering = None;
        self.card = format!("{}\nforced   {action}", self.card);
    }
}

impl Policy {
    /// The same policy with random directions, each as long as its own, and without faces.
    pub(super) fn with_random_directions(&self, seed: u64) -> Policy {
        let random = |(action, vector): (&String, &Vector)| (action.clone(), vector.random_like(seed));
        Policy { vectors: self.vectors.iter().map(random).collect(), faces: BTreeMap::new(), ..self.clone() }
    }

    /// The same policy with every strength multiplied.
    pub fn scaled(&self, factor: f64) -> Policy {
        let mut policy = self.clone();
        for dose in &mut policy.settings.strategies {
            dose.strength *= factor;
        }
        policy
    }

    /// Decides for every dialogue, from the unsteered model's reading of its prompt. The action is drawn from the game's mixture by
    /// `seed` and the dialogue's id.
    ///
    /// The probe reads the whole dialogue up to now, so that one Bayes step from the prior holds all rounds' evidence: a further
    /// update by round would count the first rounds again.
    ///
    /// # Errors
    /// A policy of another model; two dialogues of one id; a prompt that the chat template refuses.
    pub fn decide(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        ablations: &[Ablation],
        seed: u64,
    ) -> Result<Vec<Decision>> {
        self.decide_with(model, dialogues, (ablations, None), seed, None)
    }

    /// [`Policy::decide`] with what a monitor of the dialogues says of an attack, in a round of dialogues whose earlier rounds are in `prompts`.
    /// The monitor read all that the belief probe reads, so that its probability stands, and the probe divides the rest among the other types.
    pub(super) fn decide_after(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        attack: Option<f64>,
        seed: u64,
        prompts: &mut PromptCache,
    ) -> Result<Vec<Decision>> {
        self.decide_with(model, dialogues, (&[], attack), seed, Some(prompts))
    }

    fn decide_with(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        (ablations, attack): (&[Ablation], Option<f64>),
        seed: u64,
        mut prompts: Option<&mut PromptCache>,
    ) -> Result<Vec<Decision>> {
        self.check_model(model)?;
        let mut ids = BTreeSet::new();
        if let Some(twice) = dialogues.iter().find(|dialogue| !ids.insert(dialogue.id.as_str())) {
            return Err(Error::input(format!("dialogue {}", twice.id), "an id twice", "ids of their own"));
        }
        let readings = self.read(&self.belief, model, dialogues, prompts.as_deref_mut())?;
        let risks = match &self.risk {
            Some(risk) => self.read(risk, model, dialogues, prompts)?,
            None => vec![Vec::new(); dialogues.len()],
        };
        let mut solved: BTreeMap<Vec<u64>, Equilibrium> = BTreeMap::new();
        let mut decisions = Vec::with_capacity(dialogues.len());
        for ((dialogue, reading), risk) in dialogues.iter().zip(readings).zip(risks) {
            decisions.push(self.decide_one(
                dialogue,
                (&reading, &risk),
                (ablations, attack),
                seed,
                &mut solved,
            )?);
        }
        Ok(decisions)
    }

    /// A probe's probabilities for each dialogue, in the order of its classes.
    fn read(
        &self,
        probe: &Probe,
        model: &Model,
        dialogues: &[Dialogue],
        prompts: Option<&mut PromptCache>,
    ) -> Result<Vec<Vec<f64>>> {
        if dialogues.is_empty() {
            return Ok(Vec::new());
        }
        let request = Request::new(vec![probe.source.site])
            .tokens(probe.source.tokens.clone())
            .thinking(self.settings.thinking);
        let states = match prompts {
            None => extract(model, dialogues, &request, &mut |_| true)?,
            Some(prompts) => extract_after(model, dialogues, &request, prompts)?,
        };
        if !states.example.iter().copied().eq(0..dialogues.len()) {
            let found = format!("{} tokens of {} prompts", states.example.len(), dialogues.len());
            return Err(Error::input("constructive", found, "a probe of one token a prompt"));
        }
        let probabilities = probe.probabilities(states.at(probe.source.site)?.view())?;
        Ok(probabilities.rows().into_iter().map(|row| row.to_vec()).collect())
    }

    fn decide_one(
        &self,
        dialogue: &Dialogue,
        (reading, risk): (&[f64], &[f64]),
        (ablations, monitored): (&[Ablation], Option<f64>),
        seed: u64,
        solved: &mut BTreeMap<Vec<u64>, Equilibrium>,
    ) -> Result<Decision> {
        let types = &self.game.types;
        let of_type = |name: &str| {
            let class = self.belief.classes.iter().position(|class| class == name);
            // `check` compared the names.
            class.map_or(0.0, |class| reading[class])
        };
        let ordered: Vec<f64> = types.iter().map(|kind| of_type(&kind.name)).collect();
        let prior = Belief::new(&self.game.priors())?;
        let belief = match ablations.contains(&Ablation::Belief) {
            true => prior,
            false => prior.update(&normalised(&ordered), &self.settings.shares, 0.0)?,
        };
        let attacker = types.iter().position(|kind| kind.name == self.settings.attack);
        let belief = match (attacker, monitored) {
            (Some(attacker), Some(probability)) => belief.with_probability(attacker, probability),
            _ => belief,
        };
        // Beliefs that differ by less than a thousandth share a solution.
        let rounded: Vec<f64> = belief.probabilities().iter().map(|p| (p * 1e3).round() / 1e3).collect();
        let rounded = normalised(&rounded);
        let key: Vec<u64> = rounded.iter().map(|p| p.to_bits()).collect();
        let equilibrium = match solved.get(&key) {
            Some(known) => known.clone(),
            None => {
                let found = solve(&self.game, &rounded)?;
                solved.insert(key, found.clone());
                found
            }
        };
        let action = match ablations.contains(&Ablation::Game) {
            true => self.action_by_hand(belief.probabilities()),
            false => draw(&equilibrium.mixture, &dialogue.id, seed),
        };
        let action = self.game.actions[action].clone();
        let attack = attacker.map_or(0.0, |attack| belief.probabilities()[attack]);
        let dose = self.dose(&action);
        let holds_face = !ablations.contains(&Ablation::Face)
            && attack >= self.settings.attack_from()
            && dose.is_some_and(|dose| dose.has_face);
        let named = |values: &[f64]| -> BTreeMap<String, f64> {
            types.iter().map(|kind| kind.name.clone()).zip(values.iter().copied()).collect()
        };
        let levels = self.risk.as_ref().map_or(&[][..], |risk| &risk.classes);
        let mut decision = Decision {
            id: dialogue.id.clone(),
            reading: named(&ordered),
            risk: levels.iter().cloned().zip(risk.iter().copied()).collect(),
            belief: named(belief.probabilities()),
            mixture: self.game.actions.iter().cloned().zip(equilibrium.mixture.iter().copied()).collect(),
            reactions: types
                .iter()
                .zip(&equilibrium.reactions)
                .map(|(kind, &reaction)| (kind.name.clone(), self.game.reactions[reaction].clone()))
                .collect(),
            value: equilibrium.value,
            steering: dose
                .map(|dose| format!("{:.2}n toward {} at {}", dose.strength, dose.spec.to, dose.site)),
            action,
            holds_face,
            card: String::new(),
        };
        decision.card = card(&decision, ablations);
        Ok(decision)
    }

    /// The dose of an action; none where it leaves answers alone.
    fn dose(&self, action: &str) -> Option<&StrategyDose> {
        self.settings.strategies.iter().find(|dose| dose.spec.action == action && dose.strength != 0.0)
    }

    /// Without the game: the action whose direction was found on the likeliest type, or else the first.
    fn action_by_hand(&self, belief: &[f64]) -> usize {
        let likeliest =
            (0..belief.len()).fold(0, |best, user| if belief[user] > belief[best] { user } else { best });
        let name = &self.game.types[likeliest].name;
        let dose = self.settings.strategies.iter().find(|dose| dose.spec.class == *name);
        let action =
            |dose: &StrategyDose| self.game.actions.iter().position(|action| *action == dose.spec.action);
        dose.and_then(action).unwrap_or(0)
    }

    /// The decisions as a steering plan: each action's direction, and its face where it is held, for the dialogues that got it.
    ///
    /// # Errors
    /// None for the decisions of [`Policy::decide`].
    pub fn plan(&self, decisions: &[Decision], ablations: &[Ablation]) -> Result<Plan> {
        let tokens = match ablations.contains(&Ablation::Reasoning) {
            true => "first(answer,1)".parse()?,
            false => self.settings.tokens.parse()?,
        };
        let mut plan = Plan::default();
        for dose in self.settings.strategies.iter().filter(|dose| dose.strength != 0.0) {
            let ids = |held: bool| -> Vec<String> {
                let own = decisions
                    .iter()
                    .filter(|one| one.action == dose.spec.action && (one.holds_face || !held));
                own.map(|one| one.id.clone()).collect()
            };
            // An empty list of ids would mean every dialogue.
            if let (Some(vector), false) = (self.vectors.get(&dose.spec.action), ids(false).is_empty()) {
                plan = plan.and(Intervention {
                    vector: Some(vector.into()),
                    sites: Some(dose.site.into()),
                    operation: Operation::ADD,
                    strength: Strength::Norms(dose.strength as f32),
                    tokens: Clone::clone(&tokens),
                    ids: ids(false),
                    ..Intervention::default()
                });
            }
            if let (Some(face), false) = (self.faces.get(&dose.spec.action), ids(true).is_empty()) {
                let bound = format!("{} > {FACE}", dose.spec.to);
                plan = plan.and(Intervention {
                    tokens: Clone::clone(&tokens),
                    ids: ids(true),
                    ..Intervention::project(face.clone(), &bound)?
                });
            }
        }
        Ok(plan)
    }
}

/// Probability of the outcome steered to that a held face keeps.
const FACE: f64 = 0.9;

/// An index drawn from a mixture, by a seed and an id.
fn draw(mixture: &[f64], id: &str, seed: u64) -> usize {
    let hash = artifact::sha256(id.as_bytes());
    // The first 16 hexadecimal digits fit a u64.
    let own = hash.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let mut remaining: f64 = StdRng::seed_from_u64(seed ^ own).random();
    let likeliest =
        (0..mixture.len()).fold(0, |best, one| if mixture[one] > mixture[best] { one } else { best });
    for (index, share) in mixture.iter().enumerate() {
        if remaining < *share {
            return index;
        }
        remaining -= share;
    }
    likeliest
}

/// The values scaled to sum 1; equal ones where all are 0.
fn normalised(values: &[f64]) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    match sum > 0.0 {
        true => values.iter().map(|value| value / sum).collect(),
        false => vec![1.0 / values.len().max(1) as f64; values.len()],
    }
}

/// The decision in four lines.
fn card(decision: &Decision, ablations: &[Ablation]) -> String {
    let shares = |values: &BTreeMap<String, f64>| -> String {
        values.iter().map(|(name, p)| format!("{name} {p:.2}")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![format!("read     {}", shares(&decision.reading))];
    if !decision.risk.is_empty() {
        lines.push(format!("risk     {}", shares(&decision.risk)));
    }
    lines.push(format!("belief   {}", shares(&decision.belief)));
    let reactions: Vec<String> =
        decision.reactions.iter().map(|(kind, reaction)| format!("{kind} {reaction}")).collect();
    lines.push(format!(
        "game     {} (worth {:.2}; expected: {})",
        shares(&decision.mixture),
        decision.value,
        reactions.join(", ")
    ));
    let steering = decision.steering.as_deref().unwrap_or("the answer is left as it is");
    let face = if decision.holds_face { "; the risk face is held" } else { "" };
    lines.push(format!("chosen   {}: {steering}{face}", decision.action));
    if !ablations.is_empty() {
        let names: Vec<&str> = ablations.iter().map(|one| one.name()).collect();
        lines.push(format!("without  {}", names.join(", ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_mixture_and_the_seed() {
        let mixture = [0.25, 0.0, 0.75];
        let counts = (0..4000).fold([0; 3], |mut counts, id| {
            counts[draw(&mixture, &id.to_string(), 3)] += 1;
            counts
        });
        assert!(counts[1] == 0 && (counts[0] as f64 / 4000.0 - 0.25).abs() < 0.03, "{counts:?}");
        assert_eq!(draw(&mixture, "a", 3), draw(&mixture, "a", 3));
    }

    #[test]
    fn ablations_are_named() {
        for one in Ablation::ALL {
            assert_eq!(one.name().parse::<Ablation>().unwrap(), one);
        }
        assert!("mind".parse::<Ablation>().is_err());
    }
}
