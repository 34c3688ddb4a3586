//! What templates take from Python: methods of its strings and lists, its JSON, its way of writing numbers.
//! It knows nothing of chats.
//!
//! The engine has most of it; here stands what it lacks, and what it does otherwise than Python 3.

mod json;

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

pub(crate) use json::tojson;

type Result<T> = std::result::Result<T, Error>;

/// Lists in lists deeper than this are refused: no template has use for them, and the engine walks them by recursion.
const DEPTH: usize = 64;

/// A field that is formatted wider than this is refused.
const WIDTH: usize = 10_000;

fn wrong(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

/// `value.name(arguments)` for a method that the engine itself does not have.
pub(crate) fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value> {
    let said = match (value.as_str(), value.kind()) {
        (Some(text), _) => string_method(text, name, arguments)?,
        (None, ValueKind::Seq) if name == "index" => Some(index(value, arguments)?),
        _ => None,
    };
    match said {
        Some(said) => Ok(said),
        None => unknown_method_callback(state, value, name, arguments),
    }
}

fn index(list: &Value, arguments: &[Value]) -> Result<Value> {
    let (wanted,): (&Value,) = from_args(arguments)?;
    let at = list.try_iter()?.position(|item| item == *wanted);
    at.map(Value::from).ok_or_else(|| wrong(format!("{wanted} is not in the list")))
}

/// Python's `str.isspace` for one character: Unicode's white space and the four separators of ASCII.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

fn string_method(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>> {
    let said = match name {
        "strip" => strip(text, arguments, true, true)?.into(),
        "lstrip" => strip(text, arguments, true, false)?.into(),
        "rstrip" => strip(text, arguments, false, true)?.into(),
        "split" => split(text, arguments, false)?,
        "rsplit" => split(text, arguments, true)?,
        "splitlines" => splitlines(text, arguments)?,
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            if separator.is_empty() {
                return Err(wrong("empty separator"));
            }
            let parts = match name {
                "partition" => text.split_once(separator).map(|(a, b)| [a, separator, b]),
                _ => text.rsplit_once(separator).map(|(a, b)| [a, separator, b]),
            };
            let whole = if name == "partition" { [text, "", ""] } else { ["", "", text] };
            Value::from(Tuple::from(parts.unwrap_or(whole).map(Value::from).to_vec()))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "startswith" | "endswith" if arguments.len() > 1 => {
            let (affix, begin, end): (Value, Option<i64>, Option<i64>) = from_args(arguments)?;
            let (part, _) = stretch(text, begin, end);
            let has = |affix: &str| match name {
                "startswith" => part.starts_with(affix),
                _ => part.ends_with(affix),
            };
            Value::from(match affix.as_str() {
                Some(affix) => has(affix),
                None => affix.try_iter()?.any(|one| one.as_str().is_some_and(has)),
            })
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (what, begin, end): (&str, Option<i64>, Option<i64>) = from_args(arguments)?;
            let (part, skipped) = stretch(text, begin, end);
            if name == "count" {
                return Ok(Some(Value::from(part.matches(what).count())));
            }
            let at = if name.starts_with('r') { part.rfind(what) } else { part.find(what) };
            match at {
                Some(at) => Value::from(skipped + part[..at].chars().count()),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(wrong("substring not found")),
            }
        }
        "isspace" => {
            let () = from_args(arguments)?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        "title" => {
            let () = from_args(arguments)?;
            title(text).into()
        }
        "swapcase" => {
            let () = from_args(arguments)?;
            let swap = |letter: char| -> String {
                if letter.is_uppercase() {
                    letter.to_lowercase().collect()
                } else {
                    letter.to_uppercase().collect()
                }
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        // Full case folding is lower case but for a few letters; of those, templates can only meet the German one.
        "casefold" => {
            let () = from_args(arguments)?;
            Value::from(text.to_lowercase().replace('ß', "ss"))
        }
        "center" | "ljust" | "rjust" => {
            let (width, fill): (usize, Option<&str>) = from_args(arguments)?;
            pad(text, name, width, fill.unwrap_or(" "))?.into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(arguments)?;
            let digits = text.trim_start_matches(['+', '-']);
            let sign = &text[..text.len() - digits.len()];
            (sign.to_owned() + &pad(digits, "rjust", width.saturating_sub(sign.len()), "0")?).into()
        }
        "format" => {
            let widths = text.split(|letter: char| !letter.is_ascii_digit());
            if widths.filter_map(|digits| digits.parse().ok()).any(|width: f64| width > WIDTH as f64) {
                return Err(wrong(format!("a format wider than {WIDTH}")));
            }
            return Ok(None);
        }
        _ => return Ok(None),
    };
    Ok(Some(said))
}

/// `text[begin:end]`, and how many characters stand before it.
fn stretch(text: &str, begin: Option<i64>, end: Option<i64>) -> (&str, usize) {
    if begin.is_none() && end.is_none() {
        return (text, 0);
    }
    let count = text.chars().count() as i64;
    let place = |at: i64| (if at < 0 { at + count } else { at }).clamp(0, count) as usize;
    let (begin, end) = (place(begin.unwrap_or(0)), place(end.unwrap_or(count)));
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    (&text[byte(begin)..byte(end.max(begin))], begin)
}

/// `strip`, `lstrip` and `rstrip`, with the characters to strip or without.
fn strip<'a>(text: &'a str, arguments: &[Value], left: bool, right: bool) -> Result<&'a str> {
    let (letters,): (Option<&str>,) = from_args(arguments)?;
    let goes = |letter: char| match letters {
        Some(letters) => letters.contains(letter),
        None => is_space(letter),
    };
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text })
}

/// The `trim` filter.
pub(crate) fn trim(text: &Value, letters: Option<&str>) -> Result<Value> {
    if text.as_str().is_none() && !text.is_undefined() {
        return Ok(text.to_string().into());
    }
    let letters = letters.map(Value::from);
    Ok(strip(text.as_str().unwrap_or_default(), letters.as_slice(), true, true)?.into())
}

/// `split` and `rsplit`: by a separator or by white space, all the way or so many times.
fn split(text: &str, arguments: &[Value], from_right: bool) -> Result<Value> {
    let (separator, times, named): (Option<Value>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = separator.map_or_else(|| named.get::<Option<Value>>("sep"), |value| Ok(Some(value)))?;
    let times = times.map_or_else(|| named.get::<Option<i64>>("maxsplit"), |times| Ok(Some(times)))?;
    named.assert_all_used()?;
    let parts = times.and_then(|times| usize::try_from(times).ok()).map_or(usize::MAX, |times| times + 1);
    let separator = separator.filter(|separator| !separator.is_none());
    let mut list: Vec<&str> = match &separator {
        None => words(text, parts, from_right),
        Some(separator) => {
            let separator = separator.as_str().filter(|separator| !separator.is_empty());
            let separator = separator.ok_or_else(|| wrong("a separator that is no text, or empty"))?;
            match from_right {
                true => text.rsplitn(parts, separator).collect(),
                false => text.splitn(parts, separator).collect(),
            }
        }
    };
    if from_right {
        list.reverse();
    }
    Ok(list.into_iter().map(Value::from).collect())
}

/// Words apart by white space; the last of `parts` keeps what is left. From the right they come last first.
fn words(text: &str, parts: usize, from_right: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest =
        if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() {
        if found.len() + 1 == parts {
            // Python strips only the side from which it came.
            found.push(rest);
            break;
        }
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(cut) = cut else {
            found.push(rest);
            break;
        };
        let width = rest[cut..].chars().next().map_or(1, char::len_utf8);
        let (word, left) = match from_right {
            true => (&rest[cut + width..], rest[..cut].trim_end_matches(is_space)),
            false => (&rest[..cut], rest[cut..].trim_start_matches(is_space)),
        };
        found.push(word);
        rest = left;
    }
    found
}

fn splitlines(text: &str, arguments: &[Value]) -> Result<Value> {
    let (keep, named): (Option<bool>, Kwargs) = from_args(arguments)?;
    let keep = keep.map_or_else(|| named.get::<Option<bool>>("keepends"), |keep| Ok(Some(keep)))?;
    let ends = |letter: char| {
        matches!(letter, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ends) {
        let width = match &rest[at..] {
            both if both.starts_with("\r\n") => 2,
            one => one.chars().next().map_or(1, char::len_utf8),
        };
        lines.push(if keep == Some(true) { &rest[..at + width] } else { &rest[..at] });
        rest = &rest[at + width..];
    }
    lines.extend(Some(rest).filter(|rest| !rest.is_empty()));
    Ok(lines.into_iter().map(Value::from).collect())
}

/// Every letter after one that is none in upper case, the others in lower case.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        if inside {
            titled.extend(letter.to_lowercase());
        } else {
            let mut upper = letter.to_uppercase();
            titled.extend(upper.next());
            // What becomes several letters (ß) has only the first of them large.
            upper.for_each(|next| titled.extend(next.to_lowercase()));
        }
        inside = letter.is_lowercase() || letter.is_uppercase();
    }
    titled
}

fn pad(text: &str, name: &str, width: usize, fill: &str) -> Result<String> {
    if width > WIDTH {
        return Err(wrong(format!("{name} wider than {WIDTH}")));
    }
    let missing = width.saturating_sub(text.chars().count());
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // Where it does not come out even, Python puts the odd one left if the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(fill.repeat(left) + text + &fill.repeat(missing - left))
}

/// The `int` filter: 0 or the default where there is no number.
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

/// The `default` filter, whose second argument may be named.
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

/// `is sequence`: what has a length and items, as Jinja asks it.
pub(crate) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
}

/// `is iterable`.
pub(crate) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// A float as Python's `repr` writes it.
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

/// What `{% set %}` keeps: the same value, its lists made plain ones. A list that holds the same list twice, again and
/// again, would else be small to make and endless to read, and so would one that is worked out when it is read; every
/// part is paid for here.
pub(crate) fn kept(state: &State, value: &Value) -> Result<Value> {
    keep(state, value, 0)
}

fn keep(state: &State, value: &Value, depth: usize) -> Result<Value> {
    if depth > DEPTH {
        return Err(wrong("lists in lists without end"));
    }
    let Some(object) = value.as_object() else { return Ok(value.clone()) };
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> =
                value.try_iter()?.map(|item| keep(state, &item, depth + 1)).collect::<Result<_>>()?;
            Ok(match object.downcast_ref::<Tuple>() {
                Some(_) => Value::from(Tuple::from(items)),
                None => Value::from(items),
            })
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                keep(state, &value.get_item(&key)?, depth + 1)?;
            }
            Ok(value.clone())
        }
        _ => Ok(value.clone()),
    }
}
