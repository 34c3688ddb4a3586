//! A page that shows an answer token by token: where steering changed the state, how far, and what the probes read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::template;
use crate::error::Result;

/// The tokens of one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The dialogue's id.
    #[serde(skip)]
    pub id: String,
    /// In the order of the text.
    pub tokens: Vec<Token>,
}

/// One token, and the steering steps at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Absolute position in the dialogue, from 0.
    pub position: usize,
    /// Its number in the vocabulary.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Whether the model generated it.
    pub generated: bool,
    /// The part of the turn that it belongs to.
    pub phase: String,
    /// Steps in the order of the operations. Each is an object, with the length of the change as `moved`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Value>,
}

/// The page as the text of an HTML file.
///
/// # Errors
/// If the template can't be rendered.
pub fn page(traces: &[Trace]) -> Result<String> {
    #[derive(Serialize)]
    struct View<'a> {
        traces: Vec<TraceView<'a>>,
    }
    let traces = traces.iter().map(TraceView::new).collect();
    template::render("steering_trace.html", View { traces })
}

#[derive(Serialize)]
struct TraceView<'a> {
    id: &'a str,
    tokens: Vec<TokenView<'a>>,
    steps: Vec<StepView<'a>>,
}

#[derive(Serialize)]
struct TokenView<'a> {
    position: usize,
    phase: &'a str,
    text: &'a str,
    generated: bool,
    moved: String,
    /// Of its background; none where nothing was changed.
    opacity: Option<String>,
}

#[derive(Serialize)]
struct StepView<'a> {
    position: usize,
    text: &'a str,
    operation: &'a str,
    site: &'a str,
    scale: String,
    moved: String,
    readings: String,
    faces: String,
}

impl<'a> TraceView<'a> {
    fn new(trace: &'a Trace) -> TraceView<'a> {
        let farthest = trace.tokens.iter().map(moved).fold(0.0, f64::max);
        let token = |token: &'a Token| {
            let share = if farthest > 0.0 { moved(token) / farthest } else { 0.0 };
            TokenView {
                position: token.position,
                phase: &token.phase,
                text: &token.text,
                generated: token.generated,
                moved: format!("{:.3}", moved(token)),
                opacity: (share > 0.0).then(|| format!("{:.2}", 0.08 + 0.4 * share)),
            }
        };
        let steps = |token: &'a Token| token.steps.iter().map(|step| StepView::new(token, step));
        TraceView {
            id: &trace.id,
            tokens: trace.tokens.iter().map(token).collect(),
            steps: trace.tokens.iter().flat_map(steps).collect(),
        }
    }
}

impl<'a> StepView<'a> {
    fn new(token: &'a Token, step: &'a Value) -> StepView<'a> {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        let number = |key: &str| step[key].as_f64().map(|number| format!("{number:.3}"));
        let list = |key: &str| -> String {
            let entries = step[key].as_object().into_iter().flatten();
            let shown = entries
                .map(|(name, value)| format!("{} = {:.3}", short(name), value.as_f64().unwrap_or(0.0)));
            shown.collect::<Vec<_>>().join("; ")
        };
        let error = number("error").map_or(String::new(), |error| format!(" (error {error})"));
        StepView {
            position: token.position,
            text: &token.text,
            operation: text("operation"),
            site: text("site"),
            scale: number("scale").unwrap_or_default(),
            moved: number("moved").unwrap_or_default(),
            readings: list("readings") + &error,
            faces: list("faces"),
        }
    }
}

/// The length of a token's changes, summed over its steps.
fn moved(token: &Token) -> f64 {
    token.steps.iter().filter_map(|step| step["moved"].as_f64()).sum()
}

/// A probe's name without its folder.
fn short(name: &str) -> String {
    match name.rsplit_once(':') {
        Some((path, class)) => format!("{}:{class}", path.rsplit('/').next().unwrap_or(path)),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_moved_is_shown_with_what_was_read() {
        let step = serde_json::json!({"operation": "project", "site": "3.resid_post", "scale": 1.0, "moved": 2.5,
            "readings": {"p:<b>": 0.25}, "faces": {"runs/p:a/b < 0.5": 2.5}});
        let token = |text: &str, steps: Vec<Value>| Token {
            position: 4,
            id: 7,
            text: text.into(),
            generated: true,
            phase: "answer".into(),
            steps,
        };
        let trace =
            Trace { id: "one".into(), tokens: vec![token("<hi>", vec![step]), token("plain", Vec::new())] };
        let page = page(&[trace]).unwrap();
        for part in [
            "made moved",
            "&lt;hi&gt;",
            "project at 3.resid_post",
            "p:&lt;b&gt; = 0.250",
            ">p:a/b &lt; 0.5 = 2.500",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(page.contains("<span class=\"made\" title"));
        assert!(!page.contains("<hi>") && !page.contains("<b>"));
    }
}
