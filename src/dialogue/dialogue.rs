//! A labelled dialogue: messages in order, with labels.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The speaker of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The role that goes by a name in chat templates: `developer` instructs the model, `function`, `observation` and `ipython` are
    /// results of tools.
    pub fn named(name: &str) -> Option<Role> {
        match name {
            "system" | "developer" => Some(Role::System),
            "user" => Some(Role::User),
            "assistant" => Some(Role::Assistant),
            "tool" | "function" | "observation" | "ipython" => Some(Role::Tool),
            _ => None,
        }
    }

    /// The usual name in chat templates.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message, that is one turn of a dialogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The speaker.
    pub role: Role,
    /// The text; empty where the message has none.
    pub content: String,
    /// Further fields that a chat template may read, such as `reasoning_content` and `tool_calls`. A null `content` is one of
    /// them, because templates tell a missing content from an empty one; and so is a `role` of another name than the usual.
    pub fields: Map<String, Value>,
}

impl Message {
    /// A message of this role and text.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into(), fields: Map::new() }
    }

    /// The message with its role under this name, which chat templates tell from the usual one (`developer`, `function`).
    pub fn under_role(mut self, name: &str) -> Message {
        match name == self.role.name() {
            true => self.fields.remove("role"),
            false => self.fields.insert("role".into(), name.into()),
        };
        self
    }

    /// The name of its role in chat templates.
    pub fn role_name(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or(self.role.name())
    }
}

impl Serialize for Message {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("role", self.role_name())?;
        match self.fields.get("content") {
            None => map.serialize_entry("content", &self.content)?,
            Some(null) => map.serialize_entry("content", null)?,
        }
        for (name, value) in
            self.fields.iter().filter(|(name, _)| !["role", "content"].contains(&name.as_str()))
        {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Message, D::Error> {
        #[derive(Deserialize)]
        struct Whole {
            role: String,
            #[serde(flatten)]
            fields: Map<String, Value>,
        }
        let Whole { role: name, mut fields } = Whole::deserialize(from)?;
        let role = Role::named(&name).ok_or_else(|| {
            serde::de::Error::custom(format!("the role `{name}`; expected system, user, assistant or tool"))
        })?;
        match fields.remove("content") {
            Some(Value::String(content)) => Ok(Message { role, content, fields }.under_role(&name)),
            None | Some(Value::Null) => {
                fields.insert("content".into(), Value::Null);
                Ok(Message { role, content: String::new(), fields }.under_role(&name))
            }
            Some(_) => Err(serde::de::Error::custom("content that is not text")),
        }
    }
}

/// The value of a label. As text, a list is joined by `+`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// One class.
    Text(String),
    /// A level or a measurement.
    Number(f64),
    /// Several classes at once.
    List(Vec<String>),
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Label::Text(text) => f.write_str(text),
            Label::Number(number) => write!(f, "{number}"),
            Label::List(list) => f.write_str(&list.join("+")),
        }
    }
}

impl Label {
    /// Whether it is this value, or a list that contains it.
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Label::List(list) => list.iter().any(|one| one == value),
            one => one.to_string() == value,
        }
    }
}

/// Messages in order, and their labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    /// Identifier, unique in a file if the file has ids.
    pub id: String,
    /// The turns, in order.
    pub messages: Vec<Message>,
    /// Values by label name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Label>,
    /// Further variables of the chat template, by name: `tools`, `documents`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
}

impl Dialogue {
    /// A dialogue of these messages, without labels.
    pub fn new(id: impl Into<String>, messages: Vec<Message>) -> Dialogue {
        Dialogue { id: id.into(), messages, labels: BTreeMap::new(), variables: Map::new() }
    }

    /// A dialogue of one user message, without labels.
    pub fn prompt(id: impl Into<String>, text: impl Into<String>) -> Dialogue {
        Dialogue::new(id, vec![Message::new(Role::User, text)])
    }

    /// The dialogue with a text before its system message, or as one.
    pub fn with_instruction(mut self, text: &str) -> Dialogue {
        match self.messages.first_mut().filter(|first| first.role == Role::System) {
            Some(first) => first.content = format!("{text}\n\n{}", first.content),
            None => self.messages.insert(0, Message::new(Role::System, text)),
        }
        self
    }

    /// Value of a label as text; `None` if the dialogue lacks it. The name `a+b` gives both values joined by `+`, for
    /// instance a category and a level.
    pub fn label(&self, name: &str) -> Option<String> {
        let whole = self.labels.get(name).map(Label::to_string);
        whole.or_else(|| {
            let (first, rest) = name.split_once('+')?;
            Some(format!("{}+{}", self.label(first)?, self.label(rest)?))
        })
    }

    /// All values of a label; `None` if the dialogue lacks it. The name `a+b` gives the values of both, for instance of a
    /// category and a level in a multilabel task.
    pub fn values(&self, name: &str) -> Option<Vec<String>> {
        match self.labels.get(name) {
            Some(Label::List(list)) => Some(list.clone()),
            Some(one) => Some(vec![one.to_string()]),
            None => {
                let (first, rest) = name.split_once('+')?;
                Some([self.values(first)?, self.values(rest)?].concat())
            }
        }
    }

    /// Fingerprint of what a model reads of this dialogue: everything but its id and labels. The first 8 bytes of a SHA-256,
    /// little-endian.
    pub fn fingerprint(&self) -> i64 {
        let bare = Dialogue { id: String::new(), labels: BTreeMap::new(), ..self.clone() };
        // A dialogue holds strings and JSON only, which JSON can write.
        let text = serde_json::to_vec(&bare).unwrap_or_default();
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(&text).into();
        i64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// The user messages joined by newlines: the input of a text baseline.
    pub fn user_text(&self) -> String {
        let contents = self.messages.iter().filter(|m| m.role == Role::User);
        contents.map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_ids_leave_the_fingerprint_as_it_is() {
        let mut dialogue = Dialogue::prompt("one", "hello");
        let first = dialogue.fingerprint();
        dialogue.labels.insert("level".into(), Label::Number(2.0));
        dialogue.id = "two".into();
        assert_eq!(dialogue.fingerprint(), first);
        dialogue.messages[0].role = Role::System;
        assert_ne!(dialogue.fingerprint(), first);
        assert_ne!(Dialogue::prompt("one", "hello ").fingerprint(), first);
    }

    #[test]
    fn a_message_keeps_the_fields_of_its_template() {
        for text in [
            r#"{"role":"assistant","content":"c","reasoning_content":"r"}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]}"#,
            r#"{"role":"user","content":""}"#,
        ] {
            let message: Message = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&message).unwrap(), text);
        }
        assert!(serde_json::from_str::<Message>(r#"{"role":"user","content":[1]}"#).is_err());
    }

    #[test]
    fn two_labels_are_read_as_one() {
        let mut dialogue = Dialogue::prompt("one", "hello");
        dialogue.labels.insert("category".into(), Label::Text("fraud".into()));
        dialogue.labels.insert("level".into(), Label::Number(2.0));
        assert_eq!(dialogue.label("category+level").as_deref(), Some("fraud+2"));
        assert_eq!(dialogue.label("category+else"), None);
        assert_eq!(dialogue.values("category+level").unwrap(), ["fraud", "2"]);
        dialogue.labels.insert("harms".into(), Label::List(vec!["a".into(), "b".into()]));
        assert_eq!(dialogue.values("harms+level").unwrap(), ["a", "b", "2"]);
        assert_eq!((dialogue.values("else"), dialogue.labels["harms"].holds("b")), (None, true));
        // A label whose own name has a plus comes first.
        dialogue.labels.insert("category+level".into(), Label::Text("own".into()));
        assert_eq!(dialogue.label("category+level").as_deref(), Some("own"));
    }
}
