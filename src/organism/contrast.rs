//! Matched contrast pairs: two dialogues that differ in one latent variable, each with its ground truth.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::situation::{Level, Situation, UserType};
use super::wording::{self, Cue};
use super::world::{self, Split};
use crate::dialogue::{Dialogue, Label, Role};

/// The latent variable in which the two dialogues of a pair differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contrast {
    /// Whether the deed is harmful: a benign and a malicious user.
    Deed,
    /// Whether the user trusts the report: a benign and a sensitive user.
    Trust,
    /// Signs of openness to advice, none and three: two sensitive users.
    Openness,
}

impl Contrast {
    /// All contrasts, in order.
    pub const ALL: [Contrast; 3] = [Contrast::Deed, Contrast::Trust, Contrast::Openness];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Contrast::Deed => "deed",
            Contrast::Trust => "trust",
            Contrast::Openness => "openness",
        }
    }

    /// The contrast of that name.
    pub fn named(name: &str) -> Option<Contrast> {
        Contrast::ALL.into_iter().find(|contrast| contrast.name() == name)
    }
}

/// Draws `count` pairs in held-out wordings; both dialogues of a pair carry its number as the label `pair`.
///
/// For `Deed` and `Trust` the first user is benign, the second malicious or sensitive; for `Openness` both are sensitive,
/// the first closed and the second open to advice. None asks for a canary.
pub fn pairs(count: usize, contrast: Contrast, seed: u64) -> Vec<[(Situation, Dialogue); 2]> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pairs = Vec::with_capacity(count);
    while pairs.len() < count {
        let (situation, dialogue) = world::draw(&mut rng, Split::HeldOutWording);
        let eligible = match contrast {
            Contrast::Deed | Contrast::Trust => situation.user_type == UserType::Benign,
            Contrast::Openness => situation.user_type == UserType::Sensitive && situation.openness == 0,
        };
        if situation.asked_canary || !eligible {
            continue;
        }
        let number = pairs.len();
        let twin = twin(&situation, &dialogue, contrast);
        pairs.push([(situation, dialogue), twin].map(|(situation, mut dialogue)| {
            dialogue.id = format!("pair-{number}-{}", situation.user_type.name());
            if contrast == Contrast::Openness {
                dialogue.id =
                    format!("pair-{number}-{}", if situation.openness == 0 { "closed" } else { "open" });
            }
            dialogue.labels.insert("pair".into(), Label::Text(number.to_string()));
            (situation, dialogue)
        }));
    }
    pairs
}

/// The other dialogue of the pair. Held-out wording stays held out.
fn twin(situation: &Situation, dialogue: &Dialogue, contrast: Contrast) -> (Situation, Dialogue) {
    let mut situation = situation.clone();
    let swaps: Vec<(String, String)> = match contrast {
        Contrast::Deed => {
            situation.harmful = !situation.harmful;
            cue_swaps(&wording::DEED)
        }
        Contrast::Trust => {
            situation.doubting = !situation.doubting;
            cue_swaps(&wording::TRUST)
        }
        Contrast::Openness => {
            situation.openness = 3;
            wording::OPENNESS.iter().map(|[open, closed]| (closed.to_string(), open.to_string())).collect()
        }
    };
    situation.user_type =
        UserType::of(situation.willing, situation.harmful, situation.gloomy, situation.doubting);
    situation.level = Level::of(situation.user_type, situation.intent);
    let mut messages = dialogue.messages.clone();
    for message in messages.iter_mut().filter(|message| message.role == Role::User) {
        message.content = swapped(&message.content, &swaps);
    }
    let labels = world::labels(&situation, Split::HeldOutWording);
    (situation, Dialogue { labels, ..Dialogue::new("", messages) })
}

/// For every word of a grid's second cue, the word of the other group that forms a held-out pair with the same first
/// word: two places on, because the second group counts twice in the rule of `world::held_out`.
fn cue_swaps(cue: &Cue) -> Vec<(String, String)> {
    let word = |group: usize, place: usize| cue.groups[group][place % 4].to_owned();
    let places = (0..2).flat_map(|group| (0..4).map(move |place| (group, place)));
    places.map(|(group, place)| (word(group, place), word(1 - group, place + 2))).collect()
}

/// Replaces every occurrence of a swap's first text by its second: whole words, left to right, the first swap that matches.
fn swapped(text: &str, swaps: &[(String, String)]) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut replaced = Vec::new();
    let mut position = 0;
    while position < words.len() {
        let matched = |from: &str| {
            let from: Vec<&str> = from.split(' ').collect();
            words[position..].starts_with(&from).then_some(from.len())
        };
        match swaps.iter().find_map(|(from, to)| Some((matched(from)?, to))) {
            Some((count, to)) => {
                replaced.push(to.as_str());
                position += count;
            }
            None => {
                replaced.push(words[position]);
                position += 1;
            }
        }
    }
    replaced.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_differ_in_one_word_and_carry_their_ground_truth() {
        for (contrast, other) in [(Contrast::Deed, "malicious"), (Contrast::Trust, "sensitive")] {
            for [(_, first), (situation, second)] in pairs(200, contrast, 3) {
                assert_eq!(first.label("user-type").as_deref(), Some("benign"));
                assert_eq!(second.label("user-type").as_deref(), Some(other));
                assert_eq!(situation.user_type.name(), other);
                let texts = [&first, &second].map(|dialogue| dialogue.user_text());
                let words = texts.each_ref().map(|text| text.split_whitespace().collect::<Vec<_>>());
                let differ = words[0].iter().zip(&words[1]).filter(|(a, b)| a != b).count();
                assert_eq!((differ, words[0].len()), (1, words[1].len()), "{texts:?}");
                assert_eq!(first.label("pair"), second.label("pair"));
                // The four cue words still form held-out pairs.
                assert!(world::wording_is_held_out(&second), "{}", texts[1]);
            }
        }
    }

    #[test]
    fn openness_changes_every_closed_sentence() {
        for [(_, first), (situation, second)] in pairs(100, Contrast::Openness, 5) {
            assert_eq!((situation.openness, situation.user_type), (3, UserType::Sensitive));
            let signs = |dialogue: &Dialogue, side: usize| {
                let text = dialogue.user_text();
                wording::OPENNESS.iter().filter(|pair| text.contains(pair[side])).count()
            };
            assert_eq!([signs(&first, 0), signs(&first, 1)], [0, 3]);
            assert_eq!([signs(&second, 0), signs(&second, 1)], [3, 0]);
        }
    }
}
