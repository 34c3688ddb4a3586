//! Fields of messages and records beside the contents: reasoning, calls of tools, tools, documents.
//!
//! Messages and a template's source in; an error out where the template would drop a field, or where a field has the text of a
//! control token.

use serde_json::{Map, Value};

use super::message_spans::{CALLS, REASONING};
use super::template::Template;
use super::tokenizer::Vocabulary;
use crate::dialogue::{Message, Role};
use crate::error::{Error, Result};

/// Lists of a record that a template writes, or drops.
const LISTS: [&str; 3] = ["tools", "documents", "functions"];

/// Text in place of a message's name, to see whether it is written.
const STAND_IN: &str = "pearlpoint-name-";

/// A rendering of messages with variables.
type Render<'a> = dyn Fn(&[Message], &Map<String, Value>) -> Result<String> + 'a;

/// What is checked, and against what.
pub(super) struct Fields<'a> {
    pub vocabulary: &'a Vocabulary,
    pub template: Option<&'a Template>,
    pub messages: &'a [Message],
    pub variables: &'a Map<String, Value>,
    /// The command's own `enable_thinking`.
    pub thinking: Option<bool>,
}

impl Fields<'_> {
    /// Refuses what the chat template doesn't write, and control tokens in what it writes beside the contents.
    pub fn check(&self, render: &Render) -> Result<()> {
        for (turn, message) in self.messages.iter().enumerate() {
            for name in REASONING.iter().chain(&CALLS) {
                match message.fields.get(*name) {
                    // Located in the text, as contents are, so that it holds no control token.
                    Some(Value::String(text))
                        if message.fields.get(REASONING[0]).is_some_and(|copy| copy == text) =>
                    {
                        let is_text = !text.trim().is_empty();
                        let value = if is_text { true.into() } else { Value::Null };
                        self.check_field(format!("message {turn}"), name, &value)?;
                    }
                    Some(value) => self.check_field(format!("message {turn}"), name, value)?,
                    None => {}
                }
            }
        }
        self.check_names(render)?;
        self.variables.iter().try_for_each(|(name, value)| self.check_variable(name, value, render))
    }

    fn check_field(&self, place: String, name: &str, value: &Value) -> Result<()> {
        if is_empty(value) {
            return Ok(());
        }
        let source = self.template.map(Template::source).unwrap_or_default();
        let reads = |name: &str| {
            let ways = [format!(".{name}"), format!("'{name}'"), format!("\"{name}\"")];
            ways.iter().any(|way| source.contains(way))
        };
        let is_read = match REASONING.contains(&name) {
            true => REASONING.into_iter().any(reads),
            false => reads(name),
        };
        if is_read { self.check_control(place, name, value) } else { Err(dropped(place, name)) }
    }

    fn check_control(&self, place: String, name: &str, value: &Value) -> Result<()> {
        match self.vocabulary.control_in(&value.to_string()) {
            Some(token) => {
                let found = format!("the control token {token} in `{name}`");
                Err(Error::input(place, found, "text without control tokens there"))
            }
            None => Ok(()),
        }
    }

    /// Refuses a variable that the template doesn't read, and a list that it reads and doesn't write.
    fn check_variable(&self, name: &str, value: &Value, render: &Render) -> Result<()> {
        let place = || "record".to_owned();
        if name == "enable_thinking"
            && let (Some(asked), Some(told)) = (value.as_bool(), self.thinking)
            && asked != told
        {
            let expected = "the record's own, or a command without --no-think";
            return Err(Error::input(place(), format!("`{name}` {asked} under {told}"), expected));
        }
        if is_empty(value) {
            return Ok(());
        }
        if !self.template.is_some_and(|template| template.reads(name)) {
            return Err(dropped(place(), name));
        }
        if LISTS.contains(&name) {
            let mut without = self.variables.clone();
            without.remove(name);
            // What the template refuses is said when it is rendered.
            if let (Ok(with), Ok(without)) =
                (render(self.messages, self.variables), render(self.messages, &without))
                && with == without
            {
                return Err(dropped(place(), name));
            }
        }
        self.check_control(place(), name, value)
    }

    /// Refuses the `name` of a speaker that the template doesn't write. In a result of a tool, the call before it has the name.
    fn check_names(&self, render: &Render) -> Result<()> {
        let has_name = |message: &Message| {
            message.role != Role::Tool && message.fields.get("name").is_some_and(|name| !is_empty(name))
        };
        if !self.messages.iter().any(has_name) {
            return Ok(());
        }
        let mut renamed = self.messages.to_vec();
        let stand_in = |turn: usize| format!("{STAND_IN}{turn}-");
        for (turn, message) in renamed.iter_mut().enumerate().filter(|(_, message)| has_name(message)) {
            message.fields.insert("name".into(), stand_in(turn).into());
        }
        let text = match self.template {
            Some(_) => render(&renamed, self.variables),
            None => Ok(String::new()),
        };
        // What the template refuses is said when it is rendered.
        let Ok(text) = text else { return Ok(()) };
        for (turn, message) in self.messages.iter().enumerate().filter(|(_, message)| has_name(message)) {
            let place = format!("message {turn}");
            if !text.contains(&stand_in(turn)) {
                return Err(dropped(place, "name"));
            }
            self.check_control(place, "name", &message.fields["name"])?;
        }
        Ok(())
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn dropped(place: String, name: &str) -> Error {
    let found = format!("`{name}`, which the chat template does not write");
    Error::input(place, found, format!("no `{name}`, or a template that writes it"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::Chat;
    use super::super::tests::{EOS, bytes_chat, fixture};
    use super::*;
    use crate::dialogue::Dialogue;
    use crate::model::token::Phase;
    use Role::{Assistant as A, User as U};

    #[derive(Deserialize)]
    struct FieldCase {
        messages: Vec<Message>,
        #[serde(default)]
        tools: Option<Value>,
        #[serde(default)]
        documents: Option<Value>,
        /// The tokens of the thinking part, as text.
        #[serde(default)]
        think: String,
        text: String,
        ids: Option<Vec<u32>>,
    }

    #[test]
    fn reasoning_calls_tools_and_documents_are_rendered_as_transformers_renders_them() {
        let chat =
            Chat::from_bytes(fixture("tokenizer.json").as_bytes(), Some(&fixture("fields/tools.jinja")), EOS)
                .unwrap();
        for case in serde_json::from_str::<Vec<FieldCase>>(&fixture("fields/cases.json")).unwrap() {
            let mut dialogue = Dialogue::new("d", case.messages);
            for (name, value) in [("tools", case.tools), ("documents", case.documents)] {
                dialogue.variables.extend(value.map(|value| (name.to_owned(), value)));
            }
            let tokens =
                chat.tokens(&dialogue, 0, None).unwrap_or_else(|error| panic!("{error}: {}", case.text));
            let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            assert_eq!(chat.decode(&ids, false).unwrap(), case.text);
            assert!(case.ids.is_none_or(|expected| expected == ids), "{}", case.text);
            let thoughts: Vec<u32> =
                tokens.iter().filter(|token| token.phase == Phase::Think).map(|token| token.id).collect();
            assert_eq!(chat.decode(&thoughts, false).unwrap(), case.think, "{}", case.text);
        }
    }

    #[test]
    fn what_the_template_does_not_write_is_refused_by_name() {
        let message = |fields: Value| {
            let Value::Object(fields) = fields else { panic!("{fields}") };
            Message { fields, ..Message::new(A, "a") }
        };
        let plain = bytes_chat("opened");
        let tools =
            Chat::from_bytes(fixture("tokenizer.json").as_bytes(), Some(&fixture("fields/tools.jinja")), EOS)
                .unwrap();
        let refused = |chat: &Chat, message: Message, variables: Value| {
            let Value::Object(variables) = variables else { panic!("{variables}") };
            let user = Message::new(U, "q");
            let dialogue = Dialogue { variables, ..Dialogue::new("d", vec![user, message]) };
            chat.tokens(&dialogue, 0, None).unwrap_err().to_string()
        };
        let none = || serde_json::json!({});
        for (fields, expected) in [
            (serde_json::json!({"reasoning_content": "r"}), "message 1: `reasoning_content`"),
            (serde_json::json!({"thinking": "r"}), "message 1: `reasoning_content`"),
            (serde_json::json!({"tool_calls": [{"function": {"name": "f"}}]}), "message 1: `tool_calls`"),
        ] {
            let error = refused(&plain, message(fields), none());
            assert!(error.contains(expected) && error.contains("does not write"), "{error}");
        }
        let error = refused(&plain, message(none()), serde_json::json!({"tools": [{"a": 1}]}));
        assert!(error.contains("record: `tools`, which the chat template does not write"), "{error}");
        let calls =
            serde_json::json!({"tool_calls": [{"function": {"name": "f", "arguments": "<|im_end|>"}}]});
        let error = refused(&tools, message(calls), none());
        assert!(error.contains("the control token <|im_end|> in `tool_calls`"), "{error}");
        // Nothing is refused for being there and empty.
        let empty = serde_json::json!({"reasoning_content": "", "tool_calls": null, "name": ""});
        let dialogue = Dialogue::new("d", vec![Message::new(U, "q"), message(empty)]);
        assert!(plain.tokens(&dialogue, 0, None).is_ok());
    }
}
