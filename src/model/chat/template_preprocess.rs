//! A chat template's source, brought to what the engine takes and the machine can bear.
//! It knows nothing of messages, and does not read expressions.

use std::ops::Range;

/// The longest source that is read. The longest of the hub's are a tenth of it.
const LONGEST: usize = 1 << 18;

/// The longest tag. One of many thousand operators is a tree that deep, and the engine walks it by recursion.
const LONGEST_TAG: usize = 1 << 16;

/// The source with these changes, or what is wrong with it:
///
/// - newlines are `\n`, as Jinja makes them before it reads anything;
/// - `{% generation %}…{% endgeneration %}`, which marks the assistant's words for training, is a `with` block: the text
///   is the same, names set inside stay inside, and so does the control of whitespace;
/// - what `{% set name = … %}` is given goes through the filter `keeper`.
pub(crate) fn prepared(source: &str, keeper: &str) -> Result<String, String> {
    if source.len() > LONGEST {
        return Err(format!("it is {} bytes long, the longest that is read are {LONGEST}", source.len()));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut prepared = String::with_capacity(source.len());
    let mut done = 0;
    for tag in block_tags(&source)? {
        prepared.push_str(&source[done..tag.start]);
        prepared.push_str(&prepared_tag(&source[tag.clone()], keeper));
        done = tag.end;
    }
    prepared.push_str(&source[done..]);
    Ok(prepared)
}

/// The insides of the `{% … %}` tags. What stands in comments, expressions, strings and raw blocks only looks like one.
fn block_tags(source: &str) -> Result<Vec<Range<usize>>, String> {
    let mut tags = Vec::new();
    let mut place = 0;
    while let Some(begin) = source[place..].find('{').map(|at| place + at) {
        let end_mark = match source.as_bytes().get(begin + 1) {
            Some(b'#') => "#}",
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            _ => {
                place = begin + 1;
                continue;
            }
        };
        let inner = begin + 2;
        let Some(length) = tag_length(&source[inner..], end_mark) else {
            // The engine says what is wrong with a tag that is not closed.
            break;
        };
        if length > LONGEST_TAG && end_mark != "#}" {
            let line = source[..begin].matches('\n').count() + 1;
            return Err(format!(
                "a tag of {length} bytes in line {line}, the longest that is read are {LONGEST_TAG}"
            ));
        }
        place = inner + length + 2;
        if end_mark != "%}" {
            continue;
        }
        if name(&source[inner..inner + length]) == "raw" {
            let close =
                |at: &usize| source.get(at + 2..).is_some_and(|rest| name(rest).starts_with("endraw"));
            let mut ends = source[place..].match_indices("{%").map(|(at, _)| place + at);
            place = ends.find(close).unwrap_or(source.len());
        } else {
            tags.push(inner..inner + length);
        }
    }
    Ok(tags)
}

/// Bytes up to the mark that closes a tag; in a comment the first, else the first outside of strings.
fn tag_length(rest: &str, end_mark: &str) -> Option<usize> {
    if end_mark == "#}" {
        return rest.find(end_mark);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in rest.bytes().enumerate() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if letter == b'\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, b'\'' | b'"') => quote = Some(letter),
            None if rest.as_bytes()[at..].starts_with(end_mark.as_bytes()) => return Some(at),
            None => {}
        }
    }
    None
}

/// A tag's inside without the marks that control whitespace.
fn name(inner: &str) -> &str {
    inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()
}

fn prepared_tag(inner: &str, keeper: &str) -> String {
    match name(inner) {
        "generation" => inner.replace("generation", "with"),
        "endgeneration" => inner.replace("endgeneration", "endwith"),
        statement => match statement.strip_prefix("set").filter(|rest| rest.starts_with(char::is_whitespace))
        {
            // A block of text is set without an equals sign, or with one in a filter's arguments.
            Some(assigned) if is_assignment(assigned) => {
                let at = inner.find('=').unwrap_or_default() + 1;
                let end = inner.len() - (inner.len() - inner.trim_end_matches(['-', '+']).len());
                format!("{} ({}) | {keeper} {}", &inner[..at], &inner[at..end], &inner[end..])
            }
            _ => inner.into(),
        },
    }
}

/// Whether names, with commas, dots and brackets between them, stand before an equals sign.
fn is_assignment(assigned: &str) -> bool {
    let plain = |letter: char| letter.is_alphanumeric() || letter.is_whitespace() || "_.,()".contains(letter);
    assigned.split_once('=').is_some_and(|(names, _)| names.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_tags_and_nothing_that_looks_like_one() {
        let same = [
            "{{ '{% generation %}' }}",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% set a = 1 %}{% endraw %}",
            "{% set a %}x{% endset %}",
            "{% set a | replace('x', y='=') %}x{% endset %}",
            "{% generation",
            "{ % set a = 1 % }",
        ];
        same.into_iter().for_each(|source| assert_eq!(prepared(source, "k").unwrap(), source));
        let changed = [
            ("a\r\nb\rc", "a\nb\nc"),
            ("{%- generation -%}x{%endgeneration%}", "{%- with -%}x{%endwith%}"),
            ("{%- set n.a, b = '%}' == x -%}", "{%- set n.a, b = ( '%}' == x ) | k -%}"),
            ("{% raw %}{{ ' {% endraw %}{% set a=1 %}", "{% raw %}{{ ' {% endraw %}{% set a= (1 ) | k %}"),
        ];
        changed
            .into_iter()
            .for_each(|(source, expected)| assert_eq!(prepared(source, "k").unwrap(), expected));
    }

    #[test]
    fn refuses_what_is_too_long() {
        assert!(prepared(&"x".repeat(LONGEST + 1), "k").is_err());
        let error = prepared(&format!("\n{{{{ 1{} }}}}", "+1".repeat(LONGEST_TAG / 2)), "k").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
}
