//! Token readout: a class's probability at every token and site of a dialogue, and a dialogue's trajectory over the risk map,
//! round by round.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::activations::{self, Recorder, Request};
use crate::boundary::Plane;
use crate::config::defaults::BATCH_TOKENS_FEW_SITES;
use crate::dialogue::{Dialogue, Role};
use crate::error::{Error, Result};
use crate::model::{Chat, Model, Selector, Site, Token};
use crate::probe::Probe;

/// A class's probability at every token of one dialogue (JSON, kind `tokens`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenReadout {
    /// The dialogue.
    pub id: String,
    /// Label of the probes.
    pub label: String,
    /// The class.
    pub class: String,
    /// Tokens that the probes were fitted at; at others their probabilities are not calibrated.
    pub fitted_at: String,
    /// Sites of the probes.
    pub sites: Vec<Site>,
    /// The dialogue's tokens.
    pub tokens: Vec<ReadToken>,
    /// `[sites, tokens]`.
    pub probabilities: Vec<Vec<f64>>,
}

/// A token of the dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadToken {
    /// Its text.
    pub text: String,
    /// Number of the message, from 0.
    pub turn: usize,
    /// Whether the chat template wrote it.
    pub template: bool,
}

impl ReadToken {
    /// The token as it is shown.
    ///
    /// # Errors
    /// An id that the tokenizer lacks.
    pub fn of(chat: &Chat, token: &Token) -> Result<ReadToken> {
        let text = chat.decode(&[token.id], false)?;
        Ok(ReadToken { text, turn: token.turn, template: !token.is_content() })
    }
}

/// Reads a class at every token of a dialogue, with each probe at its site.
///
/// # Errors
/// If there is no probe, one has no such class, or its width is not the model's.
pub fn read_tokens(
    model: &Model,
    dialogue: &Dialogue,
    probes: &[Probe],
    class: &str,
    thinking: Option<bool>,
) -> Result<TokenReadout> {
    let Some(first) = probes.first() else {
        return Err(Error::input("token readout", "no probe", "one or more"));
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
    Ok(TokenReadout {
        id: dialogue.id.clone(),
        label: first.source.label.clone(),
        class: class.to_owned(),
        fitted_at: first.source.tokens.to_string(),
        sites,
        tokens: tokens.iter().map(|token| ReadToken::of(&model.chat, token)).collect::<Result<_>>()?,
        probabilities,
    })
}

/// A dialogue's trajectory over the risk map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// The dialogue.
    pub id: String,
    /// Place on the plane after each message of the user.
    pub places: Vec<[f64; 2]>,
    /// `[rounds, classes]`: the classes' probabilities there.
    pub probabilities: Vec<Vec<f64>>,
    /// The classes.
    pub classes: Vec<String>,
}

/// Trajectories as they are saved (JSON, kind `drift`).
#[derive(Serialize)]
pub struct Trajectories<'a> {
    /// One a dialogue.
    pub drifts: &'a [Trajectory],
}

/// Projects dialogues onto the plane round by round: each is cut after every message of the user, and read where the probe
/// reads.
///
/// # Errors
/// If a dialogue has no message of the user, or the probe reads several tokens of one.
pub fn trajectories(
    model: &Model,
    dialogues: &[Dialogue],
    probe: &Probe,
    plane: &Plane,
    thinking: Option<bool>,
) -> Result<Vec<Trajectory>> {
    let mut trajectories = Vec::new();
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
            batch_tokens: BATCH_TOKENS_FEW_SITES,
            ..Request::default()
        };
        let read = activations::extract(model, &prefixes, &reading, &mut |_| true)?;
        let states = read.at(probe.source.site)?;
        if states.nrows() != prefixes.len() {
            let found = format!("{} rows from {} rounds", states.nrows(), prefixes.len());
            let place = format!("tokens {}", probe.source.tokens);
            return Err(Error::input(place, found, "a selector that picks one token a dialogue, or pools"));
        }
        let places = plane.project(states.view())?;
        trajectories.push(Trajectory {
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
    Ok(trajectories)
}
