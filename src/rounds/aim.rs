//! Aim: what an attacker wants to hear, the harmless-looking steps toward it, and the manners of asking.

use serde::{Deserialize, Serialize};

use crate::dialogue::Dialogue;

/// A manner of persuasion, and the sentence that carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manner {
    /// Its name.
    pub name: String,
    /// What is said.
    pub text: String,
}

impl Manner {
    /// A manner.
    pub fn new(name: &str, text: &str) -> Manner {
        Manner { name: name.into(), text: text.into() }
    }
}

/// An aim as an agent takes it apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aim {
    /// Id, labels and the system messages that the dialogue begins with.
    pub dialogue: Dialogue,
    /// What the first message begins with, unless it holds the request: what the dialogue is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<String>,
    /// What is said on the way, in the order of a plain telling.
    pub steps: Vec<String>,
    /// Wordings of the request itself, at least one.
    pub asks: Vec<String>,
    /// Manners of asking; may be empty.
    pub manners: Vec<Manner>,
}

impl Aim {
    /// The aim as one plain message: every step, then the request.
    pub fn whole(&self) -> String {
        let said: Vec<&str> = self.steps.iter().chain(self.asks.first()).map(String::as_str).collect();
        said.join(" ")
    }
}
