//! Columns of a record that are part of the prompt, and names of what is not text.

use serde_json::{Map, Value};

/// Columns with the text of a system message.
pub(super) const SYSTEM: [&str; 3] = ["system", "system_prompt", "system_message"];

/// Columns with lists that the chat template gets as variables of their name.
pub(super) const LISTS: [&str; 3] = ["tools", "documents", "functions"];

/// The column with further variables of the chat template by name, as in TRL.
pub(super) const ARGUMENTS: &str = "chat_template_kwargs";

/// Columns in which data sets keep a part of the dialogue. A layout reads them, or refuses a record that has them.
pub(super) const PARTS: [&str; 9] =
    ["history", "context", "input", "instruction", "query", "completion", "output", "chosen", "rejected"];

/// Names of what is not text, in a record or a message.
const MEDIA: [&str; 6] = ["image", "images", "video", "videos", "audio", "audios"];

/// Whether a column's value is part of the prompt, so that it is no label.
pub(super) fn is_prompt(column: &str, value: &Value) -> bool {
    match value {
        Value::String(_) if SYSTEM.contains(&column) => true,
        // Text that is no JSON is a label, where other columns are.
        Value::String(text) => {
            let begin = text.trim_start().chars().next();
            (LISTS.contains(&column) && begin == Some('[')) || (column == ARGUMENTS && begin == Some('{'))
        }
        _ => LISTS.contains(&column) || column == ARGUMENTS,
    }
}

/// The name of a field that holds what is not text, and has something in it.
pub(super) fn media(fields: &Map<String, Value>) -> Option<&'static str> {
    MEDIA.into_iter().find(|name| fields.get(*name).is_some_and(|value| !is_empty(value)))
}

/// Whether a value says nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
