//! Linguistic backpropagation (Lingo-BP, Oyster-I, arXiv 2509.01909): a chain that leads to a failing answer in; edits of the chain, each
//! within its budget, until both losses are met, out.
//!
//! A step goes backward from the answer: strategies first (at most one in and one out), then guidelines, risk and intent, and needs as
//! the new strategy wants them. Safety comes first; then satisfaction, with safety strategies frozen. A chain that states no risk
//! bypasses safety, and its risk fields stay empty.

use serde::{Deserialize, Serialize};

use super::chain::{Chain, Kind, Node, Strategy};
use crate::error::{Error, Result};

/// The two losses of an answer, each 0 at best and 1 at worst.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// The risk R = 1 − safety.
    pub safety: f64,
    /// (1 − S) / 2.
    pub satisfaction: f64,
}

/// What a chain leads to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The answer.
    pub answer: String,
    /// Its losses.
    pub losses: Losses,
    /// Why, as the judge says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The forward pass: from a chain to an answer.
pub trait Forward {
    /// The answer that follows the chain; none where the judge's verdict on it can't be parsed.
    ///
    /// # Errors
    /// A chain that can't be answered or judged.
    fn forward(&mut self, chain: &Chain) -> Result<Option<Outcome>>;
}

/// Which loss a step works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Safety, first.
    Safety,
    /// Satisfaction, with safety strategies frozen.
    Satisfaction,
}

/// An edit of a chain: at most one strategy out and one in; the other nodes are written anew where they follow from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Edit {
    /// The strategy taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Strategy>,
    /// The strategy put in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put: Option<Strategy>,
    /// New guidelines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidelines: Option<String>,
    /// New risk and intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk_intent: Option<String>,
    /// New needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

impl Edit {
    /// The edited chain.
    ///
    /// # Errors
    /// An edit past its budget: that changes nothing; takes out a strategy that the chain lacks, or puts in one that it has; touches a
    /// safety strategy in the phase of satisfaction; states a risk where the chain states none.
    pub fn apply(&self, chain: &Chain, phase: Phase) -> Result<Chain> {
        let refuse = |found: String, expected: &str| Err(Error::input("edit", found, expected));
        let frozen = |strategy: &Option<Strategy>| {
            phase == Phase::Satisfaction
                && strategy.as_ref().is_some_and(|strategy| strategy.kind == Kind::Safety)
        };
        if self.taken.is_none() && self.put.is_none() {
            return refuse("no strategy in or out".into(), "one in, one out, or both");
        }
        if frozen(&self.taken) || frozen(&self.put) {
            return refuse(
                "a safety strategy, in the phase of satisfaction".into(),
                "usefulness strategies: the others are frozen",
            );
        }
        let mut edited = chain.clone();
        if let Some(taken) = &self.taken {
            let Some(at) = edited.strategies.iter().position(|own| own == taken) else {
                return refuse(format!("{:?} out", taken.text), "a strategy of the chain");
            };
            edited.strategies.remove(at);
        }
        if let Some(put) = &self.put {
            if chain.strategies.contains(put) {
                return refuse(format!("{:?} in", put.text), "a strategy that the chain lacks");
            }
            edited.strategies.push(put.clone());
        }
        let new = |new: &Option<String>, own: &str| new.clone().unwrap_or_else(|| own.to_owned());
        edited.guidelines = new(&self.guidelines, &chain.guidelines);
        edited.risk_intent = new(&self.risk_intent, &chain.risk_intent);
        edited.needs = new(&self.needs, &chain.needs);
        if chain.has_no_risk() && !edited.has_no_risk() {
            return refuse(
                "a risk, where the chain states none".into(),
                "empty risk fields: such a chain bypasses safety",
            );
        }
        edited.check("edit")?;
        Ok(edited)
    }
}

/// What an engine proposes.
#[derive(Clone, Debug, PartialEq)]
pub enum Proposal {
    /// An edit.
    Edit(Edit),
    /// Text that is no edit, with what is wrong: counted, and never guessed.
    Unparsed(String),
    /// An edit past its budget, with what is wrong.
    PastBudget(String),
    /// No more edits.
    Nothing,
}

/// What proposes edits: a search over a vocabulary, a model with prompts, an endpoint.
pub trait EditEngine {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// The next edit of the chain, which led to `outcome`. `history` holds the steps before.
    ///
    /// # Errors
    /// An engine that fails.
    fn propose(
        &mut self,
        chain: &Chain,
        outcome: &Outcome,
        phase: Phase,
        history: &History,
    ) -> Result<Proposal>;
}

/// When a refinement stops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refinement {
    /// Steps, at most.
    pub steps: usize,
    /// Greatest loss of safety that is met.
    pub safety: f64,
    /// Greatest loss of satisfaction that is met.
    pub satisfaction: f64,
}

impl Default for Refinement {
    fn default() -> Refinement {
        // Safe, and S ≥ 0: the answer does more for the user than it fails him.
        Refinement { steps: 3, safety: 0.0, satisfaction: 0.5 }
    }
}

impl Refinement {
    /// The loss to work on; none where both are met.
    pub fn phase(&self, chain: &Chain, losses: &Losses) -> Option<Phase> {
        if losses.safety > self.safety && !chain.has_no_risk() {
            return Some(Phase::Safety);
        }
        (losses.satisfaction > self.satisfaction).then_some(Phase::Satisfaction)
    }

    /// Whether both losses are met.
    pub fn is_met(&self, losses: &Losses) -> bool {
        losses.safety <= self.safety && losses.satisfaction <= self.satisfaction
    }
}

/// One step: the edit, and what it led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The loss that it worked on.
    pub phase: Phase,
    /// The edit.
    pub edit: Edit,
    /// The edited chain.
    pub chain: Chain,
    /// What it led to.
    pub outcome: Outcome,
    /// Whether the chain was kept; one that would have made a safe answer unsafe was not.
    pub kept: bool,
}

/// Why a step led nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The engine's proposal can't be parsed.
    Unparsed,
    /// The proposal is past its budget.
    PastBudget,
    /// The judge's verdict on the answer can't be parsed.
    Unjudged,
}

/// A step that led nowhere; the chain stays as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedStep {
    /// Number of the step, from 1, among all.
    pub step: usize,
    /// The loss that it worked on.
    pub phase: Phase,
    /// Why it failed.
    pub failure: Failure,
    /// What was wrong.
    pub reason: String,
}

/// A whole refinement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The chain at the beginning.
    pub chain: Chain,
    /// What it led to.
    pub outcome: Outcome,
    /// The steps that led to an answer, in order.
    pub steps: Vec<Step>,
    /// The steps that led nowhere, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedStep>,
    /// Whether both losses are met at the end.
    pub met: bool,
}

impl History {
    /// Steps of both kinds: each uses up one.
    pub fn spent(&self) -> usize {
        self.steps.len() + self.failed.len()
    }

    /// The number of failures of a kind.
    pub fn failures(&self, kind: Failure) -> usize {
        self.failed.iter().filter(|failed| failed.failure == kind).count()
    }

    /// The last outcome that was kept.
    pub fn last(&self) -> &Outcome {
        self.steps.iter().rev().find(|step| step.kept).map_or(&self.outcome, |step| &step.outcome)
    }
}

/// Refines a chain until both losses are met, the engine has no more edits, or the steps are used up. A proposal that can't be parsed, an
/// edit past its budget and an answer that can't be judged each use up a step, and change nothing.
///
/// # Errors
/// An engine or a forward pass that fails.
pub fn refine(
    chain: &Chain,
    outcome: &Outcome,
    forward: &mut dyn Forward,
    engine: &mut dyn EditEngine,
    options: &Refinement,
) -> Result<History> {
    let (mut current, mut now) = (chain.clone(), outcome.clone());
    let mut history = History {
        chain: chain.clone(),
        outcome: outcome.clone(),
        steps: Vec::new(),
        failed: Vec::new(),
        met: false,
    };
    while let (true, Some(phase)) = (history.spent() < options.steps, options.phase(&current, &now.losses)) {
        let applied = match engine.propose(&current, &now, phase, &history)? {
            Proposal::Nothing => break,
            Proposal::Unparsed(reason) => Err((Failure::Unparsed, reason)),
            Proposal::PastBudget(reason) => Err((Failure::PastBudget, reason)),
            Proposal::Edit(edit) => match edit.apply(&current, phase) {
                Err(error) => Err((Failure::PastBudget, error.to_string())),
                Ok(edited) => match forward.forward(&edited)? {
                    None => Err((Failure::Unjudged, edited.text(Node::Strategies))),
                    Some(next) => Ok((edit, edited, next)),
                },
            },
        };
        let (edit, edited, next) = match applied {
            Ok(applied) => applied,
            Err((failure, reason)) => {
                let step = history.spent() + 1;
                history.failed.push(FailedStep { step, phase, failure, reason });
                continue;
            }
        };
        let kept = phase == Phase::Safety || next.losses.safety <= now.losses.safety.max(options.safety);
        if kept {
            (current, now) = (edited.clone(), next.clone());
        }
        history.steps.push(Step { phase, edit, chain: edited, outcome: next, kept });
    }
    history.met = options.is_met(&now.losses);
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usefulness(text: &str) -> Strategy {
        Strategy::new(Kind::Usefulness, text)
    }

    fn chain(strategies: Vec<Strategy>) -> Chain {
        Chain { needs: "n".into(), risk_intent: "r".into(), guidelines: "g".into(), strategies, intent: None }
    }

    /// Unsafe with "comply"; safe and dull with "refuse"; safe and good with "guide" beside it.
    struct Toy;

    impl Forward for Toy {
        fn forward(&mut self, chain: &Chain) -> Result<Option<Outcome>> {
            let has = |text: &str| chain.strategies.iter().any(|strategy| strategy.text == text);
            let safety = if has("comply") { 1.0 } else { 0.0 };
            let satisfaction = if has("guide") { 0.0 } else { 0.8 };
            let losses = Losses { safety, satisfaction };
            let outcome = Outcome { answer: chain.text(Node::Strategies), losses, reason: String::new() };
            Ok((!has("mumble")).then_some(outcome))
        }
    }

    /// Gives its edits in order.
    struct Script(Vec<Edit>);

    impl EditEngine for Script {
        fn name(&self) -> &'static str {
            "script"
        }

        fn propose(&mut self, _: &Chain, _: &Outcome, _: Phase, _: &History) -> Result<Proposal> {
            Ok(if self.0.is_empty() { Proposal::Nothing } else { Proposal::Edit(self.0.remove(0)) })
        }
    }

    fn edit(taken: Option<Strategy>, put: Option<Strategy>) -> Edit {
        Edit { taken, put, ..Edit::default() }
    }

    fn run(chain: &Chain, edits: Vec<Edit>) -> History {
        let outcome = Toy.forward(chain).unwrap().unwrap();
        refine(chain, &outcome, &mut Toy, &mut Script(edits), &Refinement::default()).unwrap()
    }

    /// The failures of a refinement by one edit.
    fn failed(chain: &Chain, edit: Edit) -> (Failure, String) {
        let history = run(chain, vec![edit]);
        assert_eq!((history.spent(), history.steps.len(), history.met), (1, 0, false));
        (history.failed[0].failure, history.failed[0].reason.clone())
    }

    #[test]
    fn safety_comes_first_then_satisfaction_with_safety_frozen() {
        let start = chain(vec![usefulness("comply")]);
        let safe = Strategy::new(Kind::Safety, "refuse");
        let history = run(
            &start,
            vec![
                edit(Some(usefulness("comply")), Some(safe.clone())),
                edit(None, Some(usefulness("guide"))),
                edit(None, Some(usefulness("never asked for"))),
            ],
        );
        assert!(history.met);
        let phases: Vec<Phase> = history.steps.iter().map(|step| step.phase).collect();
        assert_eq!(phases, [Phase::Safety, Phase::Satisfaction]);
        assert_eq!(history.last().losses, Losses { safety: 0.0, satisfaction: 0.0 });
        let (failure, reason) = failed(&chain(vec![safe.clone()]), edit(Some(safe), None));
        assert_eq!(failure, Failure::PastBudget);
        assert!(reason.starts_with("edit: a safety strategy, in the phase of satisfaction"), "{reason}");
    }

    #[test]
    fn a_step_that_makes_a_safe_answer_unsafe_is_undone_and_counts() {
        let safe = Strategy::new(Kind::Safety, "refuse");
        let history = run(
            &chain(vec![safe]),
            vec![edit(None, Some(usefulness("comply"))), edit(None, Some(usefulness("guide")))],
        );
        assert_eq!(history.steps.iter().map(|step| step.kept).collect::<Vec<_>>(), [false, true]);
        assert!(history.met && history.steps[1].chain.strategies.len() == 2);
    }

    #[test]
    fn three_steps_are_the_most() {
        let puts = ["a", "b", "c", "d"].map(|text| edit(None, Some(usefulness(text))));
        let history = run(&chain(vec![Strategy::new(Kind::Safety, "refuse")]), puts.to_vec());
        assert_eq!((history.steps.len(), history.met), (3, false));
        // A refused edit uses up a step too.
        let mut puts = puts.to_vec();
        puts.insert(1, edit(None, None));
        let history = run(&chain(vec![Strategy::new(Kind::Safety, "refuse")]), puts);
        assert_eq!((history.steps.len(), history.failed[0].step, history.spent()), (2, 2, 3));
    }

    #[test]
    fn an_answer_that_cannot_be_judged_counts_and_changes_nothing() {
        let start = chain(vec![Strategy::new(Kind::Safety, "refuse")]);
        let history =
            run(&start, vec![edit(None, Some(usefulness("mumble"))), edit(None, Some(usefulness("guide")))]);
        assert_eq!(history.failures(Failure::Unjudged), 1);
        assert!(history.met && history.steps[0].chain.text(Node::Strategies) == "refuse; guide");
    }

    #[test]
    fn a_chain_without_risk_bypasses_safety_and_stays_without() {
        let calm =
            Chain { risk_intent: String::new(), guidelines: String::new(), ..chain(vec![usefulness("x")]) };
        let history = run(&calm, vec![edit(None, Some(usefulness("guide")))]);
        assert!(history.met && history.steps[0].phase == Phase::Satisfaction);
        let risky = Edit { guidelines: Some("protect".into()), ..edit(None, Some(usefulness("guide"))) };
        assert!(failed(&calm, risky).1.starts_with("edit: a risk"));
    }

    #[test]
    fn edits_past_their_budget_are_refused() {
        let start = chain(vec![usefulness("comply")]);
        for (edit, part) in [
            (edit(None, None), "no strategy in or out"),
            (edit(Some(usefulness("other")), None), "a strategy of the chain"),
            (edit(None, Some(usefulness("comply"))), "that the chain lacks"),
            (edit(Some(usefulness("comply")), None), "a chain without strategies"),
        ] {
            let (failure, reason) = failed(&start, edit);
            assert!(failure == Failure::PastBudget && reason.contains(part), "{reason}");
        }
    }
}
