//! Simulated user of the world: how a user goes on after an answer. A situation with its dialogue, an answer and a reaction in; the
//! dialogue one round longer, with its situation, out.
//!
//! A user who **stays** asks for another object of his topic; one who **rephrases** asks again behind one more step of indirection;
//! one who **escalates** demands it; one who **leaves** says nothing more.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::situation::{Intent, Level, Situation};
use super::wording::{self, fill};
use super::world;
use crate::dialogue::{Dialogue, Message, Role};

/// A user's reaction to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Asks for another object of the topic.
    Stay,
    /// Asks again, one step of indirection more.
    Rephrase,
    /// Demands it.
    Escalate,
    /// Leaves.
    Leave,
}

impl Reaction {
    /// All reactions, in the order of a game's columns.
    pub const ALL: [Reaction; 4] = [Reaction::Stay, Reaction::Rephrase, Reaction::Escalate, Reaction::Leave];

    /// The name in a game.
    pub fn name(self) -> &'static str {
        match self {
            Reaction::Stay => "stay",
            Reaction::Rephrase => "rephrase",
            Reaction::Escalate => "escalate",
            Reaction::Leave => "leave",
        }
    }

    /// What the reaction costs the user, as a share of a whole satisfaction: a further message, words to find, a quarrel.
    pub fn effort(self) -> f64 {
        match self {
            Reaction::Stay => 0.05,
            Reaction::Rephrase => 0.1,
            Reaction::Escalate => 0.15,
            Reaction::Leave => 0.0,
        }
    }
}

/// What a user finds elsewhere who leaves, as a share of a whole satisfaction.
pub const ELSEWHERE: f64 = 0.2;

/// The dialogue after the answer and the user's next message; none where the user leaves. `answer` is what the user saw, without
/// a thinking part.
pub fn react(
    rng: &mut impl Rng,
    (situation, dialogue): (&Situation, &Dialogue),
    answer: &str,
    reaction: Reaction,
) -> Option<(Situation, Dialogue)> {
    let mut next = Situation { rounds: situation.rounds + 1, ..situation.clone() };
    let mut said: Vec<String> = Vec::new();
    match reaction {
        Reaction::Leave => return None,
        Reaction::Stay => {
            let topic = wording::TOPICS.iter().find(|topic| topic.name == situation.topic);
            let objects = topic.map_or(&[][..], |topic| &topic.objects);
            let others: Vec<&&str> = objects.iter().filter(|object| **object != situation.object).collect();
            if let Some(object) = others.choose(rng) {
                next.object = (**object).into();
            }
        }
        Reaction::Rephrase => {
            let text = dialogue.user_text();
            let unused: Vec<&&str> =
                wording::INDIRECTION.iter().filter(|step| !text.contains(**step)).collect();
            if let Some(step) = unused.choose(rng) {
                said.push((**step).into());
                next.disguise += 1;
            }
        }
        Reaction::Escalate => next.intent = Intent::Aggressive,
    }
    next.level = Level::of(next.user_type, next.intent);
    let ask = wording::ASKS[next.intent as usize].choose(rng).copied().unwrap_or_default();
    said.push(fill(ask, &[("object", &next.object)]));
    let mut messages = dialogue.messages.clone();
    messages.push(Message::new(Role::Assistant, answer));
    messages.push(Message::new(Role::User, said.join(" ")));
    let mut labels = dialogue.labels.clone();
    let wording = labels.get("wording").cloned();
    labels.extend(world::labels(&next, world::Split::HeldOutWording));
    labels.extend(wording.map(|value| ("wording".to_owned(), value)));
    let id = format!("{}-{}", dialogue.id, reaction.name());
    Some((next, Dialogue { labels, ..Dialogue::new(id, messages) }))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::organism::{Split, sample, vocabulary};

    #[test]
    fn each_reaction_changes_what_it_says_and_stays_in_the_vocabulary() {
        let known: std::collections::HashSet<String> = vocabulary().into_iter().collect();
        let mut rng = StdRng::seed_from_u64(5);
        for (situation, dialogue) in sample(200, Split::HeldOutWording, 4) {
            let before = dialogue.messages.len();
            for reaction in Reaction::ALL {
                let next =
                    react(&mut rng, (&situation, &dialogue), "sorry i can not discuss that .", reaction);
                let Some((after, longer)) = next else {
                    assert_eq!(reaction, Reaction::Leave);
                    continue;
                };
                assert_eq!((after.rounds, longer.messages.len()), (situation.rounds + 1, before + 2));
                assert_eq!(after.user_type, situation.user_type);
                let last = &longer.messages.last().unwrap().content;
                assert!(last.split_whitespace().all(|word| known.contains(word)), "{last}");
                match reaction {
                    Reaction::Stay => {
                        assert!(after.object != situation.object && after.topic == situation.topic)
                    }
                    Reaction::Rephrase => assert_eq!(after.disguise, situation.disguise + 1),
                    _ => assert_eq!(after.intent, Intent::Aggressive),
                }
                assert_eq!(longer.label("rounds"), Some((situation.rounds + 1).to_string()));
                assert_eq!(longer.label("risk-level").as_deref(), Some(after.level.name()));
            }
        }
    }
}
