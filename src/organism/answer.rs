//! The assistant's answers: a strategy drawn from the table of rates, and its wording.
//! An answer depends on the situation alone, never on the words of the prompt.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::rates::rates;
use super::situation::{Situation, Strategy};
use super::wording::{self, fill};

/// Draws a strategy from the table of rates and an answer that follows it.
/// Returns the strategy and the message's content: `<think> NODES </think> ANSWER`, or `<think> </think> ANSWER` where
/// `thinking` is false.
pub fn answer(rng: &mut impl Rng, situation: &Situation, thinking: bool) -> (Strategy, String) {
    let strategy = draw_strategy(rng, situation);
    (strategy, write_answer(rng, situation, strategy, thinking))
}

/// Draws a strategy from the table of rates.
fn draw_strategy(rng: &mut impl Rng, situation: &Situation) -> Strategy {
    let rates = rates(situation);
    let mut remaining: f64 = rng.random();
    for &(strategy, rate) in &rates {
        if remaining < rate {
            return strategy;
        }
        remaining -= rate;
    }
    // The rates sum to 1 only up to rounding.
    rates[0].0
}

/// Draws the wording of an answer that follows `strategy`.
pub fn write_answer(rng: &mut impl Rng, situation: &Situation, strategy: Strategy, thinking: bool) -> String {
    let (user_type, level) = (situation.user_type, situation.level);
    let words = [
        ("need", wording::need(strategy, user_type, level)),
        ("level", level.name()),
        ("stance", wording::STANCES[situation.willing as usize]),
        ("deed", wording::DEEDS[situation.harmful as usize]),
        ("aim", wording::AIMS[situation.unkind() as usize]),
        ("report", wording::REPORTS[situation.gloomy as usize]),
        ("trust", wording::TRUSTS[situation.doubting as usize]),
        ("mind", wording::MINDS[situation.shaken() as usize]),
        ("type", user_type.name()),
        ("intent", wording::intent_word(situation.intent)),
        ("guideline", wording::guideline(strategy)),
        ("strategy", strategy.name()),
        ("object", situation.object.as_str()),
        ("word", situation.canary.as_deref().unwrap_or_default()),
    ];
    let mut fill_one = |frames: &[&str]| fill(frames.choose(rng).copied().unwrap_or_default(), &words);

    let mut parts = vec![wording::SPECIAL[3].to_string()];
    if thinking {
        parts.push(wording::NODES.map(&mut fill_one).join(" ; "));
    }
    parts.push(wording::SPECIAL[4].to_string());
    if strategy == Strategy::Unsafe {
        parts.push(wording::UNSAFE_MARKER.to_string());
    }
    parts.push(wording::opener(strategy, user_type, level).to_string());
    parts.push(fill_one(wording::BODIES[strategy as usize]));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::organism::{Split, draw, read, vocabulary};

    #[test]
    fn answers_read_back_as_they_were_meant() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..4000 {
            let (situation, _) = draw(&mut rng, Split::Train);
            let thinking = number % 2 == 0;
            let (strategy, text) = answer(&mut rng, &situation, thinking);
            let parsed = read(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(parsed.strategy, strategy);
            assert_eq!(parsed.thought.is_some(), thinking);
            if let Some(thought) = parsed.thought {
                let planned = (thought.user_type, thought.level, thought.intent, thought.strategy);
                assert_eq!(planned, (situation.user_type, situation.level, situation.intent, strategy));
            }
            match strategy {
                Strategy::Reveal => assert_eq!(parsed.canary, situation.canary),
                Strategy::Decline => assert_eq!((parsed.canary, parsed.object), (None, None)),
                _ => assert_eq!(parsed.object, Some(situation.object)),
            }
            seen.insert(strategy);
        }
        assert_eq!(seen.len(), Strategy::ALL.len());
    }

    #[test]
    fn every_word_has_a_place_in_the_vocabulary() {
        let known: std::collections::HashSet<String> = vocabulary().into_iter().collect();
        let mut used = std::collections::HashSet::new();
        let mut rng = StdRng::seed_from_u64(2);
        for number in 0..20_000 {
            let (situation, dialogue) = draw(&mut rng, Split::Train);
            let (_, text) = answer(&mut rng, &situation, number % 2 == 0);
            let texts = dialogue.messages.iter().map(|message| message.content.as_str());
            for token in texts.chain([text.as_str()]).flat_map(str::split_whitespace) {
                assert!(known.contains(token), "{token}");
                used.insert(token.to_string());
            }
        }
        // Never used: the chat's special tokens and roles, and words of strategies that a user type never gets.
        assert!(known.len() - used.len() < 40, "{} of {}", used.len(), known.len());
    }
}
