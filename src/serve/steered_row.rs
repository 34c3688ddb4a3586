//! The steering of an answer, made ready before it joins the batch: a plan or a policy and a dialogue in; the hook of a row, and what it does to
//! the prompt, out. Conditions on the prompt and policies read the prompt through the model here.

use std::sync::Arc;

use serde_json::Value;

use super::readings::Reader;
use super::row_hooks::RowHook;
use super::steering::Steered;
use crate::constructive::Decision;
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::generate::GenerateOptions;
use crate::model::{Model, PromptSteering, Token};
use crate::steer::{Plan, Probes, SteerHook};

/// How a row is steered, and what is read in it.
pub(super) struct SteeredRow {
    /// What is done and read.
    pub hook: RowHook,
    /// What steering does to the prompt.
    pub steering: PromptSteering,
    /// What it may take of others' prompts: nothing where it is read, since the states of every token are needed.
    pub takes: PromptSteering,
    /// What a policy decided, if one did.
    pub decision: Option<Value>,
}

/// The row of answers that are made ready, before they have one.
const NO_ROW: usize = 0;

impl SteeredRow {
    /// The steering of one answer. `random_stream`: the number of its draws, of which a policy has one too.
    ///
    /// # Errors
    /// A plan that can't be applied to the dialogue, or a policy that can't read it.
    pub fn new(
        model: &Model,
        steered: &Steered,
        (dialogue, prompt): (&Dialogue, &[Token]),
        options: &GenerateOptions,
        random_stream: usize,
        readers: &[Arc<Reader>],
        trace: bool,
    ) -> Result<SteeredRow> {
        let (mut plan, mut decision) = (steered.plan.clone(), None);
        let dialogue = std::slice::from_ref(dialogue);
        if let Some(policy) = &steered.policy {
            // Each of several answers has a draw of its own; the first has that of the seed.
            let seed = options.seed.wrapping_add(random_stream as u64);
            let decided = policy.decide(model, dialogue, &[], seed)?;
            plan = Some(Arc::new(policy.plan(&decided, &[])?));
            decision = decided.first().map(Decision::to_json).transpose()?;
        }
        let steer = match &plan {
            Some(plan) => hooks(model, plan, dialogue, prompt, options.thinking, trace)?,
            None => Vec::new(),
        };
        let hook = RowHook::new(steer, readers.to_vec(), model.decoder.architecture());
        let steering = hook.steering(NO_ROW, prompt);
        let takes = match readers.is_empty() {
            true => steering,
            false => PromptSteering { untouched: 0, resumable: 0, ..steering },
        };
        Ok(SteeredRow { hook, steering, takes, decision })
    }
}

/// The interventions of a plan that change a prompt or its answer.
fn hooks(
    model: &Model,
    plan: &Plan,
    dialogue: &[Dialogue],
    prompt: &[Token],
    thinking: Option<bool>,
    trace: bool,
) -> Result<Vec<SteerHook>> {
    let hooks = plan.hooks_with(Probes::default(), model, dialogue, thinking)?;
    hooks.iter().try_for_each(|hook| hook.check_prompt(prompt))?;
    let changing = hooks.into_iter().enumerate().filter(|(_, hook)| hook.changes(NO_ROW));
    let mut steer: Vec<SteerHook> =
        changing.map(|(number, hook)| if trace { hook.traced(number) } else { hook }).collect();
    steer.iter_mut().for_each(|hook| hook.move_to(NO_ROW));
    Ok(steer)
}
