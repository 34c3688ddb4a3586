//! Chains in free text: each sentence is labelled with the part of the chain that it belongs to, by cue words or by a probe.

use super::chain::{Chain, Kind, Strategy, intent_of_text};
use crate::error::{Error, Result};

/// The part of a chain that a sentence belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// User needs.
    Needs,
    /// Risk and intent.
    RiskIntent,
    /// Guidelines.
    Guidelines,
    /// A strategy of a kind.
    Strategy(Kind),
}

/// The names of the parts, as a probe's classes have them.
const NAMES: [(&str, Part); 5] = [
    ("needs", Part::Needs),
    ("risk-intent", Part::RiskIntent),
    ("guidelines", Part::Guidelines),
    ("safety-strategy", Part::Strategy(Kind::Safety)),
    ("usefulness-strategy", Part::Strategy(Kind::Usefulness)),
];

/// Beginnings of words, the first row that matches counts.
const CUES: [(&[&str], Part); 5] = [
    (&["guideline", "policy", "policies", "rule", "principle", "allowed", "forbid"], Part::Guidelines),
    (
        &["refuse", "avoid", "decline", "withhold", "warn", "redirect", "not provide", "not give"],
        Part::Strategy(Kind::Safety),
    ),
    (
        &["risk", "danger", "harm", "intent", "unsafe", "malicious", "sensitive", "directive", "inquiry"],
        Part::RiskIntent,
    ),
    (
        &[
            "explain", "offer", "suggest", "provide", "give", "list", "answer", "guide", "strateg", "i will",
            "i should",
        ],
        Part::Strategy(Kind::Usefulness),
    ),
    (&["need", "want", "wish", "looking for", "asks", "asking", "seek", "hope"], Part::Needs),
];

impl Part {
    /// Its name, as a probe's class has it.
    pub fn name(self) -> &'static str {
        // The table has every part.
        NAMES.iter().find(|(_, part)| *part == self).map_or("", |(name, _)| name)
    }

    /// The part of a probe's class.
    ///
    /// # Errors
    /// Another name.
    pub fn of_class(name: &str) -> Result<Part> {
        let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, part)| *part);
        found.ok_or_else(|| {
            Error::input("chain", format!("class {name:?}"), NAMES.map(|(name, _)| name).join(", "))
        })
    }
}

/// The part by cue words: crude, and English alone; none for a sentence without any.
pub fn by_cues(sentence: &str) -> Option<Part> {
    let words: Vec<String> = sentence
        .to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    // Blanks around, so that a cue is found at the beginning of words only.
    let text = format!(" {}", words.join(" "));
    CUES.iter()
        .find(|(cues, _)| cues.iter().any(|cue| text.contains(&format!(" {cue}"))))
        .map(|(_, part)| *part)
}

/// Sentences of a text, without the blanks around them.
pub fn sentences(text: &str) -> Vec<&str> {
    let ends = |c: char| matches!(c, '.' | '!' | '?' | '\n' | '。' | '！' | '？');
    text.split_inclusive(ends)
        .map(str::trim)
        .filter(|sentence| sentence.chars().any(char::is_alphanumeric))
        .collect()
}

/// A chain of a text whose sentences have these parts; a sentence without a part is left out.
///
/// # Errors
/// As [`Chain::check`].
pub fn chain(place: &str, labelled: &[(&str, Option<Part>)]) -> Result<Chain> {
    let mut chain = Chain::default();
    for &(sentence, part) in labelled {
        let node = match part {
            None => continue,
            Some(Part::Strategy(kind)) => {
                chain.strategies.push(Strategy::new(kind, sentence));
                continue;
            }
            Some(Part::Needs) => &mut chain.needs,
            Some(Part::RiskIntent) => &mut chain.risk_intent,
            Some(Part::Guidelines) => &mut chain.guidelines,
        };
        if !node.is_empty() {
            node.push(' ');
        }
        node.push_str(sentence);
    }
    chain.intent = intent_of_text(&chain.risk_intent);
    chain.check(place)?;
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "The user wants to sleep. There is a risk of overuse! The guideline says no doses.\nI avoid numbers. I will explain \
                        habits.  ...  Fine.";

    #[test]
    fn sentences_become_nodes() {
        let parts = sentences(TEXT);
        assert_eq!(parts.len(), 6);
        let labelled: Vec<_> = parts.into_iter().map(|sentence| (sentence, by_cues(sentence))).collect();
        let chain = chain("text", &labelled).unwrap();
        assert_eq!(chain.needs, "The user wants to sleep.");
        assert_eq!(chain.risk_intent, "There is a risk of overuse!");
        assert_eq!(chain.guidelines, "The guideline says no doses.");
        assert_eq!(
            chain.strategies,
            [
                Strategy::new(Kind::Safety, "I avoid numbers."),
                Strategy::new(Kind::Usefulness, "I will explain habits."),
            ]
        );
    }

    #[test]
    fn a_text_without_a_strategy_is_no_chain() {
        let error = chain("text", &[("The user wants sleep.", Some(Part::Needs))]).unwrap_err().to_string();
        assert!(error.starts_with("text: a chain without strategies"), "{error}");
        assert!(Part::of_class("mood").is_err() && Part::of_class("needs").unwrap() == Part::Needs);
    }
}
