//! A dialogue of many rounds in one process: what is said in, answers under a plan out, with what probes read.

use std::sync::Arc;

use serde_json::{Value, json};

use super::library::Library;
use super::readings::{ProbeReadings, Reader};
use super::row_hooks::{RowHook, RowHooks};
use super::steering;
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::generate::{Finish, GenerateOptions, Transcript, generate_streaming};
use crate::model::Model;
use crate::steer::{Intervention, Plan, SteerHook};

/// A dialogue with a model.
pub struct Session<'a> {
    model: &'a Model,
    library: &'a Library,
    options: GenerateOptions,
    messages: Vec<Message>,
    plan: Option<Plan>,
    readers: Vec<Arc<Reader>>,
}

/// An answer of a session.
#[derive(Debug)]
pub struct Round {
    /// The answer.
    pub transcript: Transcript,
    /// What was read, by the probe's name.
    pub readings: Vec<(String, ProbeReadings)>,
}

impl<'a> Session<'a> {
    /// A dialogue in which nothing was said yet.
    pub fn new(model: &'a Model, library: &'a Library, options: GenerateOptions) -> Session<'a> {
        let (messages, readers) = (Vec::new(), Vec::new());
        Session { model, library, options, messages, plan: None, readers }
    }

    /// Steers from now on: `PLAN`, `PLAN FACTOR`, `VECTOR:STRENGTH[@SITES]`, several of these joined by commas, or nothing.
    ///
    /// # Errors
    /// A name that the library lacks, or no such form; the session goes on as before.
    pub fn steer(&mut self, text: &str) -> Result<()> {
        let mut plan = Plan::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if part.contains(':') {
                let own: Intervention = part.parse()?;
                let own = self.library.resolve(own, "steer")?;
                plan.interventions.push(own.at_best_site(self.model)?);
                continue;
            }
            let field =
                match part.rsplit_once(' ').and_then(|(name, by)| Some((name, by.parse::<f64>().ok()?))) {
                    Some((name, by)) => json!({"plan": name.trim(), "scale": by}),
                    None => Value::from(part),
                };
            let own = steering::plan(&field, self.library)?;
            plan.interventions.extend(own.into_iter().flat_map(|own| own.interventions));
        }
        plan.check()?;
        self.plan = (!plan.interventions.is_empty()).then_some(plan);
        Ok(())
    }

    /// Reads these probes from now on: `NAME`, `NAME:CLASS`, `*` for all; none for none.
    ///
    /// # Errors
    /// A name that the library lacks; the session goes on as before.
    pub fn probe(&mut self, names: &[String]) -> Result<()> {
        let readers = Reader::find(self.library, names)?;
        self.readers = readers.into_iter().map(Arc::new).collect();
        Ok(())
    }

    /// Forgets what was said. Plan and probes stay.
    pub fn reset(&mut self) {
        self.messages.clear();
    }

    /// Begins the dialogue with a system message.
    pub fn system(&mut self, text: &str) {
        self.messages.retain(|message| message.role != Role::System);
        if !text.is_empty() {
            self.messages.insert(0, Message::new(Role::System, text));
        }
    }

    /// The answer to a message. `on_text` gets it as it is decoded, and stops it by returning false.
    ///
    /// # Errors
    /// A dialogue that the chat template refuses or that is longer than the model's context; steering that can't be applied;
    /// [`Error::Stopped`]. What was said last is forgotten then.
    pub fn say(&mut self, text: &str, on_text: &mut dyn FnMut(&str) -> bool) -> Result<Round> {
        self.messages.push(Message::new(Role::User, text));
        let round = self.answer(on_text);
        match &round {
            Ok(round) => self.messages.push(Message::new(Role::Assistant, round.transcript.text.clone())),
            Err(_) => drop(self.messages.pop()),
        }
        round
    }

    fn answer(&self, on_text: &mut dyn FnMut(&str) -> bool) -> Result<Round> {
        let dialogue = Dialogue::new("dialogue", self.messages.clone());
        if let Some(tokens) = self.model.excess(&dialogue, self.options.thinking)? {
            let expected = format!(
                "at most {}, the model's context: a shorter message, or a new dialogue",
                self.model.decoder.architecture().longest()
            );
            return Err(Error::input("the dialogue", format!("{tokens} tokens"), expected));
        }
        let dialogues = std::slice::from_ref(&dialogue);
        let steer: Vec<SteerHook> = match &self.plan {
            Some(plan) => plan.hooks(self.model, dialogues, self.options.thinking)?,
            None => Vec::new(),
        };
        let mut hooks = RowHooks::default();
        hooks.insert(0, RowHook::new(steer, self.readers.clone(), self.model.decoder.architecture()));
        let mut tokens = self.model.chat.tokens(&dialogue, 0, self.options.thinking)?;
        let (progress, text) = (&mut |_| true, &mut |_: usize, text: &str| on_text(text));
        let mut transcripts =
            generate_streaming(self.model, dialogues, &self.options, &mut hooks, progress, text)?;
        let transcript =
            transcripts.pop().filter(|own| own.finish != Finish::Stopped).ok_or(Error::Stopped)?;
        let mut continuation = self.model.chat.continuation(&tokens);
        tokens.extend(transcript.tokens.iter().map(|id| continuation.next(*id)));
        let read = hooks.remove(0).map(|hook| hook.read).unwrap_or_default();
        let all = self.readers.iter().zip(&read);
        let readings =
            all.map(|(reader, read)| Ok((reader.name.clone(), reader.summary(read, &tokens, None)?)));
        Ok(Round { transcript, readings: readings.collect::<Result<_>>()? })
    }
}
