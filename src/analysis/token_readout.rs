//! A dialogue under a probe's eye: every token at every site, and round by round.
//! It knows nothing of how the probes were fitted.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::activations::{self, Request, Recorder};
use crate::boundary::Plane;
use crate::dialogue::{Dialogue, Role};
use crate::error::{Error, Result};
use crate::model::{Model, Selector, Site};
use crate::probe::Probe;

/// A class's probability at every token of one dialogue (JSON, kind `tokens`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    pub id: String,
    pub label: String,
    pub class: String,
    /// Where the probes were fitted to read: elsewhere their probabilities are a look, not a promise.
    pub fitted_at: String,
    pub sites: Vec<Site>,
    pub tokens: Vec<WatchedToken>,
    /// A list a site, a probability a token.
    pub probabilities: Vec<Vec<f64>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchedToken {
    pub text: String,
    /// Number of the message, from 0.
    pub turn: usize,
    pub template: bool,
}

/// Reads every token of a dialogue with each probe at its site.
///
/// # Errors
/// If there is no probe, one has no such class, or its width is not the model's.
pub fn watch(
    model: &Model,
    dialogue: &Dialogue,
    probes: &[Probe],
    class: &str,
    thinking: Option<bool>,
) -> Result<Watched> {
    let Some(first) = probes.first() else {
        return Err(Error::input("tokens", "no probe", "one or more"));
    };
    let columns = probes.iter().map(|probe| probe.class(class)).collect::<Result<Vec<_>>>()?;
    let tokens = model.chat.tokens(dialogue, 0, thinking)?;
    let sites: Vec<Site> = probes.iter().map(|probe| probe.source.site).collect();
    let mut recorder = Recorder::new(sites.clone(), Selector::All);
    model.decoder.forward(&tokens, None, &[], &mut recorder)?;
    let (_, read) = recorder.finish();
    let mut probabilities = Vec::new();
    for (probe, column) in probes.iter().zip(columns) {
        let flat = read.iter().find(|(site, _)| *site == probe.source.site).map(|(_, flat)| flat.clone());
        let width = model.decoder.architecture().site_width(probe.source.site);
        let states = Array2::from_shape_vec((tokens.len(), width), flat.unwrap_or_default())
            .map_err(|error| Error::input(format!("site {}", probe.source.site), error, "a state a token"))?;
        probabilities.push(probe.probabilities(states.view())?.column(column).to_vec());
    }
    let text = |token: &crate::model::Token| -> Result<WatchedToken> {
        let text = model.chat.decode(&[token.id], false)?;
        Ok(WatchedToken { text, turn: token.turn, template: !token.is_content() })
    };
    Ok(Watched {
        id: dialogue.id.clone(),
        label: first.source.label.clone(),
        class: class.to_owned(),
        fitted_at: first.source.tokens.to_string(),
        sites,
        tokens: tokens.iter().map(text).collect::<Result<_>>()?,
        probabilities,
    })
}

/// A dialogue's way over the map (JSON, kind `drift`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    pub id: String,
    /// Places on the plane after each message of the user.
    pub places: Vec<[f64; 2]>,
    /// Probabilities of the classes there, a list a round.
    pub probabilities: Vec<Vec<f64>>,
    pub classes: Vec<String>,
}

/// The ways of several dialogues, as they are saved.
#[derive(Serialize)]
pub struct Drifts<'a> {
    pub drifts: &'a [Drift],
}

/// Follows dialogues round by round: each is read as it stood after every message of the user, where the probe reads, and
/// put on the plane.
///
/// # Errors
/// If a dialogue has no message of the user, or the probe reads several tokens of one.
pub fn drift(
    model: &Model,
    dialogues: &[Dialogue],
    probe: &Probe,
    plane: &Plane,
    thinking: Option<bool>,
) -> Result<Vec<Drift>> {
    let mut drifts = Vec::new();
    for dialogue in dialogues {
        let ends = dialogue.messages.iter().enumerate().filter(|(_, message)| message.role == Role::User);
        let prefixes: Vec<Dialogue> = ends
            .map(|(end, _)| Dialogue { messages: dialogue.messages[..=end].to_vec(), ..dialogue.clone() })
            .collect();
        if prefixes.is_empty() {
            let place = format!("dialogue {}", dialogue.id);
            return Err(Error::input(place, "no message of the user", "one a round"));
        }
        let reading = Request {
            sites: vec![probe.source.site],
            tokens: probe.source.tokens.clone(),
            thinking,
            batch_tokens: 4096,
        };
        let read = activations::extract(model, &prefixes, &reading, &mut |_| true)?;
        let states = read.at(probe.source.site)?;
        if states.nrows() != prefixes.len() {
            let found = format!("{} rows from {} rounds", states.nrows(), prefixes.len());
            let place = format!("tokens {}", probe.source.tokens);
            return Err(Error::input(place, found, "a selector that picks one token a dialogue, or pools"));
        }
        let places = plane.project(states.view())?;
        drifts.push(Drift {
            id: dialogue.id.clone(),
            places: places.rows().into_iter().map(|place| [place[0], place[1]]).collect(),
            probabilities: probe
                .probabilities(states.view())?
                .rows()
                .into_iter()
                .map(|row| row.to_vec())
                .collect(),
            classes: probe.classes.clone(),
        });
    }
    Ok(drifts)
}
