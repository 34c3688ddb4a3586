//! Source rewriting of a chat template before it is compiled.
//!
//! Jinja source in, source that minijinja compiles to the same text out. It splits tags and doesn't parse expressions.

use std::ops::Range;

/// The longest source accepted, in bytes: ten times the longest on the hub.
const MAX_SOURCE: usize = 1 << 18;

/// The longest tag accepted, in bytes: the engine walks a tag's expression tree by recursion.
const MAX_TAG: usize = 1 << 16;

/// Rewrites a template:
///
/// - newlines become `\n`, as in Jinja's lexer;
/// - `{% generation %}…{% endgeneration %}`, which marks assistant text for training, becomes a `with` block: the same
///   text, scope and whitespace control;
/// - the value of `{% set name = … %}` goes through the filter `assign_filter`.
///
/// # Errors
/// What is wrong with the source, as text.
pub(crate) fn preprocess(source: &str, assign_filter: &str) -> Result<String, String> {
    if source.len() > MAX_SOURCE {
        return Err(format!("{} bytes, above the limit of {MAX_SOURCE}", source.len()));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut rewritten = String::with_capacity(source.len());
    let mut done = 0;
    for (tag, _) in tags(&source)?.into_iter().filter(|(_, is_block)| *is_block) {
        rewritten.push_str(&source[done..tag.start]);
        rewritten.push_str(&rewrite_tag(&source[tag.clone()], assign_filter));
        done = tag.end;
    }
    rewritten.push_str(&source[done..]);
    Ok(rewritten)
}

/// Whether a template reads a variable: its name stands in a tag, outside strings, and not as an attribute or to be assigned.
pub(crate) fn reads(source: &str, variable: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let in_tag = |tag: &str| {
        let code = without_strings(tag);
        code.match_indices(variable).any(|(at, _)| {
            let (before, after) = (&code[..at], &code[at + variable.len()..]);
            let is_whole = !before.bytes().next_back().is_some_and(is_name)
                && !after.bytes().next().is_some_and(is_name);
            let after = after.trim_start();
            let is_assigned = after.starts_with('=') && !after.starts_with("==");
            is_whole && !is_assigned && !before.trim_end().ends_with('.')
        })
    };
    // Source that can't be split was refused before.
    tags(source).unwrap_or_default().into_iter().any(|(tag, _)| in_tag(&source[tag]))
}

/// A tag's content with its strings empty.
fn without_strings(tag: &str) -> String {
    let (mut quote, mut escaped) = (None, false);
    let is_code = |letter: &char| match quote {
        Some(_) if escaped => (escaped = false, false).1,
        Some(_) if *letter == '\\' => (escaped = true, false).1,
        Some(open) if *letter == open => (quote = None, true).1,
        Some(_) => false,
        None => {
            quote = Some(*letter).filter(|letter| matches!(letter, '\'' | '"'));
            true
        }
    };
    tag.chars().filter(is_code).collect()
}

/// Byte ranges inside the `{% … %}` tags (true) and the `{{ … }}` tags, leaving out those in comments, strings and raw blocks.
fn tags(source: &str) -> Result<Vec<(Range<usize>, bool)>, String> {
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
            // The engine reports the unclosed tag.
            break;
        };
        if length > MAX_TAG && end_mark != "#}" {
            let line = source[..begin].matches('\n').count() + 1;
            return Err(format!("a tag of {length} bytes in line {line}, above the limit of {MAX_TAG}"));
        }
        place = inner + length + 2;
        if end_mark != "%}" {
            if end_mark == "}}" {
                tags.push((inner..inner + length, false));
            }
            continue;
        }
        if name(&source[inner..inner + length]) == "raw" {
            let close =
                |at: &usize| source.get(at + 2..).is_some_and(|rest| name(rest).starts_with("endraw"));
            let mut ends = source[place..].match_indices("{%").map(|(at, _)| place + at);
            place = ends.find(close).unwrap_or(source.len());
        } else {
            tags.push((inner..inner + length, true));
        }
    }
    Ok(tags)
}

/// Bytes up to the mark that closes a tag: the first in a comment, else the first outside strings.
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

/// The content of a tag without its whitespace-control marks.
fn name(inner: &str) -> &str {
    inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()
}

fn rewrite_tag(inner: &str, assign_filter: &str) -> String {
    match name(inner) {
        "generation" => inner.replace("generation", "with"),
        "endgeneration" => inner.replace("endgeneration", "endwith"),
        statement => match statement.strip_prefix("set").filter(|rest| rest.starts_with(char::is_whitespace))
        {
            // A block assignment has no equals sign, or has one in a filter's arguments.
            Some(assigned) if is_assignment(assigned) => {
                let at = inner.find('=').unwrap_or_default() + 1;
                let end = inner.len() - (inner.len() - inner.trim_end_matches(['-', '+']).len());
                format!("{} ({}) | {assign_filter} {}", &inner[..at], &inner[at..end], &inner[end..])
            }
            _ => inner.into(),
        },
    }
}

/// Whether only names, commas, dots and brackets precede the first equals sign.
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
        same.into_iter().for_each(|source| assert_eq!(preprocess(source, "k").unwrap(), source));
        let changed = [
            ("a\r\nb\rc", "a\nb\nc"),
            ("{%- generation -%}x{%endgeneration%}", "{%- with -%}x{%endwith%}"),
            ("{%- set n.a, b = '%}' == x -%}", "{%- set n.a, b = ( '%}' == x ) | k -%}"),
            ("{% raw %}{{ ' {% endraw %}{% set a=1 %}", "{% raw %}{{ ' {% endraw %}{% set a= (1 ) | k %}"),
        ];
        changed
            .into_iter()
            .for_each(|(source, expected)| assert_eq!(preprocess(source, "k").unwrap(), expected));
    }

    #[test]
    fn refuses_what_is_too_long() {
        assert!(preprocess(&"x".repeat(MAX_SOURCE + 1), "k").is_err());
        let error = preprocess(&format!("\n{{{{ 1{} }}}}", "+1".repeat(MAX_TAG / 2)), "k").unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_variable_is_read_where_a_tag_names_it_as_one() {
        for source in [
            "{{ tools }}",
            "{%- if tools is defined and not(tools) -%}{% endif %}",
            "{% set tools = tools if tools is defined else none %}",
            "{% for t in tools%}{% endfor %}",
            "{{ 'a\\'b' ~ tools }}",
            "{% if x == tools or tools == y %}{% endif %}",
            "{% set x = {'tools': tools} %}",
        ] {
            assert!(reads(source, "tools"), "{source}");
        }
        for source in [
            "tools {# {{ tools }} #}",
            "{{ 'tools' }}{{ \"tools\" }}{{ 'it\\'s tools' }}",
            "{{ message.tools }}{{ message . tools }}",
            "{{ my_tools }}{{ tools_in }}",
            "{% set tools = [] %}",
            "{% raw %}{{ tools }}{% endraw %}",
            "{{ f(tools=1) }}",
        ] {
            assert!(!reads(source, "tools"), "{source}");
        }
    }
}
