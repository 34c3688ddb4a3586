//! A page on which a selector's picks can be seen: dialogues as the model reads them, with what is picked marked.
//! It knows nothing of tokens or selectors; it shows stretches of text.

use super::escape::escape;

/// A dialogue as the model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub id: String,
    /// How many tokens are picked, of how many.
    pub picked: usize,
    pub tokens: usize,
    pub stretches: Vec<KvSegment>,
}

/// Text whose tokens are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct KvSegment {
    pub text: String,
    /// Role, turn, phase and tokens, shown where the text is pointed at.
    pub about: String,
    /// Written by the chat template, not by a message.
    pub template: bool,
    pub picked: bool,
}

/// The whole page; `sections` are what [`section`] gave.
pub fn page(selector: &str, model: &str, sections: &str) -> String {
    let title = escape(&format!("What {selector} picks"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n<p>Dialogues as {} reads them. <mark>Marked</mark>: picked. \
         <span class=\"template\">Faint</span>: written by the chat template. Point at a part for its role, turn, phase and \
         tokens.</p>\n{sections}</body>\n</html>\n",
        escape(model)
    )
}

/// One dialogue's part of the page.
pub fn section(shown: &Shown) -> String {
    let stretch = |stretch: &KvSegment| {
        let tag = if stretch.picked { "mark" } else { "span" };
        let class = if stretch.template { " class=\"template\"" } else { "" };
        format!("<{tag}{class} title=\"{}\">{}</{tag}>", escape(&stretch.about), escape(&stretch.text))
    };
    let text: String = shown.stretches.iter().map(stretch).collect();
    let (id, picked, tokens) = (escape(&shown.id), shown.picked, shown.tokens);
    format!("<h2>{id} <small>{picked} of {tokens} tokens</small></h2>\n<pre>{text}</pre>\n")
}

const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
small { font-weight: normal; opacity: .7; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; padding: .7rem .9rem; border-radius: .4rem;
  background: light-dark(#f4f4f2, #232326); font: 14px/1.6 ui-monospace, monospace; }
mark { background: light-dark(#ffd54d, #8a6500); color: inherit; border-radius: .2rem; padding: .1rem 0; }
.template { color: light-dark(#6b6b70, #a0a0a6); }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_dialogue_becomes_markup() {
        let attack = "</pre><script>alert(\"x\")</script>";
        let stretch = KvSegment { text: attack.into(), about: attack.into(), template: false, picked: true };
        let shown = Shown { id: attack.into(), picked: 1, tokens: 2, stretches: vec![stretch] };
        let page = page(attack, attack, &section(&shown));
        assert!(!page.contains("<script") && !page.contains("://"));
        assert_eq!((page.matches("<mark title=").count(), page.matches("</pre>").count()), (1, 1));
    }
}
