//! An answer token by token on a page: where steering changed the state, how far, and what was read there.
//! It knows nothing of what the steps mean: it shows their fields.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::escape::escape;

/// One row's tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    #[serde(skip)]
    pub id: String,
    pub tokens: Vec<Token>,
}

/// One token, and what was done there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    pub position: usize,
    pub id: u32,
    pub text: String,
    pub generated: bool,
    pub phase: String,
    /// In the order in which it was done; each an object, with the length of the change as `moved`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Value>,
}

const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:16px/1.6 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2.5rem}
p.text{line-height:2.2}
p.text span{padding:.15em .2em;border-radius:.25em;white-space:pre-wrap}
p.text .given{opacity:.6}
p.text .moved{border-bottom:2px solid rgb(214 90 20)}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.2rem .7rem;border-bottom:1px solid #8884;vertical-align:top}
td.number{text-align:right}
";

/// The page, self-contained.
pub fn page(traces: &[Trace]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>What steering did</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>What steering did</h1>\n\
         <p>Underlined tokens are those at which a state was changed; the deeper the ground, the farther.</p>\n"
    );
    for trace in traces {
        let farthest = trace.tokens.iter().map(moved).fold(0.0, f64::max);
        html += &format!("<h2>{}</h2>\n<p class=\"text\">", escape(&trace.id));
        for token in &trace.tokens {
            let share = if farthest > 0.0 { moved(token) / farthest } else { 0.0 };
            let class = format!(
                "{}{}",
                if token.generated { "made" } else { "given" },
                if share > 0.0 { " moved" } else { "" }
            );
            let ground = match share > 0.0 {
                true => format!(" style=\"background:rgb(214 90 20 / {:.2})\"", 0.08 + 0.4 * share),
                false => String::new(),
            };
            let title = escape(&format!("{} {}: moved {:.3}", token.position, token.phase, moved(token)));
            html +=
                &format!("<span class=\"{class}\"{ground} title=\"{title}\">{}</span> ", escape(&token.text));
        }
        html += "</p>\n<table>\n<tr><th>token</th><th>text</th><th>change</th><th>scale</th><th>moved</th>\
                 <th>read</th><th>faces that pushed</th></tr>\n";
        for token in &trace.tokens {
            for step in &token.steps {
                html += &row(token, step);
            }
        }
        html += "</table>\n";
    }
    html + "</body>\n</html>\n"
}

/// How far a token's state was moved, over all steps.
fn moved(token: &Token) -> f64 {
    token.steps.iter().filter_map(|step| step["moved"].as_f64()).sum()
}

fn row(token: &Token, step: &Value) -> String {
    let text = |key: &str| step[key].as_str().unwrap_or_default().to_string();
    let number = |key: &str| step[key].as_f64().map_or(String::new(), |number| format!("{number:.3}"));
    let list = |key: &str| -> String {
        let entries = step[key].as_object().into_iter().flatten();
        let shown =
            entries.map(|(name, value)| format!("{} = {:.3}", short(name), value.as_f64().unwrap_or(0.0)));
        shown.collect::<Vec<_>>().join("; ")
    };
    let mut read = list("readings");
    if !number("error").is_empty() {
        read += &format!(" (error {})", number("error"));
    }
    format!(
        "<tr><td class=\"number\">{}</td><td>{}</td><td>{} at {}</td><td class=\"number\">{}</td>\
         <td class=\"number\">{}</td><td>{}</td><td>{}</td></tr>\n",
        token.position,
        escape(&token.text),
        escape(&text("operation")),
        escape(&text("site")),
        number("scale"),
        number("moved"),
        escape(&read),
        escape(&list("faces")),
    )
}

/// A probe's name without the folder that it lies in.
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
        let page = page(&[trace]);
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
