//! Conditions of a reading: a dialogue and a round in; what the model is shown of it out. Compared side by side, they say whether a
//! risk lies in one message, in the last exchange, in what was said altogether, or in the order of the rounds.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};

/// What the model is shown of a dialogue up to a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// All messages up to the user's message of the round.
    Whole,
    /// That message alone.
    Alone,
    /// That message after the round before it.
    Compressed,
    /// All messages of the user up to the round as one, without the answers in between.
    Merged,
}

impl Condition {
    /// All of them, in the order of tables.
    pub const ALL: [Condition; 4] =
        [Condition::Whole, Condition::Alone, Condition::Compressed, Condition::Merged];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Whole => "whole",
            Condition::Alone => "alone",
            Condition::Compressed => "compressed",
            Condition::Merged => "merged",
        }
    }

    /// The dialogue up to its round `round`, from 1, as this condition shows it; none where it has fewer rounds. System messages at the
    /// beginning stay in every condition. Id and labels are the dialogue's.
    pub fn of(self, dialogue: &Dialogue, round: usize) -> Option<Dialogue> {
        let messages = &dialogue.messages;
        let ends = user_messages(dialogue);
        let end = *ends.get(round.checked_sub(1)?)?;
        let system = messages.iter().take_while(|message| message.role == Role::System).count();
        let begin = match self {
            Condition::Whole => system,
            Condition::Alone | Condition::Merged => end,
            Condition::Compressed => round.checked_sub(2).map_or(end, |before| ends[before]),
        };
        let mut shown = messages[..system].to_vec();
        match self {
            Condition::Merged => {
                let said: Vec<&str> =
                    ends[..round].iter().map(|&end| messages[end].content.as_str()).collect();
                shown.push(Message::new(Role::User, said.join("\n")));
            }
            // Messages before the first of the user belong to the whole alone.
            _ => shown.extend_from_slice(&messages[begin..=end]),
        }
        Some(Dialogue { messages: shown, ..dialogue.clone() })
    }
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Condition> {
        Condition::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| {
            Error::input("condition", format!("{text:?}"), Condition::ALL.map(Condition::name).join(" or "))
        })
    }
}

/// Places of the user's messages: a round each.
pub fn user_messages(dialogue: &Dialogue) -> Vec<usize> {
    let messages = dialogue.messages.iter().enumerate();
    messages.filter(|(_, message)| message.role == Role::User).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(condition: Condition, round: usize) -> Option<String> {
        let said = [
            (Role::System, "s"),
            (Role::User, "a"),
            (Role::Assistant, "b"),
            (Role::User, "c"),
            (Role::Assistant, "d"),
            (Role::User, "e"),
            (Role::Assistant, "f"),
        ];
        let dialogue = Dialogue::new("one", said.map(|(role, text)| Message::new(role, text)).to_vec());
        let cut = condition.of(&dialogue, round)?;
        Some(
            cut.messages
                .iter()
                .map(|message| message.content.replace('\n', "+"))
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    #[test]
    fn conditions_show_what_their_names_say() {
        for (condition, rounds) in [
            (Condition::Whole, ["s a", "s a b c", "s a b c d e"]),
            (Condition::Alone, ["s a", "s c", "s e"]),
            (Condition::Compressed, ["s a", "s a b c", "s c d e"]),
            (Condition::Merged, ["s a", "s a+c", "s a+c+e"]),
        ] {
            for (round, expected) in (1..).zip(rounds) {
                assert_eq!(shown(condition, round).as_deref(), Some(expected), "{condition:?}");
            }
            assert!(shown(condition, 0).is_none() && shown(condition, 4).is_none());
            assert_eq!(condition.name().parse::<Condition>().unwrap(), condition);
        }
        assert!("half".parse::<Condition>().is_err());
    }
}
