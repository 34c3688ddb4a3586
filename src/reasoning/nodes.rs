//! Places of a chain's nodes in the text of a thinking part: between the organism's semicolons, the lines of Oyster-I's chain, or the
//! sentences of free text.

use std::ops::Range;

use super::chain::Node;
use super::free_answering;
use super::sentences::{by_cues, sentences};
use super::{organism, oyster};
use crate::error::Result;

/// How a chain is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainForm {
    /// The organism's grammar.
    Organism,
    /// Oyster-I's JSON of four nodes.
    Oyster,
    /// Free text, each sentence by its cue words (English).
    Text,
}

/// A part of a thinking part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlace {
    /// What it is: a node, a kind of strategy, or `other`.
    pub part: &'static str,
    /// Where it stands, in bytes.
    pub range: Range<usize>,
}

/// The thinking part that a chain's text stands for, and the places of its parts in it.
///
/// # Errors
/// Text of another form; text without a sentence.
pub fn places(place: &str, text: &str, form: ChainForm) -> Result<(String, Vec<NodePlace>)> {
    let part = |whole: &str, own: &str, part: &'static str| {
        // `own` is a slice of `whole`.
        let begin = own.as_ptr() as usize - whole.as_ptr() as usize;
        NodePlace { part, range: begin..begin + own.len() }
    };
    let thinking = text.split("</think>").next().unwrap_or_default();
    let thinking = thinking.rsplit("<think>").next().unwrap_or_default().trim().to_owned();
    match form {
        ChainForm::Organism => {
            organism::parse(place, text)?;
            let nodes = thinking.split(';').map(str::trim).zip(Node::ALL);
            let places = nodes.map(|(own, node)| part(&thinking, own, node.name())).collect();
            Ok((thinking, places))
        }
        ChainForm::Oyster => {
            let written = free_answering::text(&oyster::parse(place, text)?);
            let names = ["needs", "risk-intent", "guidelines", "safety-strategy", "usefulness-strategy"];
            let places = written.lines().zip(names).map(|(own, name)| part(&written, own, name)).collect();
            Ok((written, places))
        }
        ChainForm::Text => {
            let found: Vec<NodePlace> = sentences(&thinking)
                .into_iter()
                .map(|own| part(&thinking, own, by_cues(own).map_or("other", |part| part.name())))
                .collect();
            match found.is_empty() {
                true => Err(crate::Error::input(place, "no sentence", "a thinking part of one or more")),
                false => Ok((thinking, found)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, form: ChainForm) -> Vec<(&'static str, String)> {
        let (thinking, places) = places("t", text, form).unwrap();
        places.into_iter().map(|one| (one.part, thinking[one.range].to_owned())).collect()
    }

    #[test]
    fn nodes_are_found_in_three_forms() {
        let organism = "<think> comfort is the need ; R1 , willing helpful , kind aim , gloomy trusting , shaken mind , sensitive request ; rule : support ; plan : guide </think> gently";
        let found = shown(organism, ChainForm::Organism);
        assert_eq!(found[0], ("needs", "comfort is the need".into()));
        assert_eq!(found[3], ("strategies", "plan : guide".into()));
        let oyster = r#"{"User Needs Analysis": "sleep", "Risk Intent Analysis": "overuse", "Safety Guidelines": "no doses",
            "Response Strategy Formulation": {"Safety Strategies": "name no dose; warn", "Usefulness Strategies": "explain"}}"#;
        let found = shown(oyster, ChainForm::Oyster);
        assert_eq!(found.len(), 5);
        assert_eq!(found[3], ("safety-strategy", "Safety strategies: name no dose; warn".into()));
        let found = shown("The user wants to sleep. Hm. I avoid numbers!</think>Well.", ChainForm::Text);
        assert_eq!(
            found,
            [
                ("needs", "The user wants to sleep.".into()),
                ("other", "Hm.".into()),
                ("safety-strategy", "I avoid numbers!".into())
            ]
        );
        assert!(places("t", " … ", ChainForm::Text).is_err() && places("t", "x", ChainForm::Oyster).is_err());
    }
}
