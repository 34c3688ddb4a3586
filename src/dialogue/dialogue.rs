//! One labelled dialogue, as every reader gives it and every later stage takes it.
//! It knows nothing of files, tokens or models.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who speaks in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    /// The name that chat templates use.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into() }
    }
}

/// A label's value: a string, a number, or a list of strings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    Text(String),
    Number(f64),
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
    /// Whether it is this value, or a list that has it.
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Label::List(list) => list.iter().any(|one| one == value),
            one => one.to_string() == value,
        }
    }
}

/// Messages in order, and what is known of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    pub id: String,
    pub messages: Vec<Message>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Label>,
}

impl Dialogue {
    /// A dialogue of one user message, without labels.
    pub fn prompt(id: impl Into<String>, text: impl Into<String>) -> Dialogue {
        Dialogue { id: id.into(), messages: vec![Message::new(Role::User, text)], labels: BTreeMap::new() }
    }

    /// The label's value as text, if the dialogue has it. `a+b` is both values, joined by a plus: a category and a level,
    /// say.
    pub fn label(&self, name: &str) -> Option<String> {
        let whole = self.labels.get(name).map(Label::to_string);
        whole.or_else(|| {
            let (first, rest) = name.split_once('+')?;
            Some(format!("{}+{}", self.label(first)?, self.label(rest)?))
        })
    }

    /// All values of a label that may be a list, if the dialogue has it. `a+b` is the values of both: a category and a level
    /// that do not exclude one another, say.
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

    /// What the user said, messages joined by newlines: what a text baseline sees.
    pub fn user_text(&self) -> String {
        let said = self.messages.iter().filter(|m| m.role == Role::User);
        said.map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
