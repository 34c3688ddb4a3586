//! Chat templates: Jinja, configured as transformers configures it.
//!
//! Messages in, the model's prompt text out. The configuration follows
//! `transformers.utils.chat_template_utils`: `ImmutableSandboxedEnvironment` with `trim_blocks`, `lstrip_blocks`, loop
//! controls, `tojson`, `raise_exception`, `strftime_now` and the `generation` block. A template comes with the model, so
//! that it is untrusted input: steps, output, time and recursion are limited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, NaiveDate, Utc};
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

use serde_json::{Map, Value as Json};

use super::python_compat;
use super::template_engine::{Clock, MATERIALIZE, environment};
use super::template_preprocess::{preprocess, reads};
use super::template_thread::{TIMEOUT, Unfinished, no_thread, on_template_thread};
use crate::dialogue::Message;
use crate::error::{Error, Result};

/// Instructions that a template may execute; each also pays for 64 bytes of output. One more is granted for each byte of
/// content.
const BASE_FUEL: u64 = 1_000_000;
/// Further instructions for each message.
const FUEL_PER_MESSAGE: u64 = 10_000;

/// Bytes of text that a rendering may have.
const BASE_OUTPUT: usize = 1 << 20;
/// Further bytes of text for each message.
const OUTPUT_PER_MESSAGE: usize = 4 << 10;
/// Further bytes of text for each byte of content.
const OUTPUT_PER_BYTE: usize = 64;

/// The longest engine message that an error quotes, in characters.
const MAX_ERROR_CHARS: usize = 400;

/// A compiled chat template.
pub(crate) struct Template {
    environment: Environment<'static>,
    source: String,
    /// The file that it came from, for errors.
    place: String,
    /// Special tokens that the template may name (`bos_token`, `eos_token`, …), with their text.
    special: Vec<(String, String)>,
    clock: Arc<Clock>,
    /// Set where a rendering was given up, so that the next dialogue isn't waited for as long again.
    given_up: AtomicBool,
}

impl Template {
    /// Compiles a template. `special` holds the tokenizer's named tokens. `strftime_now` gives the time of this call in
    /// UTC, so that every rendering of one template agrees.
    ///
    /// # Errors
    /// Source that isn't valid Jinja, or is too long; the error names `place`.
    pub fn new(place: &str, source: &str, special: Vec<(String, String)>) -> Result<Template> {
        Template::compiled_at(Utc::now(), place, source, special)
    }

    /// [`Template::new`] with a given time for `strftime_now`.
    fn compiled_at(
        now: DateTime<Utc>,
        place: &str,
        source: &str,
        special: Vec<(String, String)>,
    ) -> Result<Template> {
        let wrong = |problem: &str| {
            let found = format!("not a valid chat template ({})", truncated(problem));
            Error::input(place, found, "a Jinja template that transformers would accept")
        };
        let preprocessed = preprocess(source, MATERIALIZE).map_err(|problem| wrong(&problem))?;
        let clock = Arc::new(Clock { seconds: now.timestamp().into(), fixed: false.into() });
        let told = Arc::clone(&clock);
        let environment = match on_template_thread(move || environment(preprocessed, told, BASE_FUEL)) {
            Ok(environment) => environment.map_err(|error| wrong(&error.to_string()))?,
            Err(Unfinished::NoThread(error)) => return Err(no_thread(&error)),
            Err(Unfinished::Late) => return Err(wrong("compiling it takes too long")),
        };
        let given_up = AtomicBool::new(false);
        Ok(Template { environment, source: source.into(), place: place.into(), special, clock, given_up })
    }

    /// Whether the template may ask for the date.
    pub fn asks_for_date(&self) -> bool {
        self.source.contains("strftime_now")
    }

    /// The day that `strftime_now` tells, if it was fixed.
    pub fn fixed_date(&self) -> Option<NaiveDate> {
        self.clock.fixed.load(Ordering::Relaxed).then(|| self.clock.now().date_naive())
    }

    /// The day that `strftime_now` tells.
    pub fn date(&self) -> NaiveDate {
        self.clock.now().date_naive()
    }

    /// Fixes the time that `strftime_now` tells: midnight of a day, in UTC.
    pub fn fix_date(&self, date: NaiveDate) {
        let midnight = date.and_time(chrono::NaiveTime::MIN).and_utc();
        self.clock.seconds.store(midnight.timestamp(), Ordering::Relaxed);
        self.clock.fixed.store(true, Ordering::Relaxed);
    }

    /// Whether the template reads a variable.
    pub fn reads(&self, variable: &str) -> bool {
        reads(&self.source, variable)
    }

    /// The source as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The file that it came from.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Renders messages. `further` holds further variables (`tools`, `documents`). `thinking` is the value of
    /// `enable_thinking`; `None` leaves that name undefined.
    ///
    /// # Errors
    /// Messages that the template refuses (`raise_exception`), and a template that exceeds its limits.
    pub fn render(
        &self,
        messages: &[Message],
        further: &Map<String, Json>,
        add_generation_prompt: bool,
        thinking: Option<bool>,
    ) -> Result<String> {
        let too_slow = || format!("the chat template takes longer than {} s", TIMEOUT.as_secs());
        let over_limit = || "the chat template exceeds its limit of steps or output".to_owned();
        let wrong = |found: String| {
            Error::input(&self.place, found, "messages that the template accepts, or --chat-template FILE")
        };
        if self.given_up.load(Ordering::Relaxed) {
            return Err(wrong(too_slow()));
        }
        let bytes = |value: &Json| match value {
            Json::String(text) => text.len(),
            value => value.to_string().len(),
        };
        let field_bytes = |message: &Message| message.fields.values().map(bytes).sum::<usize>();
        let message_bytes: usize =
            messages.iter().map(|message| message.content.len() + field_bytes(message)).sum();
        let content_bytes = message_bytes + further.values().map(bytes).sum::<usize>();
        let fuel = BASE_FUEL + FUEL_PER_MESSAGE * messages.len() as u64 + content_bytes as u64;
        let none = || Value::from(());
        let mut variables = BTreeMap::from([
            ("messages".to_owned(), messages.iter().map(message_value).collect::<Value>()),
            ("add_generation_prompt".to_owned(), Value::from(add_generation_prompt)),
            ("tools".to_owned(), none()),
            ("documents".to_owned(), none()),
        ]);
        variables.extend(further.iter().map(|(name, value)| (name.clone(), python_compat::from_json(value))));
        variables.extend(thinking.map(|thinking| ("enable_thinking".to_owned(), Value::from(thinking))));
        let special = self.special.iter();
        variables.extend(special.map(|(name, token)| (name.clone(), Value::from(token.as_str()))));
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let rendered = on_template_thread(move || {
            let rendered =
                environment.get_template("chat").and_then(|chat| chat.render(Value::from(variables)));
            rendered.map_err(|error| match error.kind() {
                ErrorKind::OutOfFuel => over_limit(),
                _ => format!("the chat template fails: {}", truncated(&error.to_string())),
            })
        });
        match rendered {
            Ok(rendered) => {
                let text = rendered.map_err(wrong)?;
                let limit =
                    BASE_OUTPUT + OUTPUT_PER_MESSAGE * messages.len() + OUTPUT_PER_BYTE * content_bytes;
                match text.len() <= limit {
                    true => Ok(text),
                    false => Err(wrong(format!(
                        "the chat template writes {} bytes for {content_bytes} bytes of content, above its limit of {limit}",
                        text.len()
                    ))),
                }
            }
            Err(Unfinished::NoThread(error)) => Err(no_thread(&error)),
            Err(Unfinished::Late) => {
                self.given_up.store(true, Ordering::Relaxed);
                Err(wrong(too_slow()))
            }
        }
    }
}

/// A message as templates read it: role, content, then its other fields. As in transformers, what is null is left out, because
/// many templates write it as `None`.
fn message_value(message: &Message) -> Value {
    let content = (!message.fields.contains_key("content")).then(|| Value::from(message.content.as_str()));
    let own = [("role", Some(Value::from(message.role_name()))), ("content", content)];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let others = message.fields.iter().filter(|(name, value)| *name != "role" && !value.is_null());
    let fields = others.map(|(name, value)| (name.as_str(), python_compat::from_json(value)));
    Value::from_pairs(own.chain(fields))
}

fn truncated(text: &str) -> String {
    match text.char_indices().nth(MAX_ERROR_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String> {
        let special = vec![("bos_token".to_owned(), "<s>".to_owned())];
        let role = |name: &str| serde_json::from_value(name.into()).unwrap();
        let messages: Vec<Message> =
            messages.iter().map(|(name, said)| Message::new(role(name), *said)).collect();
        Template::new("chat_template.jinja", source, special)?.render(&messages, &Map::new(), true, None)
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
        assert!(error.contains("not a valid chat template (syntax error"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    /// The fixture holds what transformers' Jinja gives. It leaves out what no chat template needs: `%` on text, `cycler`,
    /// `joiner`, `varargs`, and Jinja's filters for prose and pages (`truncate`, `wordwrap`, `urlencode`, …).
    #[test]
    fn expressions_give_what_jinja_gives() {
        #[derive(serde::Deserialize)]
        struct Listed {
            messages: Vec<crate::dialogue::Message>,
            cases: Vec<(String, Option<String>)>,
        }
        let listed: Listed =
            serde_json::from_str(&crate::model::chat::tests::fixture("expressions.json")).unwrap();
        let messages: Vec<(&str, &str)> =
            listed.messages.iter().map(|m| (m.role.name(), m.content.as_str())).collect();
        for (source, expected) in &listed.cases {
            assert_eq!(render(source, &messages).ok().as_ref(), expected.as_ref(), "{source}");
        }
        assert!(listed.cases.len() > 500);
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn the_time_is_asked_once() {
        let source = "{{ strftime_now('%d %b %Y') }}";
        let template =
            Template::compiled_at(at(1_709_164_800), "chat_template.jinja", source, vec![]).unwrap();
        let told = || template.render(&[], &Map::new(), true, None).unwrap();
        assert_eq!((told(), template.fixed_date()), ("29 Feb 2024".into(), None));
        let day = NaiveDate::from_ymd_opt(2025, 12, 1).unwrap();
        template.fix_date(day);
        assert_eq!((told(), template.fixed_date()), ("01 Dec 2025".into(), Some(day)));
        let error = render("{{ strftime_now('%Q') }}", &[]).unwrap_err().to_string();
        assert!(error.contains("does not know the format %Q"), "{error}");
    }

    #[test]
    fn long_texts_are_refused_by_their_length() {
        for (source, expected) in [
            ("{{ strftime_now('%d' * 10000000) }}", "format of 20000000 bytes, above the limit of 1024"),
            ("{{ strftime_now('d' * 1025) }}", "format of 1025 bytes"),
            (
                "{{ 'a' * 5000000 }}",
                "writes 5000000 bytes for 0 bytes of content, above its limit of 1048576",
            ),
            ("{{ 'a' * 1048577 }}", "writes 1048577 bytes"),
            ("{% for i in range(2000) %}{{ 'a' * 1000 }}{% endfor %}", "writes 2000000 bytes"),
        ] {
            let error = render(source, &[]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.lines().count() == 1, "{source}: {error}");
        }
        assert_eq!(render("{{ strftime_now('d' * 1024) }}", &[]).unwrap().len(), 1024);
        assert_eq!(render("{{ 'a' * 1048576 }}", &[]).unwrap().len(), 1 << 20);
        // A message and its content allow more.
        let more = 4096 + 64 * 2;
        let source = format!("{{{{ 'a' * {} }}}}", (1 << 20) + more);
        assert_eq!(render(&source, &[("user", "hi")]).unwrap().len(), (1 << 20) + more);
    }

    #[test]
    fn an_endless_template_ends() {
        let grow = |what: &str| {
            format!(
                "{{% set n = namespace(x={what}) %}}{{% for i in range(99) %}}{{% set n.x = n.x + n.x %}}{{% endfor %}}"
            )
        };
        let slow = |what: &str| {
            format!(
                "{{% set a = 'ab' * 30000 %}}{{% set l = range(5000) | list %}}{{% for i in range(99999) %}}{{% if {what} %}}{{% endif %}}{{% endfor %}}"
            )
        };
        let again =
            "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
        let nest = "{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% for j in range(100) %}{% set n.x = [n.x] %}{% endfor %}{% endfor %}";
        let endless = [
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}".to_owned(),
            "{{ 'x' * 10**9 }}".into(),
            grow("'xxxxxxxx'"),
            grow("[1]"),
            format!("{again}{{{{ n.x == 1 }}}}"),
            "{{ ('a\\n' * 100000) | indent(100000) }}".into(),
            "{% set a = 'x' * 10000000 %}{% for i in range(9999) %}{{ a }}{% endfor %}".into(),
            slow("l.index(4999)"),
            slow("l.count(1)"),
            slow("a.title()"),
            slow("a.swapcase()"),
        ];
        let refused = [
            ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion limit"),
            ("{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "recursion limit"),
            ("{{ 'x' * 9999999999 }}", "limit of steps or output"),
            ("{{ ([1] * 10**9) | length }}", "too large"),
            ("{% set n = namespace() %}{% set n.x = n %}{{ n }}", "lists nested more than 64 deep"),
            ("{% set n = namespace() %}{% set n.x = n %}{{ n | tojson }}", "lists nested more than 64 deep"),
            (nest, "lists nested more than 64 deep"),
            ("{{ 'a'.center(10**9) }}", "wider than"),
            ("{{ '{:>999999999}'.format(1) }}", "wider than"),
        ];
        let begin = std::time::Instant::now();
        for source in endless {
            let error = render(&source, &[]).unwrap_err().to_string();
            assert!(error.contains("exceeds its limit of steps or output"), "{source}: {error}");
        }
        for (source, expected) in refused {
            let error = render(source, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{source}: {error}");
        }
        let error = render("{{ raise_exception('x' * 100000) }}", &[]).unwrap_err().to_string();
        assert!(error.len() < 1000, "{}", error.len());
        assert!(begin.elapsed().as_secs() < 60);
    }

    #[test]
    fn a_deep_template_does_not_overflow_the_stack() {
        for (open, middle, close) in
            [("", "+1", ""), ("", ".a", ""), ("(", "", ")"), ("[", "", "]"), ("- ", "", ""), ("", "()", "")]
        {
            let source = format!(
                "{{{{ {}1{}{} }}}}",
                open.repeat(30_000),
                middle.repeat(30_000),
                close.repeat(30_000)
            );
            // An error or a text: it must only return.
            let _ = render(&source, &[]);
        }
        let _ = render(&format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}x".repeat(20_000)), &[]);
        let error = render(&"{% if 1 %}".repeat(20_000), &[]).unwrap_err().to_string();
        assert!(error.contains("recursion"), "{error}");
    }
}
