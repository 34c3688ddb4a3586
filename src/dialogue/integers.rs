//! Integers beyond 64 bits, such as long ids: kept as they are written, as text.
//!
//! The JSON parser would round them to a double, so that two ids become one. They are marked in the source before it is parsed,
//! and unmarked in the columns afterwards.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::raw_record::Place;
use crate::error::{Error, Result};

/// Begins a string that stands for an integer: a noncharacter of Unicode.
const MARK: char = '\u{fdd0}';

/// Fewest digits of an integer that 64 bits can't hold.
const MIN_DIGITS: usize = 19;

/// The source with every integer beyond 64 bits as a marked string.
pub(super) fn marked(source: &str) -> Cow<'_, str> {
    let bytes = source.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at, mut quoted) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'-' | b'0'..=b'9' if !quoted => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let length = bytes[at..].iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len() - at);
                let number = &source[at..at + length];
                if is_long(number) {
                    out.push_str(&source[copied..at]);
                    out.extend(['"', MARK]);
                    out.push_str(number);
                    out.push('"');
                    copied = at + length;
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(source);
    }
    out.push_str(&source[copied..]);
    Cow::Owned(out)
}

/// Whether this is an integer of JSON that 64 bits can't hold.
fn is_long(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() >= MIN_DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
        && number.parse::<u64>().is_err()
        && number.parse::<i64>().is_err()
}

/// Turns marked strings into texts of their digits.
///
/// # Errors
/// One in a list of objects or in `chat_template_kwargs`, which a chat template would write in quotes.
pub(super) fn unmark(columns: &mut Map<String, Value>, place: &Place) -> Result<()> {
    for (name, value) in columns {
        let is_plain = match value {
            Value::Array(list) => !list.iter().any(Value::is_object),
            _ => name != "chat_template_kwargs",
        };
        let found = unmark_value(value);
        if let Some(number) = found.filter(|_| !is_plain) {
            let found = format!("the integer {number} in `{name}`");
            return Err(Error::input(place, found, "one of 64 bits, or text in quotes"));
        }
    }
    Ok(())
}

/// Unmarks a value; gives an integer that was in it.
fn unmark_value(value: &mut Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let number = text.strip_prefix(MARK).filter(|number| is_long(number))?.to_owned();
            text.clone_from(&number);
            Some(number)
        }
        Value::Array(list) => list.iter_mut().filter_map(unmark_value).last(),
        Value::Object(fields) => fields.values_mut().filter_map(unmark_value).last(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_that_64_bits_can_not_hold_are_marked() {
        let long = "12345678901234567890123";
        for text in [
            "18446744073709551615",
            "-9223372036854775808",
            "1234567890123456789012.5",
            "12345678901234567890123e1",
            "01234567890123456789012",
            &format!(r#"{{"a":"{long}","b\\\"":"\\\"{long}"}}"#),
        ] {
            assert_eq!(marked(text), *text);
        }
        let text = format!(r#"{{"a":{long},"b":[-{long}, 1]}}"#);
        assert_eq!(marked(&text), format!("{{\"a\":\"{MARK}{long}\",\"b\":[\"{MARK}-{long}\", 1]}}"));
    }
}
