//! The HTML templates of the pages, and their rendering with every text escaped.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, escape_formatter};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::report::escape::escape;

/// Names and sources. Values are escaped in those whose name ends in `.html`; style sheets are included as they are.
const TEMPLATES: [(&str, &str); 8] = [
    ("page.html", include_str!("templates/page.html")),
    ("page.css", include_str!("templates/page.css")),
    ("table.html", include_str!("templates/table.html")),
    ("token_strip.html", include_str!("templates/token_strip.html")),
    ("selected_tokens.html", include_str!("templates/selected_tokens.html")),
    ("selected_tokens.css", include_str!("templates/selected_tokens.css")),
    ("steering_trace.html", include_str!("templates/steering_trace.html")),
    ("steering_trace.css", include_str!("templates/steering_trace.css")),
];

/// The template `name` filled with the fields of `context`.
///
/// # Errors
/// If there is no such template, or it uses a field that `context` lacks.
pub(super) fn render(name: &str, context: impl Serialize) -> Result<String> {
    let fill = || {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        // minijinja's own escaping leaves control characters, which HTML can't hold.
        environment.set_formatter(|output, state, value| match (state.auto_escape(), value.as_str()) {
            (AutoEscape::Html, Some(text)) if !value.is_safe() => Ok(output.write_str(&escape(text))?),
            _ => escape_formatter(output, state, value),
        });
        for (name, source) in TEMPLATES {
            environment.add_template(name, source)?;
        }
        environment.get_template(name)?.render(Value::from(Serde(context)))
    };
    fill().map_err(|problem: minijinja::Error| {
        Error::input(format!("page template {name}"), format!("{problem:#}"), "a template and its fields")
    })
}
