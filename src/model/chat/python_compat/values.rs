//! Values of templates: their limits, the text of floats, and the lists that assignments store.

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use serde_json::Value as Json;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// The deepest nesting of lists accepted: the engine walks values by recursion.
pub(super) const MAX_DEPTH: usize = 64;

/// The widest padding accepted, in characters.
pub(super) const MAX_WIDTH: usize = 10_000;

pub(super) fn wrong(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

/// `repr` of a float.
pub(crate) fn float(number: f64) -> String {
    let exponent = number.abs().log10().floor();
    if number.is_nan() {
        "nan".into()
    } else if number.is_infinite() {
        if number > 0.0 { "inf" } else { "-inf" }.into()
    } else if number != 0.0 && !(-4.0..16.0).contains(&exponent) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
        format!("{digits}e{sign}{exponent:0>2}")
    } else {
        format!("{number:?}")
    }
}

/// A template value of JSON, with the order of its keys.
pub(crate) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => Value::from(list.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, value)| (name.as_str(), from_json(value))))
        }
    }
}

/// The value that `{% set %}` stores: lazy and shared lists as plain ones, each item paid for with fuel. Without it, a list
/// that holds one list twice, repeatedly, or a lazy list would be cheap to make and take forever to read.
pub(crate) fn materialize(state: &State, value: &Value) -> Result<Value> {
    materialize_at(state, value, 0)
}

fn materialize_at(state: &State, value: &Value, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(wrong(format!("lists nested more than {MAX_DEPTH} deep")));
    }
    state.consume_fuel(1)?;
    let Some(object) = value.as_object() else { return Ok(value.clone()) };
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value
                .try_iter()?
                .map(|item| materialize_at(state, &item, depth + 1))
                .collect::<Result<_>>()?;
            Ok(match object.downcast_ref::<Tuple>() {
                Some(_) => Value::from(Tuple::from(items)),
                None => Value::from(items),
            })
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                materialize_at(state, &value.get_item(&key)?, depth + 1)?;
            }
            Ok(value.clone())
        }
        _ => Ok(value.clone()),
    }
}
