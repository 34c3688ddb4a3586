//! Reader of rounds: dialogues that end with a message of the user in; the risk, and whether the model is about to refuse, out.

use super::monitors::Reading;
use crate::activations::{Activations, Request, extract, extract_after};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::{Model, PromptCache, Site};
use crate::probe::Probe;

/// The probes that read a round before it is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Reader {
    /// The probe of attacks, and its class.
    pub risk: (Probe, String),
    /// The probe of refusals to come, and its class.
    pub refusal: Option<(Probe, String)>,
    /// Mode of the chat template.
    pub thinking: Option<bool>,
}

impl Reader {
    /// A reading a dialogue.
    ///
    /// # Errors
    /// A probe of another model's width or several tokens a dialogue; a dialogue that the template refuses.
    pub fn read(&self, model: &Model, dialogues: &[Dialogue]) -> Result<Vec<Reading>> {
        self.read_with(model, dialogues, None)
    }

    /// As [`Reader::read`], of dialogues whose earlier rounds are in `prompts`; this one is kept there too.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read_after(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        prompts: &mut PromptCache,
    ) -> Result<Vec<Reading>> {
        self.read_with(model, dialogues, Some(prompts))
    }

    fn read_with(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        mut prompts: Option<&mut PromptCache>,
    ) -> Result<Vec<Reading>> {
        if dialogues.is_empty() {
            return Ok(Vec::new());
        }
        let (risk, class) = &self.risk;
        let sites = |probe: &Probe, other: Option<&Probe>| -> Vec<Site> {
            let mut sites: Vec<Site> =
                [Some(probe), other].into_iter().flatten().map(|one| one.source.site).collect();
            sites.dedup();
            sites
        };
        // One pass where both probes read the same tokens.
        let joint = self
            .refusal
            .as_ref()
            .map(|(probe, _)| probe)
            .filter(|probe| probe.source.tokens == risk.source.tokens);
        let states = self.states(model, dialogues, risk, sites(risk, joint), prompts.as_deref_mut())?;
        let risks = of_class(&states, risk, class)?;
        let refusals = match &self.refusal {
            None => vec![0.0; dialogues.len()],
            Some((probe, class)) if joint.is_some() => of_class(&states, probe, class)?,
            Some((probe, class)) => {
                of_class(&self.states(model, dialogues, probe, sites(probe, None), prompts)?, probe, class)?
            }
        };
        let both = risks.into_iter().zip(refusals);
        Ok(both.map(|(risk, refusal)| Reading { risk, refusal }).collect())
    }

    /// States at the tokens of a probe, a row a dialogue.
    fn states(
        &self,
        model: &Model,
        dialogues: &[Dialogue],
        probe: &Probe,
        sites: Vec<Site>,
        prompts: Option<&mut PromptCache>,
    ) -> Result<Activations> {
        let tokens = &probe.source.tokens;
        let request = Request::new(sites).tokens(tokens.clone()).thinking(self.thinking);
        let states = match prompts {
            None => extract(model, dialogues, &request, &mut |_| true)?,
            Some(prompts) => extract_after(model, dialogues, &request, prompts)?,
        };
        if !states.example.iter().copied().eq(0..dialogues.len()) {
            let found = format!("{} tokens of {} rounds", states.example.len(), dialogues.len());
            return Err(Error::input(
                format!("tokens {tokens}"),
                found,
                "a selector that picks one token a round, or pools",
            ));
        }
        Ok(states)
    }
}

/// The probability of a probe's class in each row.
fn of_class(states: &Activations, probe: &Probe, class: &str) -> Result<Vec<f64>> {
    let class = probe.class(class)?;
    Ok(probe.probabilities(states.at(probe.source.site)?.view())?.column(class).to_vec())
}
