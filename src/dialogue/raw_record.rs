//! Raw records: named JSON values as a file holds them, and typed access to their columns.

use std::path::PathBuf;

use serde_json::{Map, Number, Value};

use super::dialogue::{Dialogue, Label, Message, Role};
use super::prompt_columns::{PARTS, is_empty, is_prompt, media};
use crate::error::{Error, Result};

/// Messages of a dialogue, at most: a chat template takes seconds for more.
const MOST_MESSAGES: usize = 100_000;

/// The widest table accepted.
pub(super) const MAX_COLUMNS: usize = 10_000;

/// Column names that an error lists.
const SHOWN_COLUMNS: usize = 12;

/// The place of a record, for errors: `FILE:LINE`, and the number of a list's element.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub path: PathBuf,
    /// The line that the record begins on, from 1.
    pub line: u64,
    /// Its number in a list, from 1.
    pub element: Option<u64>,
}

impl Place {
    /// The place some lines below.
    pub fn below(&self, lines: usize) -> Place {
        Place { line: self.line + lines as u64, ..self.clone() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)?;
        self.element.map_or(Ok(()), |element| write!(f, " (element {element})"))
    }
}

/// One record of a file, before its layout is known.
pub(super) struct RawRecord {
    pub place: Place,
    pub columns: Map<String, Value>,
}

/// The records of a file. After an [`Error::Input`], which concerns one record, iteration continues; any other error is the
/// last item.
pub(super) type Records = Box<dyn Iterator<Item = Result<RawRecord>>>;

/// Type of a JSON value, for errors.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Typed access to the columns of one record.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub columns: &'a Map<String, Value>,
    /// The record's index in the file: its id if no column holds one.
    pub index: usize,
    /// File and line, for errors.
    pub place: &'a Place,
}

impl Fields<'_> {
    /// An error about this record.
    pub fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input(self.place, found, expected)
    }

    /// Whether the record has all of these columns.
    pub fn has(&self, columns: &[&str]) -> bool {
        columns.iter().all(|column| self.columns.contains_key(*column))
    }

    /// The names of the columns, abbreviated, for errors.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = self.columns.keys().take(SHOWN_COLUMNS).map(String::as_str).collect();
        if self.columns.len() > names.len() {
            names.push("…");
        }
        names.join(", ")
    }

    /// The value of a column.
    pub fn value(&self, column: &str) -> Result<&Value> {
        self.columns.get(column).ok_or_else(|| {
            let expected = format!("one of the columns {}", self.names());
            self.wrong(format!("no column `{column}`"), expected)
        })
    }

    /// The text of a column.
    pub fn text(&self, column: &str) -> Result<&str> {
        match self.value(column)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(format!("{} in `{column}`", type_name(other)), "text")),
        }
    }

    /// The text of a column that may be missing, null or empty.
    pub fn optional_text(&self, column: &str) -> Result<Option<&str>> {
        match self.columns.get(column) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => Ok(Some(self.text(column)?).filter(|text| !text.is_empty())),
        }
    }

    /// A user message with the text of a column, which may not be empty.
    pub fn user_message(&self, column: &str) -> Result<Message> {
        match self.text(column)? {
            "" => Err(self.wrong(format!("empty text in `{column}`"), "a prompt")),
            text => Ok(Message::new(Role::User, text)),
        }
    }

    /// The messages in a column: a list of `{"role", "content"}`, or of `{"from", "value"}`.
    pub fn messages(&self, column: &str) -> Result<Vec<Message>> {
        let list = match self.value(column)? {
            Value::Array(list) => list,
            other => {
                let expected = "a list of {\"role\", \"content\"}";
                return Err(self.wrong(format!("{} in `{column}`", type_name(other)), expected));
            }
        };
        if list.is_empty() {
            return Err(self.wrong(format!("no message in `{column}`"), "at least one"));
        }
        if list.len() > MOST_MESSAGES {
            let found = format!("{} messages in `{column}`", list.len());
            return Err(self.wrong(found, "at most 100,000"));
        }
        list.iter().enumerate().map(|(turn, message)| self.message(column, turn, message)).collect()
    }

    fn message(&self, column: &str, turn: usize, message: &Value) -> Result<Message> {
        // A message without a text of its own may have other content, such as a call of a tool.
        let calls = ["tool_calls", "function_call"]
            .iter()
            .any(|name| message.get(name).is_some_and(|call| !call.is_null()));
        let text = |names: [&str; 2]| match names.iter().find_map(|name| message.get(name)) {
            Some(Value::String(text)) => Ok(text.as_str()),
            None | Some(Value::Null) if calls && names[0] == "content" => Ok(""),
            other => {
                let found = other.map_or("nothing", type_name);
                let found = format!("{found} as the {} of message {turn} in `{column}`", names[0]);
                Err(self.wrong(found, "{\"role\": text, \"content\": text}"))
            }
        };
        let name = text(["role", "from"])?;
        let is_chat = message.get("role").is_some();
        let name = match name {
            "human" | "prompter" => "user",
            "gpt" | "chatgpt" | "bing" | "bard" | "model" => "assistant",
            // ShareGPT's own names for what chat templates call tool.
            "observation" | "ipython" if !is_chat => "tool",
            name => name,
        };
        let Some(role) = Role::named(name) else {
            let found = format!("role `{name}` of message {turn} in `{column}`");
            let expected = "system (developer), user (human), assistant (gpt) or tool (function)";
            return Err(self.wrong(found, expected));
        };
        let mut read = Message::new(role, text(["content", "value"])?).under_role(name);
        let known = ["role", "from", "value"];
        let others = message.as_object();
        if let Some(name) = others.and_then(media) {
            return Err(self.wrong(format!("`{name}` in message {turn} of `{column}`"), "text alone"));
        }
        for (name, value) in others.into_iter().flatten() {
            let is_text = name == "content" && !value.is_null();
            if !is_text && !known.contains(&name.as_str()) {
                read.fields.insert(name.clone(), value.clone());
            }
        }
        Ok(read)
    }

    /// The earlier rounds in `history`: pairs of a question and its answer, or messages. None where it is missing or empty.
    pub fn history(&self) -> Result<Vec<Message>> {
        let list = match self.columns.get("history") {
            None => return Ok(Vec::new()),
            Some(value) if is_empty(value) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(other) => {
                let expected = "pairs [[\"question\", \"answer\"], …]";
                return Err(self.wrong(format!("{} in `history`", type_name(other)), expected));
            }
        };
        if list.iter().all(Value::is_object) {
            return self.messages("history");
        }
        let mut messages = Vec::with_capacity(2 * list.len());
        for (round, pair) in list.iter().enumerate() {
            match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(question), Value::String(answer)]) => {
                    messages.push(Message::new(Role::User, question.as_str()));
                    messages.push(Message::new(Role::Assistant, answer.as_str()));
                }
                _ => {
                    let found = format!("{} as round {round} in `history`", type_name(pair));
                    return Err(self.wrong(found, "a pair [\"question\", \"answer\"]"));
                }
            }
        }
        match messages.len() {
            count if count > MOST_MESSAGES => {
                Err(self.wrong(format!("{count} messages in `history`"), "at most 100,000"))
            }
            _ => Ok(messages),
        }
    }

    /// Refuses columns that hold parts of a dialogue and that are not among `read`.
    pub fn check_parts(&self, read: &[&str]) -> Result<()> {
        let holds = |value: &Value| !is_empty(value) && !value.is_number() && !value.is_boolean();
        let is_unread = |name: &&str| !read.contains(name) && self.columns.get(*name).is_some_and(holds);
        let unread: Vec<String> =
            PARTS.into_iter().filter(is_unread).map(|name| format!("`{name}`")).collect();
        match unread.is_empty() {
            true => Ok(()),
            false => {
                let expected =
                    "--map with prompt=COLUMN, response=COLUMN, label.NAME=COLUMN for those that count";
                Err(self.wrong(format!("{}, which this layout doesn't read", unread.join(", ")), expected))
            }
        }
    }

    /// Adds the labels in `labels`, or where there is no such column one for each but `used`.
    pub fn with_labels(&self, dialogue: Dialogue, used: &[&str]) -> Result<Dialogue> {
        match self.has(&["labels"]) {
            true => self.with_label_object(dialogue),
            false => Ok(self.with_other_labels(dialogue, used)),
        }
    }

    /// A dialogue without labels. Its id is in the first of `id_columns` that holds one; otherwise it is the record's index.
    ///
    /// # Errors
    /// An id that is neither text nor a number.
    pub fn dialogue(&self, id_columns: &[&str], messages: Vec<Message>) -> Result<Dialogue> {
        for column in id_columns {
            let id = match self.columns.get(*column) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) if text.is_empty() => continue,
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                Some(other) => {
                    return Err(self.wrong(format!("{} in `{column}`", type_name(other)), "text or a number"));
                }
            };
            return Ok(Dialogue::new(id, messages));
        }
        Ok(Dialogue::new(self.index.to_string(), messages))
    }

    /// Adds the labels of the object in `labels`, if there is one.
    pub fn with_label_object(&self, mut dialogue: Dialogue) -> Result<Dialogue> {
        let labels = match self.columns.get("labels") {
            None | Some(Value::Null) => return Ok(dialogue),
            Some(Value::Object(labels)) => labels,
            Some(other) => {
                return Err(self.wrong(format!("{} in `labels`", type_name(other)), "{NAME: VALUE, …}"));
            }
        };
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_null()) {
            let label = label(value).or_else(|| value.as_str().map(|text| Label::Text(text.into())));
            let label = label.ok_or_else(|| {
                let expected = "text, a number or a list of those";
                self.wrong(format!("{} in the label `{name}`", type_name(value)), expected)
            })?;
            dialogue.labels.insert(name.clone(), label);
        }
        Ok(dialogue)
    }

    /// Adds a label for each column except `used`, if its value can be one.
    pub fn with_other_labels(&self, mut dialogue: Dialogue, used: &[&str]) -> Dialogue {
        let is_other =
            |(name, value): &(&String, &Value)| !used.contains(&name.as_str()) && !is_prompt(name, value);
        let others = self.columns.iter().filter(is_other);
        let labels = others.filter_map(|(name, value)| Some((name.clone(), label(value)?)));
        dialogue.labels.extend(labels);
        dialogue
    }
}

/// The label in a cell: text, a number, a boolean, or a list of those. An empty cell has none.
pub(super) fn label(value: &Value) -> Option<Label> {
    let scalar = |value: &Value| match value {
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::Number(number) => match number.as_f64().filter(|_| is_exact(number)) {
            Some(value) => Some(Label::Number(value)),
            None => Some(Label::Text(number.to_string())),
        },
        Value::Array(list) => list.iter().map(scalar).collect::<Option<_>>().map(Label::List),
        other => scalar(other).map(Label::Text),
    }
}

/// Whether a double holds the number: an integer beyond 2^53, an id say, would become its neighbour.
fn is_exact(number: &Number) -> bool {
    const LARGEST: u64 = 1 << 53;
    match (number.as_u64(), number.as_i64()) {
        (Some(value), _) => value <= LARGEST,
        (_, Some(value)) => value.unsigned_abs() <= LARGEST,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_a_double_can_not_hold_stays_as_written() {
        let shown = |text: &str| label(&serde_json::from_str(text).unwrap()).unwrap().to_string();
        for text in ["9007199254740993", "18446744073709551615", "-9007199254740993", "7", "-2", "0.1"] {
            assert_eq!(shown(text), text);
        }
    }
}
