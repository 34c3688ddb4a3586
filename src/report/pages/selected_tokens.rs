//! A page that shows which tokens a selector picks: dialogues as the model reads them, with the picked tokens marked.

use serde::Serialize;

use super::template;
use crate::error::Result;

/// A dialogue as the model reads it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// The dialogue's id.
    pub id: String,
    /// How many tokens are picked.
    pub picked: usize,
    /// How many tokens there are.
    pub tokens: usize,
    /// The text, in order.
    pub segments: Vec<Segment>,
}

/// Consecutive tokens of the same turn and phase that are all picked, or all not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// The tokens' text.
    pub text: String,
    /// Role, turn, phase and tokens: the tooltip.
    pub about: String,
    /// Whether the chat template wrote it.
    pub template: bool,
    /// Whether the selector picks it.
    pub picked: bool,
}

/// The page as the text of an HTML file.
///
/// # Errors
/// If the template can't be rendered.
pub fn page(selector: &str, model: &str, dialogues: &[Shown]) -> Result<String> {
    #[derive(Serialize)]
    struct View<'a> {
        selector: &'a str,
        model: &'a str,
        dialogues: &'a [Shown],
    }
    template::render("selected_tokens.html", View { selector, model, dialogues })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_dialogue_becomes_markup() {
        let attack = "</pre><script>alert(\"x\")</script>";
        let segment = Segment { text: attack.into(), about: attack.into(), template: false, picked: true };
        let shown = Shown { id: attack.into(), picked: 1, tokens: 2, segments: vec![segment] };
        let page = page(attack, attack, &[shown]).unwrap();
        assert!(!page.contains("<script") && !page.contains("://"));
        assert_eq!((page.matches("<mark title=").count(), page.matches("</pre>").count()), (1, 1));
    }
}
