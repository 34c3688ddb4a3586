//! A chat template: Jinja, set up as transformers sets it up. It knows nothing of tokens.
//!
//! Source of the setup: `transformers.utils.chat_template_utils` (`ImmutableSandboxedEnvironment` with `trim_blocks`,
//! `lstrip_blocks`, loop controls, `tojson`, `raise_exception`, `strftime_now`, and the `generation` block).

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::date::strftime;
use crate::error::{Error, Result};

/// A template may run this many instructions, and may make 64 bytes of text for each.
const FUEL: u64 = 4_000_000;

/// A chat template, ready to render.
pub(super) struct Template {
    environment: Environment<'static>,
    source: String,
    /// Where it was found, for errors.
    place: String,
    /// Names that the template may use (`bos_token`, `eos_token`, …) and their values.
    special: Vec<(String, String)>,
}

impl Template {
    /// Compiles a template. `special` are the tokenizer's named tokens.
    ///
    /// # Errors
    /// A template that is no Jinja; `place` is named.
    pub fn new(place: &str, source: &str, special: Vec<(String, String)>) -> Result<Template> {
        let wrong = |error: minijinja::Error| {
            Error::input(place, format!("no chat template ({error})"), "Jinja, as the hub's models have it")
        };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(wrong)?;
        environment.set_syntax(syntax);
        environment.set_debug(false);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_formatter(|out, state, value| match bool::try_from(value.clone()) {
            // As Python writes them.
            Ok(truth) if value.kind() == minijinja::value::ValueKind::Bool => {
                out.write_str(if truth { "True" } else { "False" }).map_err(minijinja::Error::from)
            }
            _ if value.is_none() => out.write_str("None").map_err(minijinja::Error::from),
            _ => escape_formatter(out, state, value),
        });
        environment.add_function("raise_exception", raise_exception);
        // The time is taken once, so that a template renders alike however often it is asked.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        environment.add_function("strftime_now", move |format: &str| {
            let wrong = || format!("strftime_now does not know the format {format}");
            strftime(now, format).ok_or_else(|| minijinja::Error::new(ErrorKind::InvalidOperation, wrong()))
        });
        environment.add_filter("tojson", tojson);
        environment.add_template_owned("chat", without_generation_blocks(source)).map_err(wrong)?;
        Ok(Template { environment, source: source.into(), place: place.into(), special })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text that the template makes of messages (role and content). `thinking` is what it sees as
    /// `enable_thinking`; without it that name is undefined.
    ///
    /// # Errors
    /// What the template itself refuses (`raise_exception`), and one that goes on without end.
    pub fn render(
        &self,
        messages: &[(&str, &str)],
        add_generation_prompt: bool,
        thinking: Option<bool>,
    ) -> Result<String> {
        let messages = messages.iter().map(|(role, content)| context! { role => *role, content => *content });
        let none = || Value::from(());
        let mut names = BTreeMap::from([
            ("messages".to_owned(), messages.collect::<Value>()),
            ("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)),
            ("tools".to_owned(), none()),
            ("documents".to_owned(), none()),
        ]);
        names.extend(thinking.map(|thinking| ("enable_thinking".to_owned(), Value::from(thinking))));
        names.extend(self.special.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))));
        let template = self.environment.get_template("chat");
        let rendered = template.and_then(|template| template.render(Value::from(names)));
        rendered.map_err(|error| {
            let found = match error.kind() {
                ErrorKind::OutOfFuel => "the chat template does not come to an end".into(),
                _ => format!("the chat template fails: {error}"),
            };
            Error::input(&self.place, found, "messages that the template takes, or --chat-template FILE")
        })
    }
}

fn raise_exception(message: &str) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`. Other arguments (`separators`, `sort_keys`) are let pass
/// without effect.
fn tojson(value: &Value, arguments: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let indent: Option<Value> = arguments.get("indent")?;
    let indent = indent.filter(|indent| !indent.is_none());
    let nothing = Kwargs::from_iter(Vec::<(String, Value)>::new());
    let escaped = minijinja::filters::tojson(value, indent, nothing)?;
    // The engine's own filter makes JSON safe for HTML; Python's does not.
    let escaped = escaped.as_str().unwrap_or_default();
    let mut json = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('\\') {
        json.push_str(&rest[..at]);
        let (plain, length) = match rest.get(at..at + 6) {
            Some("\\u003c") => ("<", 6),
            Some("\\u003e") => (">", 6),
            Some("\\u0026") => ("&", 6),
            Some("\\u0027") => ("'", 6),
            // A backslash and the ASCII character that it escapes.
            _ => (rest.get(at..at + 2).unwrap_or("\\"), 2),
        };
        json.push_str(plain);
        rest = rest.get(at + length..).unwrap_or_default();
    }
    json.push_str(rest);
    Ok(Value::from(json))
}

/// `{% generation %}…{% endgeneration %}` marks the assistant's words for training; the text is the same without.
/// An `if` takes its place, so that the control of whitespace stays.
fn without_generation_blocks(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let Some(length) = rest[begin..].find("%}") else {
            break;
        };
        let inner = &rest[begin + 2..begin + length];
        let name = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        plain.push_str(&rest[..begin + 2]);
        match name {
            "generation" => plain.push_str(&inner.replace("generation", "if true")),
            "endgeneration" => plain.push_str(&inner.replace("endgeneration", "endif")),
            _ => plain.push_str(inner),
        }
        plain.push_str("%}");
        rest = &rest[begin + length + 2..];
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String> {
        let special = vec![("bos_token".to_owned(), "<s>".to_owned())];
        Template::new("chat_template.jinja", source, special)?.render(messages, true, None)
    }

    #[test]
    fn renders_what_real_templates_use() {
        let turns = [("system", " be kind "), ("user", "Hi <b>"), ("assistant", "<think>a</think>\n\nb")];
        let cases = [
            // Blocks on lines of their own leave nothing behind; one newline at the end goes.
            ("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
            ("{{ bos_token }}{{ messages[1]['content'] }}{{ pad_token }}", "<s>Hi <b>"),
            (
                "{{ messages[0].content | trim }}|{{ messages[-1].content.split('</think>')[-1].lstrip('\\n') }}",
                "be kind|b",
            ),
            (
                "{%- set ns = namespace(n=0) %}{%- for m in messages[::-1] %}{%- set ns.n = ns.n + loop.index0 %}{%- endfor %}{{ ns.n }}",
                "3",
            ),
            (
                "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
                "user",
            ),
            (
                "{{ {'a': \"<é's>\\n\", 'b': [1, true, none]} | tojson }}",
                "{\"a\": \"<é's>\\n\", \"b\": [1, true, null]}",
            ),
            ("{{ {'a': '\\\\u003c'} | tojson(ensure_ascii=False) }}", "{\"a\": \"\\\\u003c\"}"),
            (
                "{{ true }} {{ none }} {{ tools is none }} {{ enable_thinking is defined }}",
                "True None True False",
            ),
            ("{% if messages[1].tool_calls %}x{% endif %}{{ messages[0].role.upper() }}", "SYSTEM"),
            ("a {%- generation -%} b {%- endgeneration %} c", "ab c"),
            ("{%- macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[0]['role']) }}", "[system]"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source, &turns).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn errors_are_one_line_and_say_where() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}";
        let error = render(source, &[("system", "x")]).unwrap_err().to_string();
        assert!(
            error.starts_with("chat_template.jinja: ") && error.contains("System role not supported"),
            "{error}"
        );
        let error = render("{% for %}", &[]).unwrap_err().to_string();
        assert!(error.contains("no chat template (syntax error"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn an_endless_template_ends() {
        let count = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let grow = "{% set n = namespace(s='xxxxxxxx') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}";
        let call = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
        for source in [count, grow] {
            let error = render(source, &[]).unwrap_err().to_string();
            assert!(error.contains("does not come to an end"), "{error}");
        }
        assert!(render(call, &[]).is_err());
        assert!(render("{{ 'x' * 9999999999 }}", &[]).is_err());
    }
}
