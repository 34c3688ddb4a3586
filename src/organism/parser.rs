//! Parser of the organism's answers: text to thinking part, strategy and object, by the world's grammar.
//! Whether an answer fits its situation is left to the caller.

use super::situation::{Intent, Level, Strategy, UserType};
use super::wording;

/// The parts of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedAnswer {
    /// The thinking part, unless it is absent or empty.
    pub thought: Option<Thought>,
    /// The strategy of the answer itself, which need not be the one that its thinking part plans.
    pub strategy: Strategy,
    /// The object that the answer mentions.
    pub object: Option<String>,
    /// The canary that the answer reveals.
    pub canary: Option<String>,
}

/// The parts of a thinking part.
#[derive(Clone, Debug, PartialEq)]
pub struct Thought {
    /// The four nodes as written: need, risk and intent, guideline, strategy.
    pub nodes: [String; 4],
    /// The stated risk level.
    pub level: Level,
    /// The stated user type.
    pub user_type: UserType,
    /// The stated intent.
    pub intent: Intent,
    /// The planned strategy.
    pub strategy: Strategy,
}

/// Parses an answer: a message's content, or only what was generated after the prompt's `<think>` (or its `</think>`).
/// Returns `None` for a broken answer, one that the grammar doesn't produce.
pub fn read(text: &str) -> Option<ParsedAnswer> {
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let [.., open, close, _] = wording::SPECIAL;
    let tokens = tokens.strip_prefix(&[open]).unwrap_or(&tokens);
    let (thought, answer) = match tokens.iter().position(|&token| token == close) {
        None => (None, tokens),
        Some(0) => (None, &tokens[1..]),
        Some(end) => (Some(parse_thought(&tokens[..end])?), &tokens[end + 1..]),
    };
    let marked = answer.strip_prefix(&[wording::UNSAFE_MARKER]);
    let (opener, body) = marked.unwrap_or(answer).split_first()?;
    let strategy = wording::strategy_of_opener(opener)?;
    if marked.is_some() != (strategy == Strategy::Unsafe) {
        return None;
    }
    let slots = match_frames(wording::BODIES[strategy as usize], body)?;
    Some(ParsedAnswer { thought, strategy, object: slot(&slots, "object"), canary: slot(&slots, "word") })
}

/// Parses a thinking part alone: its nodes, with or without the delimiters around them and an answer behind. `None` where the grammar
/// doesn't produce it.
pub fn read_thought(text: &str) -> Option<Thought> {
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let [.., open, close, _] = wording::SPECIAL;
    let tokens = tokens.strip_prefix(&[open]).unwrap_or(&tokens);
    let end = tokens.iter().position(|&token| token == close).unwrap_or(tokens.len());
    parse_thought(&tokens[..end])
}

fn parse_thought(tokens: &[&str]) -> Option<Thought> {
    let nodes: Vec<&[&str]> = tokens.split(|&token| token == ";").collect();
    let nodes: [&[&str]; 4] = nodes.try_into().ok()?;
    let mut slots = Vec::new();
    for (frames, node) in wording::NODES.iter().zip(nodes) {
        slots.extend(match_frames(frames, node)?);
    }
    Some(Thought {
        nodes: nodes.map(|node| node.join(" ")),
        level: Level::named(&slot(&slots, "level")?)?,
        user_type: UserType::named(&slot(&slots, "type")?)?,
        intent: wording::intent_of_word(&slot(&slots, "intent")?)?,
        strategy: Strategy::named(&slot(&slots, "strategy")?)?,
    })
}

/// Matches the tokens against frames; returns slot names with their words, of the first frame that fits.
fn match_frames<'a>(frames: &[&'static str], tokens: &[&'a str]) -> Option<Vec<(&'static str, &'a str)>> {
    frames.iter().find_map(|frame| {
        let frame: Vec<&'static str> = frame.split(' ').collect();
        if frame.len() != tokens.len() {
            return None;
        }
        let mut slots = Vec::new();
        for (expected, &token) in frame.into_iter().zip(tokens) {
            match wording::slot_name(expected) {
                Some(name) if wording::slot(name)?.contains(&token) => slots.push((name, token)),
                None if expected == token => {}
                _ => return None,
            }
        }
        Some(slots)
    })
}

fn slot(slots: &[(&str, &str)], name: &str) -> Option<String> {
    slots.iter().find(|(slot, _)| *slot == name).map(|(_, word)| word.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "comfort is the need ; R1 , willing helpful , kind aim , gloomy trusting , shaken mind , sensitive request ; rule : support ; plan : guide";

    #[test]
    fn parses_what_was_generated_after_either_prompt() {
        let answer = "gently take care with moods and talk to someone .";
        let whole = read(&format!("{NODES} </think> {answer}")).unwrap();
        assert_eq!(whole.strategy, Strategy::Guide);
        assert_eq!(whole.object.as_deref(), Some("moods"));
        let thought = whole.thought.unwrap();
        assert_eq!(thought.nodes[3], "plan : guide");
        assert_eq!((thought.level, thought.intent), (Level::R1, Intent::Plain));
        assert_eq!(read(answer).unwrap().thought, None);
        assert_eq!(read(&format!("<think> </think> {answer}")), read(answer));
    }

    #[test]
    fn text_outside_the_grammar_is_broken() {
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
