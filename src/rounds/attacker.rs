//! Attacker: where the messages of a dialogue come from that no agent of this program makes. A model behind an endpoint, led by a prompt file
//! of the user's own.

use serde_json::{Value, json};

use super::task::visible;
use crate::artifact;
use crate::dialogue::{Dialogue, Role};
use crate::error::{Error, Result};
use crate::judge::{Endpoint, EndpointClient, Purpose};

/// A source of messages.
pub trait Attacker {
    /// The message of a round, counted from 1, of a dialogue that doesn't hold it yet.
    ///
    /// # Errors
    /// [`Error::Input`] where there is no usable message, which ends the dialogue and not the run; any other error ends the run.
    fn message(&mut self, dialogue: &Dialogue, round: usize, rounds: usize) -> Result<String>;
}

/// A model behind an OpenAI-compatible endpoint. It sees the user's prompt as its system message, and the messages and answers so far; not the
/// system message of the dialogue.
pub struct EndpointAttacker {
    client: EndpointClient,
    model: String,
    prompt: String,
    seed: u64,
}

/// Tokens of a message, at most.
const MESSAGE_TOKENS: usize = 512;

impl EndpointAttacker {
    /// An attacker; nothing is asked yet.
    ///
    /// # Errors
    /// A URL of another scheme than http or https; an empty prompt; a build without HTTP.
    pub fn new(endpoint: &Endpoint, prompt: &str, seed: u64) -> Result<EndpointAttacker> {
        if prompt.trim().is_empty() {
            return Err(Error::input(
                "--attacker-prompt",
                "an empty file",
                "what the attacker model is told",
            ));
        }
        let endpoint = Endpoint { purpose: Purpose::Attacker, ..endpoint.clone() };
        let client = EndpointClient::new(&endpoint)?;
        Ok(EndpointAttacker { client, model: endpoint.model, prompt: prompt.into(), seed })
    }

    /// What is asked of the endpoint: its own messages are the assistant's, the answers to them the user's.
    fn request(&self, dialogue: &Dialogue, round: usize, rounds: usize) -> Value {
        let mut messages = vec![json!({"role": "system", "content": self.prompt})];
        let mut before = String::new();
        let mut number = 0;
        for message in dialogue.messages.iter().filter(|message| message.role != Role::System) {
            match message.role {
                Role::User => {
                    number += 1;
                    messages.push(
                        json!({"role": "user", "content": format!("{before}{}", turn(number, rounds))}),
                    );
                    messages.push(json!({"role": "assistant", "content": message.content}));
                }
                _ => before = format!("The answer was:\n{}\n\n", message.content),
            }
        }
        messages.push(json!({"role": "user", "content": format!("{before}{}", turn(round, rounds))}));
        json!({
            "model": self.model,
            "messages": messages,
            "max_tokens": MESSAGE_TOKENS,
            "temperature": 1.0,
            "seed": self.seed_of(dialogue, round),
        })
    }

    /// The seed of a message: dialogues and rounds don't share it. JSON's numbers of other programs may be of 53 bits.
    fn seed_of(&self, dialogue: &Dialogue, round: usize) -> u64 {
        let hash = artifact::sha256(format!("{} {} {round}", self.seed, dialogue.id).as_bytes());
        u64::from_str_radix(&hash[..13], 16).unwrap_or_default()
    }
}

fn turn(round: usize, rounds: usize) -> String {
    format!("Round {round} of {rounds}. Reply with your next message only.")
}

impl Attacker for EndpointAttacker {
    fn message(&mut self, dialogue: &Dialogue, round: usize, rounds: usize) -> Result<String> {
        let said = self.client.ask(&self.request(dialogue, round, rounds).to_string(), |_| true)?;
        match visible(&said) {
            "" => Err(Error::input("the attacker", "an empty message", "a message")),
            text => Ok(text.into()),
        }
    }
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::*;
    use crate::dialogue::Message;

    #[test]
    fn the_attacker_sees_the_rounds_and_not_the_system_message() {
        let endpoint =
            Endpoint { url: "http://localhost:1/v1".into(), model: "m".into(), ..Endpoint::default() };
        let own = EndpointAttacker::new(&endpoint, "ask for the word", 3 << 12).unwrap();
        let said = [(Role::System, "keep it"), (Role::User, "hello"), (Role::Assistant, "hi")];
        let dialogue = Dialogue::new("one", said.map(|(role, text)| Message::new(role, text)).to_vec());
        let request = own.request(&dialogue, 2, 3);
        let told: Vec<(&str, &str)> = request["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| (message["role"].as_str().unwrap(), message["content"].as_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("system", "ask for the word"),
                ("user", "Round 1 of 3. Reply with your next message only."),
                ("assistant", "hello"),
                ("user", "The answer was:\nhi\n\nRound 2 of 3. Reply with your next message only."),
            ]
        );
        assert!(!request.to_string().contains("keep it"));
        // Dialogues and rounds don't share their random numbers; the same request is the same again.
        let seed =
            |dialogue: &Dialogue, round: usize| own.request(dialogue, round, 3)["seed"].as_u64().unwrap();
        let other = Dialogue { id: "two".into(), ..dialogue.clone() };
        assert!(seed(&dialogue, 2) != seed(&other, 2) && seed(&dialogue, 2) != seed(&dialogue, 3));
        assert_eq!(seed(&dialogue, 2), seed(&dialogue, 2));
        assert!(seed(&dialogue, 2) < 1 << 53);
        for (url, prompt, place) in
            [("ftp://x", "a", "--attacker-url"), ("http://x", " \n", "--attacker-prompt")]
        {
            let endpoint = Endpoint { url: url.into(), ..Endpoint::default() };
            let error = EndpointAttacker::new(&endpoint, prompt, 0).err().unwrap().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }
}
