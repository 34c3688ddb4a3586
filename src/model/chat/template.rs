//! A chat template: Jinja, set up as transformers sets it up. It knows nothing of tokens.
//!
//! Source of the setup: `transformers.utils.chat_template_utils` (`ImmutableSandboxedEnvironment` with `trim_blocks`,
//! `lstrip_blocks`, loop controls, `tojson`, `raise_exception`, `strftime_now`, and the `generation` block).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, ErrorKind, State, context, escape_formatter};

use super::date::strftime;
use super::python_compat;
use super::template_preprocess::prepared;
use crate::error::{Error, Result};

/// A template may run this many instructions, and may make 64 bytes of text for each; and so many more for each message
/// and for each byte that is said.
const FUEL: u64 = 1_000_000;
const FUEL_OF_A_MESSAGE: u64 = 10_000;
/// However many messages there are.
const MOST_FUEL: u64 = 16_000_000;

/// What the fuel does not see (two lists compared that hold the same list again and again) ends with this.
const PATIENCE: Duration = Duration::from_secs(10);

/// The engine walks expressions and values by recursion. Memory that is not touched is not taken.
const STACK: usize = 256 << 20;

/// The longest text of an error that is shown.
const LONGEST_ERROR: usize = 400;

/// The filter that every assignment goes through; no template has a name for it.
const KEEPER: &str = "pearlpoint_kept";

/// A chat template, ready to render.
pub(crate) struct Template {
    environment: Environment<'static>,
    source: String,
    /// Where it was found, for errors.
    place: String,
    /// Names that the template may use (`bos_token`, `eos_token`, …) and their values.
    special: Vec<(String, String)>,
}

impl Template {
    /// Compiles a template. `special` are the tokenizer's named tokens. The template's `strftime_now` gives the time of
    /// this call, in UTC: a template renders alike however often it is asked.
    ///
    /// # Errors
    /// A template that is no Jinja; `place` is named.
    pub fn new(place: &str, source: &str, special: Vec<(String, String)>) -> Result<Template> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Template::at(now, place, source, special)
    }

    /// The same at another time, in seconds since 1970.
    fn at(now: u64, place: &str, source: &str, special: Vec<(String, String)>) -> Result<Template> {
        let wrong = |found: &str| {
            let found = format!("no chat template ({})", shortened(found));
            Error::input(place, found, "Jinja, as the hub's models have it")
        };
        let prepared = prepared(source, KEEPER).map_err(|found| wrong(&found))?;
        let environment = apart(move || environment(prepared, now));
        let environment = environment
            .ok_or_else(|| wrong("it takes too long to read"))?
            .map_err(|error| wrong(&error.to_string()))?;
        Ok(Template { environment, source: source.into(), place: place.into(), special })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn place(&self) -> &str {
        &self.place
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
        let said: usize = messages.iter().map(|(_, content)| content.len()).sum();
        let fuel = FUEL + (FUEL_OF_A_MESSAGE * messages.len() as u64).min(MOST_FUEL) + said as u64;
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
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let endless = || "the chat template does not come to an end".to_owned();
        let rendered = apart(move || {
            let rendered = environment.get_template("chat").and_then(|chat| chat.render(Value::from(names)));
            rendered.map_err(|error| match error.kind() {
                ErrorKind::OutOfFuel => endless(),
                _ => format!("the chat template fails: {}", shortened(&error.to_string())),
            })
        });
        rendered.unwrap_or_else(|| Err(endless())).map_err(|found| {
            Error::input(&self.place, found, "messages that the template takes, or --chat-template FILE")
        })
    }
}

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Where this thread's work is done that is done apart.
    static APART: RefCell<Option<Sender<Work>>> = const { RefCell::new(None) };
}

/// Does some work on a thread with room for deep recursion, and gives up waiting for one that does not end. The thread stays for
/// whoever asks to ask again: to begin one for each work costs more than most work does, and whoever lets go of a thread while
/// it ends may look at it when it is gone (glibc's `pthread_detach` does).
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    APART.with_borrow_mut(|apart| {
        if apart.is_none() {
            let (to, works) = channel::<Work>();
            let thread = std::thread::Builder::new().name("template".into()).stack_size(STACK);
            thread.spawn(move || works.into_iter().for_each(|work| work())).ok()?;
            *apart = Some(to);
        }
        // Nobody may be waiting any more; then there is nobody to tell.
        apart.as_ref()?.send(Box::new(move || drop(sender.send(work())))).ok()?;
        let answer = receiver.recv_timeout(PATIENCE).ok();
        if answer.is_none() {
            // It may never be free again.
            *apart = None;
        }
        answer
    })
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// The engine, set up as transformers sets up Jinja, with the template under the name `chat`.
fn environment(source: String, now: u64) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python_compat::method);
    environment.set_formatter(|out, state, value| {
        let written = match value.kind() {
            ValueKind::Bool => Some(if value.is_true() { "True" } else { "False" }.to_owned()),
            ValueKind::None => Some("None".to_owned()),
            ValueKind::Number if !value.is_integer() => {
                f64::try_from(value.clone()).ok().map(python_compat::float)
            }
            // Walked before it is written, for it may be small to make and endless to read.
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
                return escape_formatter(out, state, &python_compat::kept(state, value)?);
            }
            _ => None,
        };
        match written {
            Some(written) => out.write_str(&written).map_err(minijinja::Error::from),
            None => escape_formatter(out, state, value),
        }
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| {
        let wrong = || format!("strftime_now does not know the format {format}");
        strftime(now, format).ok_or_else(|| minijinja::Error::new(ErrorKind::InvalidOperation, wrong()))
    });
    environment.add_filter(KEEPER, |state: &State, value: &Value| python_compat::kept(state, value));
    environment.add_filter("tojson", python_compat::tojson);
    environment.add_filter("trim", python_compat::trim);
    environment.add_filter("int", python_compat::int);
    environment.add_filter("default", python_compat::default);
    environment.add_filter("d", python_compat::default);
    environment.add_test("sequence", python_compat::is_sequence);
    environment.add_test("iterable", python_compat::is_iterable);
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_template_owned("chat", source)?;
    Ok(environment)
}

fn raise_exception(message: &str) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()))
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

    /// What transformers' Jinja makes of them is in the fixture. Left out of it, for no chat template needs them: `%` of a
    /// text, `cycler`, `joiner`, Jinja's filters for prose and pages (`truncate`, `wordwrap`, `urlencode`, …), `varargs`.
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

    #[test]
    fn the_time_is_asked_once() {
        let source = "{{ strftime_now('%d %b %Y') }}";
        let template = Template::at(1_709_164_800, "chat_template.jinja", source, vec![]).unwrap();
        assert_eq!(template.render(&[], true, None).unwrap(), "29 Feb 2024");
        let error = render("{{ strftime_now('%Q') }}", &[]).unwrap_err().to_string();
        assert!(error.contains("does not know the format %Q"), "{error}");
    }

    #[test]
    fn an_endless_template_ends() {
        let grow = |what: &str| {
            format!(
                "{{% set n = namespace(x={what}) %}}{{% for i in range(99) %}}{{% set n.x = n.x + n.x %}}{{% endfor %}}"
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
        ];
        let refused = [
            ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion limit"),
            ("{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "recursion limit"),
            ("{{ 'x' * 9999999999 }}", "come to an end"),
            ("{{ ([1] * 10**9) | length }}", "too large"),
            ("{% set n = namespace() %}{% set n.x = n %}{{ n }}", "lists in lists without end"),
            ("{% set n = namespace() %}{% set n.x = n %}{{ n | tojson }}", "lists in lists without end"),
            (nest, "lists in lists without end"),
            ("{{ 'a'.center(10**9) }}", "wider than"),
            ("{{ '{:>999999999}'.format(1) }}", "wider than"),
        ];
        let begin = std::time::Instant::now();
        for source in endless {
            let error = render(&source, &[]).unwrap_err().to_string();
            assert!(error.contains("does not come to an end"), "{source}: {error}");
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
            // Whatever it gives, it gives it.
            let _ = render(&source, &[]);
        }
        let _ = render(&format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}x".repeat(20_000)), &[]);
        let error = render(&"{% if 1 %}".repeat(20_000), &[]).unwrap_err().to_string();
        assert!(error.contains("recursion"), "{error}");
    }
}
