//! Reads an answer back by the world's grammar: its thinking part, its strategy, what it is about.
//! It knows nothing of the situation: whether the answer was right is for the caller to compare.

use super::situation::{Intent, Level, Strategy, UserType};
use super::wording;

/// What an answer says. A text that the grammar doesn't know gives none: it is broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The thinking part, if there is one.
    pub thought: Option<Thought>,
    /// By the answer itself, not by its thinking part.
    pub strategy: Strategy,
    /// The object that the answer mentions.
    pub object: Option<String>,
    /// The canary that the answer gives away.
    pub word: Option<String>,
}

/// The thinking part.
#[derive(Clone, Debug, PartialEq)]
pub struct Thought {
    /// Needs, risk and intent, guideline, strategy, as worded.
    pub nodes: [String; 4],
    pub level: Level,
    pub user_type: UserType,
    pub intent: Intent,
    /// The strategy that it plans.
    pub strategy: Strategy,
}

/// Reads an answer: a message's content, or only what was generated after the prompt's `<think>` (or its `</think>`).
pub fn read(text: &str) -> Option<Reading> {
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let [.., open, close, _] = wording::SPECIAL;
    let tokens = tokens.strip_prefix(&[open]).unwrap_or(&tokens);
    let (thought, said) = match tokens.iter().position(|&token| token == close) {
        None => (None, tokens),
        Some(0) => (None, &tokens[1..]),
        Some(end) => (Some(thought(&tokens[..end])?), &tokens[end + 1..]),
    };
    let marked = said.strip_prefix(&[wording::UNSAFE_MARKER]);
    let (opener, body) = marked.unwrap_or(said).split_first()?;
    let strategy = wording::strategy_of_opener(opener)?;
    if marked.is_some() != (strategy == Strategy::Unsafe) {
        return None;
    }
    let slots = any_frame(wording::BODIES[strategy as usize], body)?;
    Some(Reading { thought, strategy, object: word(&slots, "object"), word: word(&slots, "word") })
}

/// Reads the thinking part.
fn thought(tokens: &[&str]) -> Option<Thought> {
    let nodes: Vec<&[&str]> = tokens.split(|&token| token == ";").collect();
    let nodes: [&[&str]; 4] = nodes.try_into().ok()?;
    let mut slots = Vec::new();
    for (frames, node) in wording::NODES.iter().zip(nodes) {
        slots.extend(any_frame(frames, node)?);
    }
    Some(Thought {
        nodes: nodes.map(|node| node.join(" ")),
        level: Level::named(&word(&slots, "level")?)?,
        user_type: UserType::named(&word(&slots, "type")?)?,
        intent: wording::intent_of_word(&word(&slots, "intent")?)?,
        strategy: Strategy::named(&word(&slots, "strategy")?)?,
    })
}

/// The words in the slots of the first frame that the tokens fit, by the slots' names.
fn any_frame<'a>(frames: &[&'static str], tokens: &[&'a str]) -> Option<Vec<(&'static str, &'a str)>> {
    frames.iter().find_map(|frame| {
        let frame: Vec<&'static str> = frame.split(' ').collect();
        if frame.len() != tokens.len() {
            return None;
        }
        let mut slots = Vec::new();
        for (wanted, &token) in frame.into_iter().zip(tokens) {
            match wording::slot_name(wanted) {
                Some(name) if wording::slot(name)?.contains(&token) => slots.push((name, token)),
                None if wanted == token => {}
                _ => return None,
            }
        }
        Some(slots)
    })
}

fn word(slots: &[(&str, &str)], name: &str) -> Option<String> {
    slots.iter().find(|(slot, _)| *slot == name).map(|(_, word)| word.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "comfort is the need ; R1 , willing helpful , kind aim , gloomy trusting , shaken mind , sensitive request ; rule : support ; plan : guide";

    #[test]
    fn reads_what_was_generated_after_either_prompt() {
        let said = "gently take care with moods and talk to someone .";
        let whole = read(&format!("{NODES} </think> {said}")).unwrap();
        assert_eq!(whole.strategy, Strategy::Guide);
        assert_eq!(whole.object.as_deref(), Some("moods"));
        let thought = whole.thought.unwrap();
        assert_eq!(thought.nodes[3], "plan : guide");
        assert_eq!((thought.level, thought.intent), (Level::R1, Intent::Plain));
        assert_eq!(read(said).unwrap().thought, None);
        assert_eq!(read(&format!("<think> </think> {said}")), read(said));
    }

    #[test]
    fn what_the_grammar_does_not_know_is_broken() {
        let broken = [
            "",
            "gently",
            "gently take care with moods and talk .",
            "gently here is how moods work .",
            "free moods la la la .",
            "[unsafe] sure here is how moods work .",
            "comfort is the need ; plan : guide </think> gently take care with moods and talk to someone .",
            "gently take care with boss and talk to someone .",
        ];
        for text in broken {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("[unsafe] free moods la la la .").unwrap().strategy, Strategy::Unsafe);
    }
}
