//! Methods of Python's `str` and `list`.

use minijinja::State;
use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::values::{MAX_WIDTH, Result, materialize, wrong};

/// `value.name(arguments)` for methods that the engine doesn't have.
///
/// The engine charges its own operations; methods are charged here by the size of what they may walk through.
pub(crate) fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value> {
    for value in std::iter::once(value).chain(arguments) {
        match (value.as_str(), value.kind()) {
            (Some(text), _) => state.consume_fuel(1 + text.len() as u64 / 16)?,
            (None, ValueKind::Seq) if matches!(name, "index" | "count") => {
                materialize(state, value)?;
            }
            _ => state.consume_fuel(1 + value.len().unwrap_or(0) as u64)?,
        }
    }
    let result = match (value.as_str(), value.kind()) {
        (Some(text), _) => string_method(text, name, arguments)?,
        (None, ValueKind::Seq) if name == "index" => Some(index(value, arguments)?),
        _ => None,
    };
    match result {
        Some(result) => Ok(result),
        None => unknown_method_callback(state, value, name, arguments),
    }
}

fn index(list: &Value, arguments: &[Value]) -> Result<Value> {
    let (wanted,): (&Value,) = from_args(arguments)?;
    let at = list.try_iter()?.position(|item| item == *wanted);
    at.map(Value::from).ok_or_else(|| wrong(format!("{wanted} is not in the list")))
}

/// Python's `str.isspace` for one character: Unicode white space and the four ASCII separators.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

fn string_method(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>> {
    let result = match name {
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
            let (part, _) = slice(text, begin, end);
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
            let (part, skipped) = slice(text, begin, end);
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
        // Full case folding is lower case except for a few letters, of which only ß matters in practice.
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
            if widths.filter_map(|digits| digits.parse().ok()).any(|width: f64| width > MAX_WIDTH as f64) {
                return Err(wrong(format!("a format wider than {MAX_WIDTH}")));
            }
            return Ok(None);
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// `text[begin:end]` in characters, and the number of characters before it.
fn slice(text: &str, begin: Option<i64>, end: Option<i64>) -> (&str, usize) {
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
pub(super) fn strip<'a>(text: &'a str, arguments: &[Value], left: bool, right: bool) -> Result<&'a str> {
    let (letters,): (Option<&str>,) = from_args(arguments)?;
    let stripped = |letter: char| match letters {
        Some(letters) => letters.contains(letter),
        None => is_space(letter),
    };
    let text = if left { text.trim_start_matches(stripped) } else { text };
    Ok(if right { text.trim_end_matches(stripped) } else { text })
}

/// `split` and `rsplit`, by a separator or by white space, with or without `maxsplit`.
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
            let separator = separator.ok_or_else(|| wrong("a separator that is not text, or is empty"))?;
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

/// Words separated by white space, at most `parts`; the last keeps the rest. From the right, the last word comes first.
fn words(text: &str, parts: usize, from_right: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest =
        if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() {
        if found.len() + 1 == parts {
            // Python strips the rest only on the side where splitting began.
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

/// `str.title`: a letter after a non-letter in upper case, the others in lower case.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        if inside {
            titled.extend(letter.to_lowercase());
        } else {
            let mut upper = letter.to_uppercase();
            titled.extend(upper.next());
            // ß becomes two letters, of which only the first is a capital.
            upper.for_each(|next| titled.extend(next.to_lowercase()));
        }
        inside = letter.is_lowercase() || letter.is_uppercase();
    }
    titled
}

fn pad(text: &str, name: &str, width: usize, fill: &str) -> Result<String> {
    if width > MAX_WIDTH {
        return Err(wrong(format!("{name} wider than {MAX_WIDTH}")));
    }
    let missing = width.saturating_sub(text.chars().count());
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // An odd remainder goes left if the width is odd, as in CPython.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(fill.repeat(left) + text + &fill.repeat(missing - left))
}
