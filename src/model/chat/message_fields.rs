//! Fields of messages and records beside the contents: reasoning, calls of tools, tools, documents.
//!
//! Messages and a template's source in; an error out where the template would drop a field, or where a field has the text of a
//! control token.

use serde_json::{Map, Value};

use super::message_spans::{CALLS, REASONING};
use super::tokenizer::Vocabulary;
use crate::dialogue::Message;
use crate::error::{Error, Result};

/// Refuses what the chat template doesn't write, and control tokens in what it writes beside the contents.
pub(super) fn check(
    vocabulary: &Vocabulary,
    source: &str,
    messages: &[Message],
    variables: &Map<String, Value>,
) -> Result<()> {
    let check = |place: String, name: &str, value: &Value| {
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.trim().is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if is_empty {
            return Ok(());
        }
        let reads = |name: &str| {
            let ways = [format!(".{name}"), format!("'{name}'"), format!("\"{name}\"")];
            ways.iter().any(|way| source.contains(way))
        };
        let is_read = match REASONING.contains(&name) {
            true => REASONING.into_iter().any(reads),
            false => reads(name) || (place == "record" && source.contains(name)),
        };
        if !is_read {
            let found = format!("`{name}`, which the chat template does not write");
            return Err(Error::input(place, found, format!("no `{name}`, or a template that writes it")));
        }
        match vocabulary.control_in(&value.to_string()) {
            Some(token) => {
                let found = format!("the control token {token} in `{name}`");
                Err(Error::input(place, found, "text without control tokens there"))
            }
            None => Ok(()),
        }
    };
    for (turn, message) in messages.iter().enumerate() {
        for name in REASONING.iter().chain(&CALLS) {
            match message.fields.get(*name) {
                // Located in the text, as contents are, so that it holds no control token.
                Some(Value::String(text))
                    if message.fields.get(REASONING[0]).is_some_and(|copy| copy == text) =>
                {
                    let is_text = !text.trim().is_empty();
                    check(format!("message {turn}"), name, &if is_text { true.into() } else { Value::Null })?;
                }
                Some(value) => check(format!("message {turn}"), name, value)?,
                None => {}
            }
        }
    }
    variables.iter().try_for_each(|(name, value)| check("record".into(), name, value))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::Chat;
    use super::super::tests::{EOS, bytes_chat, fixture};
    use super::*;
    use crate::dialogue::{Dialogue, Role};
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
        let empty = serde_json::json!({"reasoning_content": "", "tool_calls": null, "name": "x"});
        let dialogue = Dialogue::new("d", vec![Message::new(U, "q"), message(empty)]);
        assert!(plain.tokens(&dialogue, 0, None).is_ok());
    }
}
