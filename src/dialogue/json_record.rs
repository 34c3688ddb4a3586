//! A record as JSON: the bytes of one value in, its columns out, with an error that says what JSON does not have.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::integers;
use super::raw_record::{Place, type_name};
use crate::artifact::check_values;
use crate::error::{Error, Result};

/// Values of a record, at most.
const MOST_VALUES: usize = 1_000_000;

/// The columns of a record, which begins at `place`.
///
/// # Errors
/// Bytes that are not UTF-8, that are no JSON, or no object; a key twice in one object.
pub(super) fn parse(bytes: &[u8], place: &Place) -> Result<Map<String, Value>> {
    check_values(bytes, MOST_VALUES)
        .map_err(|found| Error::input(place, found, "a record of a usual size"))?;
    let object = "an object, such as {\"id\": …, \"messages\": […], \"labels\": {…}}";
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let found = format!("bytes that are not UTF-8 after column {}", error.valid_up_to());
        Error::input(place, found, "UTF-8 text")
    })?;
    // Where a record ends too early, that is on its own last line.
    let text = text.trim_ascii_end();
    let marked = integers::marked(text);
    let mut parsed = serde_json::from_str(&marked);
    if let (Err(_), Cow::Owned(_)) = (&parsed, &marked) {
        // For an error's column, which marks move.
        parsed = serde_json::from_str(text);
    }
    match parsed {
        Ok(Unique(Value::Object(mut columns))) => {
            if let Cow::Owned(_) = marked {
                integers::unmark(&mut columns, place)?;
            }
            Ok(columns)
        }
        Ok(Unique(other)) => Err(Error::input(place, type_name(&other), object)),
        Err(error) => {
            let message = error.to_string();
            // The parser counts lines within this record.
            let message = message.split(" at line ").next().unwrap_or_default();
            let (line, column) = (error.line(), error.column());
            let place = place.below(line.saturating_sub(1));
            let row = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default();
            let word = no_number(row, column);
            let in_element = if place.element.is_some() && line < 2 { " of the element" } else { "" };
            let column = format!("{column}{in_element}");
            if let Some(word) = word {
                let found = format!("{word} at column {column}, which JSON does not have");
                return Err(Error::input(place, found, "null or a finite number"));
            }
            if message.contains("surrogate") || message.contains("hex escape") {
                let found =
                    format!("half of a surrogate pair as \\u escape before column {column} ({message})");
                return Err(Error::input(
                    place,
                    found,
                    "both halves, \\ud83d\\ude00, or the character itself",
                ));
            }
            if message.contains("number out of range") {
                return Err(Error::input(
                    place,
                    format!("a {message} at column {column}"),
                    "a finite number",
                ));
            }
            if message.starts_with(TWICE) {
                return Err(Error::input(place, message, "each key once in an object"));
            }
            if message.contains("trailing characters") {
                let found = format!("a value at column {column}, after the record's end");
                return Err(Error::input(place, found, "one object a line, or a list [{…}, {…}]"));
            }
            Err(Error::input(place, format!("invalid JSON at column {column} ({message})"), object))
        }
    }
}

/// The word of Python's or JavaScript's JSON at an error's column (from 1) that is no number in JSON.
fn no_number(row: &str, column: usize) -> Option<&'static str> {
    let words = ["-Infinity", "Infinity", "NaN", "-inf", "inf", "nan"];
    let before = row.as_bytes().get(..column)?;
    // The parser stops at a word's first letters.
    let begin =
        before.iter().rposition(|&byte| !(byte.is_ascii_alphabetic() || byte == b'-')).map_or(0, |at| at + 1);
    words.into_iter().find(|word| row.as_bytes()[begin..].starts_with(word.as_bytes()))
}

/// Start of the message about a key that an object has twice.
const TWICE: &str = "the key ";

/// A JSON value in which no object has a key twice: a reader would drop one of the two.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Unique, D::Error> {
        from.deserialize_any(Reader).map(Unique)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> std::result::Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> std::result::Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> std::result::Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            if values.contains_key(&key) {
                return Err(A::Error::custom(format!("{TWICE}`{key}` twice")));
            }
            let Unique(value) = object.next_value()?;
            values.insert(key, value);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_options::ReadOptions;
    use super::super::reader::read;

    fn error(text: &str) -> String {
        let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        std::fs::write(file.path(), format!("{{\"prompt\":\"one\"}}\n{text}\n")).unwrap();
        let error = read(file.path(), &ReadOptions::default()).unwrap_err().to_string();
        error.split_once(".jsonl").unwrap().1.to_owned()
    }

    #[test]
    fn what_json_does_not_have_is_named_with_its_line() {
        for word in ["NaN", "Infinity", "-Infinity"] {
            let found = error(&format!("{{\"prompt\":\"p\",\"labels\":{{\"x\":{word}}}}}"));
            assert!(
                found.starts_with(&format!(":2: {word} at column ")) && found.contains("null or a finite"),
                "{found}"
            );
        }
        for half in [r"\ud800", r"\udc00", r"\ud83d\ud83d", r"a\ud83d b"] {
            let found = error(&format!("{{\"prompt\":\"{half}\"}}"));
            assert!(found.starts_with(":2: half of a surrogate pair"), "{half}: {found}");
        }
        let found = error(r#"{"prompt":"p","x":1e400}"#);
        assert!(found.starts_with(":2: a number out of range"), "{found}");
        assert!(error("{\"prompt\": \r").starts_with(":2: invalid JSON at column 10 (EOF while"));
        // A word that only begins like one, or a text that holds one, is no number.
        assert!(error(r#"{"prompt":nothing}"#).starts_with(":2: invalid JSON at column"));
        assert!(error(r#"{"prompt":"NaN" oops}"#).starts_with(":2: invalid JSON at column"));
    }

    #[test]
    fn a_key_twice_is_an_error_at_every_depth() {
        for text in [
            r#"{"prompt":"a","prompt":"b"}"#,
            r#"{"prompt":"a","labels":{"prompt":1,"prompt":2}}"#,
            r#"{"messages":[{"role":"user","prompt":"a","prompt":"b"}]}"#,
        ] {
            let found = error(text);
            assert!(found.starts_with(":2: the key `prompt` twice; expected each key once"), "{found}");
        }
    }
}
