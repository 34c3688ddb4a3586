//! Values of GGUF metadata.

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// An integer of any width.
    Whole(i64),
    /// A float of any width.
    Number(f64),
    /// A boolean.
    Flag(bool),
    /// A text. Bytes that aren't UTF-8 are replaced: some vocabularies hold parts of characters.
    Text(String),
    /// A list of values of one type.
    List(Vec<GgufValue>),
}

impl GgufValue {
    /// The value as an integer of at least 0.
    pub fn count(&self) -> Option<usize> {
        match self {
            GgufValue::Whole(number) => (*number).try_into().ok(),
            _ => None,
        }
    }

    /// The value as a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            GgufValue::Whole(number) => Some(*number as f64),
            GgufValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The value, or its type, for errors.
    pub(super) fn summary(&self) -> String {
        match self {
            GgufValue::Whole(number) => number.to_string(),
            GgufValue::Number(number) => number.to_string(),
            GgufValue::Flag(flag) => flag.to_string(),
            GgufValue::Text(_) => "a text".into(),
            GgufValue::List(list) => format!("a list of {}", list.len()),
        }
    }
}
