//! Jinja filters and tests that minijinja has otherwise.

use minijinja::value::{Kwargs, Value, ValueKind};

use super::methods::strip;
use super::values::Result;

/// The `trim` filter.
pub(crate) fn trim(text: &Value, letters: Option<&str>) -> Result<Value> {
    if text.as_str().is_none() && !text.is_undefined() {
        return Ok(text.to_string().into());
    }
    let letters = letters.map(Value::from);
    Ok(strip(text.as_str().unwrap_or_default(), letters.as_slice(), true, true)?.into())
}

/// The `int` filter: the default, or 0, for what isn't a number.
pub(crate) fn int(value: &Value, default: Option<Value>, arguments: Kwargs) -> Result<Value> {
    let default =
        default.map_or_else(|| arguments.get::<Option<Value>>("default"), |value| Ok(Some(value)))?;
    let number = match value.as_str() {
        Some(text) => {
            let text = text.trim();
            text.parse::<i64>().ok().or_else(|| text.parse::<f64>().ok().map(|number| number as i64))
        }
        None if value.kind() == ValueKind::Bool => Some(i64::from(value.is_true())),
        None => f64::try_from(value.clone()).ok().map(|number| number as i64),
    };
    Ok(number.map_or(default.unwrap_or_else(|| Value::from(0)), Value::from))
}

/// The `default` filter, with `default_value` and `boolean` as names too.
pub(crate) fn default(
    value: &Value,
    other: Option<Value>,
    lax: Option<bool>,
    arguments: Kwargs,
) -> Result<Value> {
    let other =
        other.map_or_else(|| arguments.get::<Option<Value>>("default_value"), |value| Ok(Some(value)))?;
    let lax = lax.map_or_else(|| arguments.get::<Option<bool>>("boolean"), |lax| Ok(Some(lax)))?;
    arguments.assert_all_used()?;
    let keep = !value.is_undefined() && (lax != Some(true) || value.is_true());
    Ok(if keep { value.clone() } else { other.unwrap_or_else(|| Value::from("")) })
}

/// `is sequence`: has a length and items.
pub(crate) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
}

/// `is iterable`.
pub(crate) fn is_iterable(value: &Value) -> bool {
    // A text is iterable, and making its iterator would copy it.
    value.as_str().is_some() || (!value.is_none() && value.try_iter().is_ok())
}
