//! Channels of the harmony format (gpt-oss): an assistant's turn is one or more of
//! `<|start|>assistant<|channel|>NAME<|message|>TEXT<|end|>`. The channel `analysis` is the thinking part, any other the answer.

use std::borrow::Cow;

use super::message_spans::{CLOSE, OPEN, REASONING, thinking_part};
use super::tokenizer::Vocabulary;
use crate::dialogue::{Message, Role};
use crate::error::Result;
use crate::model::token::Phase;

/// The channel of the thinking part.
const THINKING: &str = "analysis";

/// The control tokens of the format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channels {
    start: u32,
    channel: u32,
    message: u32,
    end: u32,
}

/// The place in the format where a token stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// Before a message: its role or its channel so far.
    Header(String),
    /// Inside a message.
    Body(Phase),
    /// After a message.
    Between,
}

impl Channels {
    /// Those of a vocabulary that has the format.
    pub fn of(vocabulary: &Vocabulary) -> Option<Channels> {
        let id = |token: &str| vocabulary.id(token);
        Some(Channels {
            start: id("<|start|>")?,
            channel: id("<|channel|>")?,
            message: id("<|message|>")?,
            end: id("<|end|>")?,
        })
    }

    /// The place after a token, and whether the token is one of the format's own.
    pub fn after(&self, place: &Place, id: u32, vocabulary: &Vocabulary) -> (Place, bool) {
        match place {
            _ if id == self.start || id == self.channel => (Place::Header(String::new()), true),
            _ if id == self.end => (Place::Between, true),
            Place::Header(name) if id == self.message => {
                let thinks = name.trim_start().starts_with(THINKING);
                (Place::Body(if thinks { Phase::Think } else { Phase::Answer }), true)
            }
            Place::Header(name) => {
                let more = vocabulary.decode(&[id], false).unwrap_or_default();
                (Place::Header(format!("{name}{more}")), true)
            }
            _ if id == self.message => (Place::Body(Phase::Answer), true),
            Place::Between => (Place::Between, true),
            Place::Body(phase) => (Place::Body(*phase), false),
        }
    }

    /// The place in which generation begins after a prompt's tokens: a model that writes no channel answers.
    pub fn opened(place: Place) -> Place {
        match place {
            Place::Header(name) if name.trim() == "assistant" => Place::Body(Phase::Answer),
            place => place,
        }
    }

    /// The text of generated tokens: thinking parts between the usual tags, answers as they are.
    pub fn text(&self, ids: &[u32], vocabulary: &Vocabulary) -> Result<String> {
        let mut text = String::new();
        let mut write = |phase: Phase, ids: &mut Vec<u32>, is_whole: bool| -> Result<()> {
            if ids.is_empty() {
                return Ok(());
            }
            let said = vocabulary.decode(&std::mem::take(ids), true)?;
            text += &match (phase, is_whole) {
                (Phase::Think, true) => format!("{OPEN}{said}{CLOSE}"),
                (Phase::Think, false) => format!("{OPEN}{said}"),
                _ => said,
            };
            Ok(())
        };
        let (mut place, mut phase, mut body) = (Place::Body(Phase::Answer), Phase::Answer, Vec::new());
        for &id in ids {
            let (next, own) = self.after(&place, id, vocabulary);
            if own {
                write(phase, &mut body, true)?;
            } else {
                body.push(id);
            }
            if let Place::Body(of) = next {
                phase = of;
            }
            place = next;
        }
        write(phase, &mut body, false)?;
        Ok(text)
    }

    /// The tokens that end the thinking part and begin the answer.
    pub fn closing(&self, encode: impl Fn(&str) -> Result<Vec<u32>>) -> Result<Vec<u32>> {
        let (role, channel) = (encode("assistant")?, encode("final")?);
        Ok([&[self.end, self.start], &role[..], &[self.channel], &channel, &[self.message]].concat())
    }
}

/// Messages whose thinking part, between tags in the content, is in the field that the format's template reads; of those before the
/// last, without it, as the template writes them.
pub(crate) fn with_channels(messages: &[Message]) -> Cow<'_, [Message]> {
    let tagged = |message: &Message| {
        let own = REASONING.iter().any(|name| message.fields.contains_key(*name));
        message.role == Role::Assistant && !own && thinking_part(&message.content).is_some()
    };
    if !messages.iter().any(tagged) {
        return messages.into();
    }
    let last = messages.len() - 1;
    let split = |(turn, message): (usize, &Message)| {
        let mut message = message.clone();
        if let Some((thought, answer)) = thinking_part(&message.content).filter(|_| tagged(&message)) {
            let (thought, answer) =
                (message.content[thought].trim().to_owned(), message.content[answer].trim_start().to_owned());
            if turn == last && !thought.is_empty() {
                message.fields.insert(REASONING[0].into(), thought.into());
            }
            message.content = answer;
        }
        message
    };
    messages.iter().enumerate().map(split).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{EOS, dialogue, fixture, shown};
    use crate::dialogue::Role::{Assistant as A, User as U};
    use crate::model::{Chat, Phase};

    /// The format's own template, without tools and the system's message.
    const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking and loop.last %}\
        <|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}\
        <|start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}\
        {% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}\
        {% if add_generation_prompt %}<|start|>assistant{% endif %}";

    fn chat() -> Chat {
        let mut tokenizer: Value = serde_json::from_str(&fixture("tokenizer.json")).unwrap();
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        for (number, name) in ["start", "channel", "message", "end", "return"].iter().enumerate() {
            added.push(json!({"id": 400 + number, "content": format!("<|{name}|>"), "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": true}));
        }
        let eos = [("eos_token", "<|return|>"), EOS[1]];
        Chat::from_bytes(tokenizer.to_string().as_bytes(), Some(TEMPLATE), &eos).unwrap()
    }

    #[test]
    fn channels_of_a_dialogue_are_phases() {
        let said = [(U, "hi"), (A, "<think>old</think>hello"), (U, "so"), (A, "<think>new</think>\n\nyes")];
        assert_eq!(
            shown(&chat(), &chat().tokens(&dialogue(&said), 0, None).unwrap()),
            r#"0 template "<|start|>user<|message|>" | 0 prompt "hi" | 0 template "<|end|>" | 1 template "<|start|>assistant<|channel|>final<|message|>" | 1 answer "hello" | 1 template "<|end|>" | 2 template "<|start|>user<|message|>" | 2 prompt "so" | 2 template "<|end|>" | 3 template "<|start|>" | 3 template "assistant"^ | 3 template "<|channel|>analysis<|message|>" | 3 think "new" | 3 template "<|end|><|start|>assistant<|channel|>final<|message|>" | 3 answer "yes" | 3 template "<|return|>""#
        );
    }

    #[test]
    fn generated_channels_are_phases_and_the_text_has_tags() {
        let chat = chat();
        let prompt = chat.tokens(&dialogue(&[(U, "hi")]), 0, None).unwrap();
        let written = "<|channel|>analysis<|message|>why not<|end|><|start|>assistant<|channel|>final<|message|>good day";
        let ids = chat.encode_prompt(written).unwrap();
        let mut continuation = chat.continuation(&prompt);
        let tokens: Vec<_> = ids.iter().map(|&id| continuation.next(id)).collect();
        let of = |phase: Phase| {
            let ids: Vec<u32> =
                tokens.iter().filter(|token| token.phase == phase).map(|token| token.id).collect();
            chat.decode(&ids, false).unwrap()
        };
        assert_eq!((of(Phase::Think), of(Phase::Answer)), ("why not".into(), "good day".into()));
        assert_eq!(chat.answer_text(&ids).unwrap(), "<think>why not</think>good day");
        // What is written so far begins what is written later.
        let whole = chat.answer_text(&ids).unwrap();
        assert!((0..ids.len()).all(|count| whole.starts_with(&chat.answer_text(&ids[..count]).unwrap())));
        // The same phases as of the finished dialogue.
        let answered = dialogue(&[(U, "hi"), (A, &whole)]);
        let read = chat.tokens(&answered, 0, None).unwrap();
        let phases = |tokens: &[crate::model::Token]| -> Vec<(u32, Phase)> {
            tokens.iter().map(|token| (token.id, token.phase)).collect()
        };
        assert_eq!(phases(&read)[prompt.len()..read.len() - 1], phases(&tokens));
        // A budget closes the analysis and opens the answer.
        let closing = chat.close_thinking().unwrap();
        assert_eq!(
            chat.decode(&closing, false).unwrap(),
            "<|end|><|start|>assistant<|channel|>final<|message|>"
        );
        // Without any channel, all is the answer.
        let plain = chat.encode_prompt("good day").unwrap();
        let mut continuation = chat.continuation(&prompt);
        assert!(plain.iter().all(|&id| continuation.next(id).phase == Phase::Answer));
        assert_eq!(chat.answer_text(&plain).unwrap(), "good day");
    }
}
