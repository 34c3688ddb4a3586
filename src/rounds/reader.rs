//! Reader of rounds: dialogues that end with a message of the user in; the risk, and whether the model is about to refuse, out.

use super::monitors::Reading;
use crate::activations::{Request, extract};
use crate::dialogue::Dialogue;
use crate::error::{Error, Result};
use crate::model::Model;
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
        let risks = read_class(model, dialogues, &self.risk.0, &self.risk.1, self.thinking)?;
        let refusals = match &self.refusal {
            Some((probe, class)) => read_class(model, dialogues, probe, class, self.thinking)?,
            None => vec![0.0; dialogues.len()],
        };
        let both = risks.into_iter().zip(refusals);
        Ok(both.map(|(risk, refusal)| Reading { risk, refusal }).collect())
    }
}

/// The probability of a probe's class for each dialogue.
///
/// # Errors
/// As [`Reader::read`].
pub(super) fn read_class(
    model: &Model,
    dialogues: &[Dialogue],
    probe: &Probe,
    class: &str,
    thinking: Option<bool>,
) -> Result<Vec<f64>> {
    let class = probe.class(class)?;
    if dialogues.is_empty() {
        return Ok(Vec::new());
    }
    let request = Request::new([probe.source.site]).tokens(probe.source.tokens.clone()).thinking(thinking);
    let states = extract(model, dialogues, &request, &mut |_| true)?;
    if !states.example.iter().copied().eq(0..dialogues.len()) {
        let found = format!("{} tokens of {} rounds", states.example.len(), dialogues.len());
        let place = format!("tokens {}", probe.source.tokens);
        return Err(Error::input(place, found, "a selector that picks one token a round, or pools"));
    }
    Ok(probe.probabilities(states.at(probe.source.site)?.view())?.column(class).to_vec())
}
