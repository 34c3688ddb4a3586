//! Fields of a record beside its messages that change what a model reads: a system prompt, tools, arguments of the chat template.
//!
//! A record's columns and a dialogue in; the dialogue with what they say out, or an error that names the column. None is dropped.

use serde_json::Value;

use super::dialogue::{Dialogue, Message, Role};
use super::prompt_columns::{ARGUMENTS, LISTS, SYSTEM, is_empty, is_prompt, media};
use super::raw_record::{Fields, type_name};
use crate::error::Result;

/// Columns that are variables of the chat template by themselves.
const SCALARS: [&str; 2] = ["enable_thinking", "reasoning_effort"];

/// Arguments of transformers' `apply_chat_template` that are not variables of the template.
const NO_VARIABLES: [&str; 12] = [
    "conversation",
    "messages",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
];

impl Fields<'_> {
    /// Adds what the record says of the prompt beside the messages. `from_list` is the column of a list of messages, if they
    /// were read from one; then what stands beside it must agree with it.
    ///
    /// # Errors
    /// A column that says otherwise than the messages; one that can't be part of a prompt.
    pub fn with_prompt_fields(&self, dialogue: Dialogue, from_list: Option<&str>) -> Result<Dialogue> {
        let dialogue = self.with_system(dialogue, from_list.is_some())?;
        let dialogue = self.with_variables(dialogue, from_list.is_some())?;
        if let Some(list) = from_list {
            self.check_texts(&dialogue, list)?;
        }
        self.check_rendering(&dialogue, from_list.is_some())?;
        Ok(dialogue)
    }

    fn with_system(&self, mut dialogue: Dialogue, is_chat: bool) -> Result<Dialogue> {
        for column in SYSTEM {
            let text = match self.columns.get(column) {
                // A number is a label, where other columns are.
                Some(Value::String(_) | Value::Array(_) | Value::Object(_)) => self.optional_text(column)?,
                Some(_) if is_chat => self.optional_text(column)?,
                _ => None,
            };
            let Some(text) = text else { continue };
            match dialogue.messages.first().filter(|first| first.role == Role::System) {
                None => dialogue.messages.insert(0, Message::new(Role::System, text)),
                Some(first) if first.content.trim() == text.trim() => {}
                Some(_) => {
                    let found = format!("`{column}` beside another system message");
                    return Err(self.wrong(found, "one system message"));
                }
            }
        }
        Ok(dialogue)
    }

    /// Refuses texts that a reader takes for a part of the dialogue, and that the messages of `list` lack.
    fn check_texts(&self, dialogue: &Dialogue, list: &str) -> Result<()> {
        for (column, role, what) in
            [("prompt", Role::User, "user message"), ("response", Role::Assistant, "answer")]
        {
            let has_text = match self.columns.get(column) {
                Some(Value::String(text)) => {
                    let mut messages = dialogue.messages.iter().filter(|message| message.role == role);
                    messages.any(|message| message.content.trim() == text.trim())
                }
                Some(Value::Array(_) | Value::Object(_)) => false,
                _ => true,
            };
            if !has_text && self.columns.get(column).is_some_and(|value| !is_empty(value)) {
                let found = format!("`{column}` beside `{list}`, which has no such {what}");
                return Err(self.wrong(found, "one of the two"));
            }
        }
        for other in ["messages", "conversations"] {
            let has_other = other != list && self.columns.get(other).is_some_and(|value| !is_empty(value));
            if has_other && self.messages(other)? != self.messages(list)? {
                return Err(self.wrong(format!("`{other}` beside `{list}`"), "one list of messages"));
            }
        }
        Ok(())
    }

    /// Adds the variables of the chat template: lists (or JSON in text), and arguments by name. Beside messages of a list
    /// (`is_chat`) text that is no such JSON is an error, elsewhere a label.
    ///
    /// # Errors
    /// Values of other types; an argument that is no variable, or that is there twice.
    pub fn with_variables(&self, mut dialogue: Dialogue, is_chat: bool) -> Result<Dialogue> {
        let parsed = |name: &str| match self.columns.get(name) {
            // Templates tell no tools from an empty list of them.
            Some(value) if is_empty(value) && !value.is_boolean() && !(is_chat && name == "tools") => None,
            Some(value @ Value::String(_)) if !is_chat && !is_prompt(name, value) => None,
            // In a table every cell is text.
            Some(Value::String(text)) if !SCALARS.contains(&name) => {
                Some(serde_json::from_str(text).unwrap_or(Value::Null))
            }
            Some(Value::String(text)) if name == SCALARS[0] => Some(match text.trim() {
                "true" | "True" => true.into(),
                "false" | "False" => false.into(),
                _ => Value::Null,
            }),
            value => value.cloned(),
        };
        let wrong = |name: &str, expected: &str| {
            self.wrong(
                format!("{} in `{name}`", self.columns.get(name).map_or("nothing", type_name)),
                expected,
            )
        };
        for name in LISTS {
            match parsed(name) {
                None => {}
                Some(list @ Value::Array(_)) => {
                    dialogue.variables.insert(name.into(), list);
                }
                Some(_) => return Err(wrong(name, "a list of objects")),
            }
        }
        for name in SCALARS.into_iter().filter(|_| is_chat) {
            match parsed(name) {
                None => {}
                Some(value @ (Value::Bool(_) | Value::String(_)))
                    if value.is_boolean() == (name == SCALARS[0]) =>
                {
                    dialogue.variables.insert(name.into(), value);
                }
                Some(_) => {
                    return Err(wrong(name, if name == SCALARS[0] { "true or false" } else { "text" }));
                }
            }
        }
        let arguments = match parsed(ARGUMENTS) {
            None => return Ok(dialogue),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(wrong(ARGUMENTS, "an object of the chat template's variables")),
        };
        for (name, value) in arguments {
            if NO_VARIABLES.contains(&name.as_str()) {
                let expected = "variables of the chat template, such as enable_thinking";
                return Err(self.wrong(format!("`{name}` in `{ARGUMENTS}`"), expected));
            }
            if dialogue.variables.get(&name).is_some_and(|other| *other != value) {
                let found = format!("`{name}` in `{ARGUMENTS}` beside another `{name}`");
                return Err(self.wrong(found, "one of the two"));
            }
            dialogue.variables.insert(name, value);
        }
        Ok(dialogue)
    }

    /// Refuses what says how the messages are rendered, where that is otherwise than they are.
    fn check_rendering(&self, dialogue: &Dialogue, is_chat: bool) -> Result<()> {
        if let Some(name) = media(self.columns)
            && (is_chat || !self.columns[name].is_string())
        {
            return Err(self.wrong(format!("{} in `{name}`", type_name(&self.columns[name])), "text alone"));
        }
        if !is_chat {
            return Ok(());
        }
        if self.columns.get("chat_template").is_some_and(|value| !is_empty(value)) {
            return Err(
                self.wrong("a template in `chat_template`", "none in a record, and --chat-template FILE")
            );
        }
        let is_open = dialogue.messages.last().is_some_and(|last| last.role != Role::Assistant);
        for (name, ours) in [("add_generation_prompt", is_open), ("continue_final_message", false)] {
            if self.columns.get(name).and_then(Value::as_bool).is_some_and(|asked| asked != ours) {
                let expected = "a generation prompt where the last message is no answer, and none after one";
                return Err(self.wrong(format!("`{name}` {}", !ours), expected));
            }
        }
        Ok(())
    }
}
