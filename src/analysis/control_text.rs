//! The text that a control on words reads beside a probe: that of the messages, or of the parts of messages, whose tokens the
//! probe's selector picks.
//!
//! | selector | text |
//! |---|---|
//! | `answer`, `think` | the assistant's answers without their thinking parts; the thinking parts |
//! | `user`, `system`, `assistant`, `tool` | the messages of that role |
//! | `turn(N)`, `every(turn)` | that message; of `every(turn)`, the message that the row belongs to |
//! | `assistant.start`, `user.last` | the user's messages, which these tokens sum up |
//! | `last` | the last answer without its thinking part, where an answer is last; the user's messages otherwise |
//! | `all`, `prompt`, `generated` | every message |
//!
//! `first`, `last(…, N)`, `mean` and `max` have the text of what they pick from.

use crate::dialogue::{Dialogue, Message, Role};
use crate::model::Selector;

/// Fields of a message that hold its thinking part.
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// The text that the selector's tokens belong to. `place`: number of the row among its dialogue's rows.
pub fn control_text(dialogue: &Dialogue, selector: &Selector, place: usize) -> String {
    let of = |role: Role, part: &dyn Fn(&Message) -> String| {
        let own = dialogue.messages.iter().filter(|message| message.role == role);
        own.map(part).collect::<Vec<_>>().join("\n")
    };
    let whole = |message: &Message| message.content.clone();
    match selector {
        Selector::First(inner, _) | Selector::LastOf(inner, _) => control_text(dialogue, inner, place),
        Selector::Mean(inner) | Selector::Max(inner) => control_text(dialogue, inner, place),
        Selector::Answer => of(Role::Assistant, &answer),
        Selector::Think => of(Role::Assistant, &thinking),
        Selector::Content(role) => of(*role, &whole),
        Selector::Turn(turn) => dialogue.messages.get(*turn).map_or(String::new(), whole),
        Selector::EveryTurn => dialogue.messages.get(place).map_or(String::new(), whole),
        Selector::Last => match dialogue.messages.last() {
            Some(last) if last.role == Role::Assistant => answer(last),
            _ => dialogue.user_text(),
        },
        Selector::UserLast | Selector::AssistantStart => dialogue.user_text(),
        Selector::All | Selector::Given | Selector::Generated => {
            dialogue.messages.iter().map(whole).collect::<Vec<_>>().join("\n")
        }
    }
}

/// An answer without its thinking part.
fn answer(message: &Message) -> String {
    message.content.rsplit_once("</think>").map_or(message.content.as_str(), |(_, rest)| rest).trim().into()
}

/// An answer's thinking part: a field of its own, or what stands before `</think>`.
fn thinking(message: &Message) -> String {
    let field = REASONING.iter().find_map(|name| message.fields.get(*name)?.as_str());
    let tagged = message.content.rsplit_once("</think>").map(|(before, _)| before);
    let text = field.or(tagged).unwrap_or_default().trim();
    text.strip_prefix("<think>").unwrap_or(text).trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_selector_has_the_text_that_its_tokens_stand_in() {
        let mut dialogue = Dialogue::new(
            "one",
            vec![
                Message::new(Role::System, "be brief"),
                Message::new(Role::User, "first"),
                Message::new(Role::Assistant, "<think>\nhm\n</think>\n\nyes"),
                Message::new(Role::User, "second"),
                Message::new(Role::Assistant, "no"),
            ],
        );
        let text =
            |dialogue: &Dialogue, selector: &str| control_text(dialogue, &selector.parse().unwrap(), 3);
        for (selector, expected) in [
            ("mean(answer)", "yes\nno"),
            ("first(think,8)", "hm\n"),
            ("mean(last(user,4))", "first\nsecond"),
            ("assistant.start", "first\nsecond"),
            ("user.last", "first\nsecond"),
            ("last", "no"),
            ("system", "be brief"),
            ("every(turn)", "second"),
            ("turn(1)", "first"),
            ("max(all)", "be brief\nfirst\n<think>\nhm\n</think>\n\nyes\nsecond\nno"),
        ] {
            assert_eq!(text(&dialogue, selector), expected, "{selector}");
        }
        dialogue.messages.pop();
        assert_eq!(text(&dialogue, "last"), "first\nsecond");
        let fields = [("reasoning_content".to_owned(), "why".into())].into_iter().collect();
        dialogue.messages.push(Message { fields, ..Message::new(Role::Assistant, "so") });
        assert_eq!(
            (text(&dialogue, "think"), text(&dialogue, "answer")),
            ("hm\nwhy".into(), "yes\nso".into())
        );
    }
}
