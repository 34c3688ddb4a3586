//! Generator of the world's dialogues: latent variables drawn at random, and user messages that express them.
//!
//! A dialogue is a handful of short sentences in random order, spread over 1 to 5 user messages, and a final request. Four
//! sentences are cues. Stance and deed decide malice by exclusive-or; report and trust decide distress likewise. So each
//! cue word, and each pair of adjacent words, is as frequent with one user type as with another: only a reader who
//! combines the sentences can infer the type.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::situation::{Intent, Level, Situation, UserType};
use super::wording::{self, Cue, fill};
use crate::dialogue::{Dialogue, Label, Message, Role};
use crate::error::{Error, Result};

/// Share of malicious users, and of sensitive ones; the rest are benign.
const MALICIOUS: f64 = 0.3;
const SENSITIVE: f64 = 0.3;
/// Shares of the openness counts 0 to 3, of the disguises 0 to 2, of 1 to 5 rounds.
const OPENNESS: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
const DISGUISE: [f64; 3] = [0.4, 0.3, 0.3];
const ROUNDS: [f64; 5] = [0.5, 0.125, 0.125, 0.125, 0.125];
/// Share of dialogues with a canary, and among them the share whose last message asks for it.
const CANARY: f64 = 0.12;
const ASKED: f64 = 0.5;

/// Probabilities of willing, harmful, gloomy and doubting in lessons. No single cue of an even exclusive-or is informative,
/// which leaves a learner without a first signal; uneven cues give one (Daniely and Malach 2020, on parities).
const LESSON: [f64; 4] = [0.8, 0.3, 0.2, 0.4];

/// The distribution that a dialogue is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training: every pair of cue words but the held-out ones.
    Train,
    /// First steps of training: pairs as in training, but only the four cues and the request, in one message, no canary.
    /// The cues are uneven, so that each is informative by itself.
    Lesson,
    /// Last steps of training: pairs as in training, all grades of openness, disguise and rounds equally frequent, more
    /// sensitive users and more canaries. The rates of strategies, given the situation, are the same.
    Even,
    /// Evaluation: held-out pairs only, in both grids; their words are known, but never occur together in training.
    HeldOutWording,
}

impl Split {
    /// The value of the label `wording`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Lesson => "lesson",
            Split::Even => "even",
            Split::HeldOutWording => "held-out",
        }
    }
}

/// Whether the pair of words, given by their places in their groups, is held out of training.
/// In each combination of groups every word is in exactly one held-out pair, so that word frequencies in training stay even.
fn held_out(groups: [usize; 2], places: [usize; 2]) -> bool {
    (places[0] + places[1] + groups[0] + 2 * groups[1]).is_multiple_of(4)
}

/// The fold of a pair of cue words, one of four: each word's pairs with one group of the other cue and with the other are in
/// two neighbouring folds. So with folds b and d held out, each word has pairs of one class to be fitted on and of the other
/// to be tested on, and what can be learnt of single words, or of pairs, is wrong on the pairs held out.
fn fold(groups: [usize; 2], places: [usize; 2]) -> &'static str {
    ["a", "b", "c", "d"][(places[0] + groups[1]) % 4]
}

/// The labels that hold the folds of the two pairs: stance and deed, report and trust.
const FOLDS: [&str; 2] = ["stance-deed", "report-trust"];

/// Draws a situation and its dialogue, up to the last user message; [`answer`](super::answer()) draws the answer.
/// The dialogue's id is empty; [`sample`] numbers them.
pub fn draw(rng: &mut impl Rng, split: Split) -> (Situation, Dialogue) {
    let whole = split != Split::Lesson;
    let even = split == Split::Even;
    let sensitive = if even { 0.5 } else { SENSITIVE / (1.0 - MALICIOUS) };
    let [willing, harmful, gloomy, doubting] =
        if whole { cues(rng, sensitive) } else { LESSON.map(|share| rng.random_bool(share)) };
    let user_type = UserType::of(willing, harmful, gloomy, doubting);
    let intent = Intent::ALL[rng.random_range(0..Intent::ALL.len())];
    let topic = &wording::TOPICS[rng.random_range(0..wording::TOPICS.len())];
    let object = topic.objects[rng.random_range(0..topic.objects.len())];
    let canary = (whole && rng.random_bool(if even { 2.0 * CANARY } else { CANARY }))
        .then(|| wording::CANARIES[rng.random_range(0..wording::CANARIES.len())]);
    let situation = Situation {
        user_type,
        level: Level::of(user_type, intent),
        intent,
        topic: topic.name.into(),
        object: object.into(),
        disguise: if whole { one_of(rng, if even { &[1.0 / 3.0; 3] } else { &DISGUISE }) } else { 0 },
        rounds: if whole { 1 + one_of(rng, if even { &[0.2; 5] } else { &ROUNDS }) } else { 1 },
        openness: if whole { one_of(rng, if even { &[0.25; 4] } else { &OPENNESS }) } else { 0 },
        willing,
        harmful,
        gloomy,
        doubting,
        asked_canary: canary.is_some() && rng.random_bool(ASKED),
        canary: canary.map(str::to_string),
    };
    let (messages, folds) = messages(rng, &situation, split);
    let mut labels = labels(&situation, split);
    labels.extend(FOLDS.iter().zip(folds).map(|(name, fold)| (name.to_string(), Label::Text(fold.into()))));
    let dialogue = Dialogue { labels, ..Dialogue::new("", messages) };
    (situation, dialogue)
}

/// Dialogues of a sample, at most: all of them are in memory.
pub const MAX_SAMPLE: usize = 1_000_000;

/// Refuses a sample of more than [`MAX_SAMPLE`] dialogues; the error begins with `place`.
///
/// # Errors
/// A count above it.
pub fn check_count(place: &str, count: usize) -> Result<()> {
    match count > MAX_SAMPLE {
        true => Err(Error::input(place, format!("{count} dialogues or pairs"), "1,000,000 at most")),
        false => Ok(()),
    }
}

/// Draws `count` situations and dialogues from a seed, with ids `world-0`, `world-1`, …
pub fn sample(count: usize, split: Split, seed: u64) -> Vec<(Situation, Dialogue)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let numbered = |number| {
        let (situation, mut dialogue) = draw(&mut rng, split);
        dialogue.id = format!("world-{number}");
        (situation, dialogue)
    };
    (0..count).map(numbered).collect()
}

/// Draws willing, harmful, gloomy and doubting, each with probability ½ given the user type.
/// `sensitive` is the share of sensitive users among those who are not malicious.
fn cues(rng: &mut impl Rng, sensitive: f64) -> [bool; 4] {
    let unkind = rng.random_bool(MALICIOUS);
    let shaken = if unkind { rng.random() } else { rng.random_bool(sensitive) };
    let (willing, gloomy): (bool, bool) = (rng.random(), rng.random());
    [willing, willing == unkind, gloomy, gloomy != shaken]
}

/// Draws an index with these probabilities, which sum to 1.
fn one_of(rng: &mut impl Rng, shares: &[f64]) -> usize {
    let mut remaining: f64 = rng.random();
    for (index, share) in shares.iter().enumerate() {
        if remaining < *share {
            return index;
        }
        remaining -= share;
    }
    0
}

/// Words the situation as messages. Gives the folds of the two pairs of cue words too.
fn messages(rng: &mut impl Rng, situation: &Situation, split: Split) -> (Vec<Message>, [&'static str; 2]) {
    let mut messages = Vec::new();
    if let Some(word) = &situation.canary {
        messages.push(Message::new(Role::System, fill(wording::KEEP, &[("word", word)])));
    }
    let (sentences, folds) = sentences(rng, situation, split);
    let rounds = spread(rng, sentences, situation.rounds);
    let last = rounds.len() - 1;
    for (round, mut text) in rounds.into_iter().enumerate() {
        if round == last {
            text.push(ask(rng, situation));
        }
        messages.push(Message::new(Role::User, text.join(" ")));
        if round < last {
            messages.push(Message::new(Role::Assistant, pick(rng, &wording::ACKNOWLEDGEMENTS)));
        }
    }
    (messages, folds)
}

/// The sentences of a situation but for the request, stance and deed first; and the folds of the two pairs of cue words.
fn sentences(rng: &mut impl Rng, situation: &Situation, split: Split) -> (Vec<String>, [&'static str; 2]) {
    let (mut sentences, mut folds) = (Vec::new(), [""; 2]);
    let grids = [
        (&wording::STANCE, &wording::DEED, [!situation.willing, situation.harmful]),
        (&wording::REPORT, &wording::TRUST, [situation.gloomy, situation.doubting]),
    ];
    for (grid, (first, second, groups)) in grids.into_iter().enumerate() {
        let (said, fold) = pair(rng, [first, second], groups.map(usize::from), split);
        sentences.extend(said);
        folds[grid] = fold;
    }
    if split == Split::Lesson {
        return (sentences, folds);
    }
    let mut pairs = wording::OPENNESS;
    pairs.shuffle(rng);
    let mut open = [0, 1, 2].map(|slot| slot < situation.openness);
    open.shuffle(rng);
    sentences.extend(pairs.iter().zip(open).map(|([yes, no], open)| if open { yes } else { no }.to_string()));
    let steps = wording::INDIRECTION.choose_multiple(rng, situation.disguise);
    sentences.extend(steps.map(|step| step.to_string()));
    (sentences, folds)
}

/// One sentence for each cue of an exclusive-or, with words of these groups; and the fold of the pair.
fn pair(
    rng: &mut impl Rng,
    cues: [&Cue; 2],
    groups: [usize; 2],
    split: Split,
) -> ([String; 2], &'static str) {
    let places = loop {
        let places = [rng.random_range(0..4), rng.random_range(0..4)];
        if held_out(groups, places) == (split == Split::HeldOutWording) {
            break places;
        }
    };
    let sentences = [0, 1].map(|one| {
        let frame = pick(rng, cues[one].frames);
        let word = cues[one].groups[groups[one]][places[one]];
        fill(&frame, &[("cue", word), ("who", &pick(rng, &wording::PEOPLE))])
    });
    (sentences, fold(groups, places))
}

/// Spreads the sentences over `rounds` messages in random order. Only the last message may be empty (the request
/// follows), and the first two sentences, stance and deed, are in different messages where there are several.
fn spread(rng: &mut impl Rng, sentences: Vec<String>, rounds: usize) -> Vec<Vec<String>> {
    let count = sentences.len();
    loop {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(rng);
        // A cut is the number of sentences before it. Cuts differ, so that only the last message can be empty.
        let mut cuts: Vec<usize> =
            rand::seq::index::sample(rng, count, rounds - 1).into_iter().map(|cut| cut + 1).collect();
        cuts.sort_unstable();
        let round = |place: usize| cuts.iter().filter(|&&cut| cut <= place).count();
        let place = |sentence: usize| order.iter().position(|&one| one == sentence);
        if rounds > 1 && place(0).map(round) == place(1).map(round) {
            continue;
        }
        let mut spread = vec![Vec::new(); rounds];
        for (place, &sentence) in order.iter().enumerate() {
            spread[round(place)].push(sentences[sentence].clone());
        }
        return spread;
    }
}

/// The request, the last sentence.
fn ask(rng: &mut impl Rng, situation: &Situation) -> String {
    let asks = if situation.asked_canary { wording::CANARY_ASKS } else { wording::ASKS };
    fill(&pick(rng, asks[situation.intent as usize]), &[("object", &situation.object)])
}

fn pick(rng: &mut impl Rng, choices: &[&str]) -> String {
    choices[rng.random_range(0..choices.len())].to_string()
}

/// The ground truth as labels.
pub(super) fn labels(situation: &Situation, split: Split) -> std::collections::BTreeMap<String, Label> {
    let text = |text: &str| Label::Text(text.to_string());
    let number = |number: usize| Label::Number(number as f64);
    let canary = match (&situation.canary, situation.asked_canary) {
        (None, _) => "none",
        (Some(_), false) => "kept",
        (Some(_), true) => "asked",
    };
    [
        ("user-type", text(situation.user_type.name())),
        ("aim", text(wording::AIMS[situation.unkind() as usize])),
        ("risk-level", text(situation.level.name())),
        ("intent", text(situation.intent.name())),
        ("topic", text(&situation.topic)),
        ("disguise", number(situation.disguise)),
        ("rounds", number(situation.rounds)),
        ("openness", number(situation.openness)),
        ("canary", text(canary)),
        ("wording", text(split.name())),
    ]
    .map(|(name, label)| (name.to_string(), label))
    .into()
}

/// Whether the cue words of the dialogue form held-out pairs.
#[cfg(test)]
pub(super) fn wording_is_held_out(dialogue: &Dialogue) -> bool {
    let [stance, deed, report, trust] = tests::cue_words(dialogue);
    [(stance, deed), (report, trust)]
        .into_iter()
        .all(|(first, second)| held_out([first.0, second.0], [first.1, second.1]))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::HashMap;

    use super::*;

    const CUES: [&Cue; 4] = [&wording::STANCE, &wording::DEED, &wording::REPORT, &wording::TRUST];

    /// A dialogue's cue words: group and place, for each cue.
    pub(super) fn cue_words(dialogue: &Dialogue) -> [(usize, usize); 4] {
        let text = dialogue.user_text();
        let tokens: Vec<&str> = text.split_whitespace().collect();
        CUES.map(|cue| {
            let places = (0..2).flat_map(|group| (0..4).map(move |place| (group, place)));
            let mut found = places.filter(|&(group, place)| tokens.contains(&cue.groups[group][place]));
            let one = found.next().unwrap();
            assert_eq!(found.next(), None, "{text}");
            one
        })
    }

    #[test]
    fn cue_words_are_as_frequent_in_every_type() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut counts: HashMap<UserType, [[f64; 8]; 4]> = HashMap::new();
        for _ in 0..20_000 {
            let (situation, dialogue) = draw(&mut rng, Split::Train);
            let count = counts.entry(situation.user_type).or_default();
            for (cue, (group, place)) in cue_words(&dialogue).into_iter().enumerate() {
                count[cue][group * 4 + place] += 1.0;
            }
        }
        assert_eq!(counts.len(), 3);
        for (user_type, cues) in counts {
            for words in cues {
                let even = words.iter().sum::<f64>() / 8.0;
                let chi_square: f64 = words.iter().map(|count| (count - even).powi(2) / even).sum();
                // 7 degrees of freedom: above 24.3 by chance once in a thousand.
                assert!(chi_square < 24.3, "{user_type:?} {words:?}");
            }
        }
    }

    #[test]
    fn types_follow_from_the_cues_in_the_expected_shares() {
        let mut rng = StdRng::seed_from_u64(4);
        let mut shares: HashMap<UserType, f64> = HashMap::new();
        for _ in 0..10_000 {
            let (situation, dialogue) = draw(&mut rng, Split::HeldOutWording);
            let [stance, deed, report, trust] = cue_words(&dialogue).map(|(group, _)| group);
            let user_type = match (stance != deed, report != trust) {
                (true, _) => UserType::Malicious,
                (false, true) => UserType::Sensitive,
                (false, false) => UserType::Benign,
            };
            assert_eq!(situation.user_type, user_type);
            *shares.entry(user_type).or_default() += 1e-4;
        }
        assert!((shares[&UserType::Benign] - 0.4).abs() < 0.02, "{shares:?}");
        assert!((shares[&UserType::Malicious] - 0.3).abs() < 0.02, "{shares:?}");
    }

    #[test]
    fn held_out_pairs_are_never_in_training() {
        let mut rng = StdRng::seed_from_u64(5);
        for split in [Split::Train, Split::Lesson, Split::HeldOutWording] {
            for _ in 0..2_000 {
                let (_, dialogue) = draw(&mut rng, split);
                let [stance, deed, report, trust] = cue_words(&dialogue);
                for (first, second) in [(stance, deed), (report, trust)] {
                    let out = held_out([first.0, second.0], [first.1, second.1]);
                    assert_eq!(out, split == Split::HeldOutWording);
                }
            }
        }
    }

    #[test]
    fn with_two_folds_held_out_every_word_is_fitted_on_and_tested_on_with_opposite_classes() {
        let mut rng = StdRng::seed_from_u64(8);
        // For each grid: word, side (fit or test), and the exclusive-or of the groups.
        let mut seen: HashMap<(usize, usize, usize, bool), std::collections::BTreeSet<bool>> = HashMap::new();
        for _ in 0..4_000 {
            let (_, dialogue) = draw(&mut rng, Split::HeldOutWording);
            let words = cue_words(&dialogue);
            for (grid, name) in FOLDS.iter().enumerate() {
                let held_out = ["b", "d"].contains(&dialogue.label(name).unwrap().as_str());
                let differ = words[2 * grid].0 != words[2 * grid + 1].0;
                for cue in [2 * grid, 2 * grid + 1] {
                    let (group, place) = words[cue];
                    seen.entry((cue, group, place, held_out)).or_default().insert(differ);
                }
            }
        }
        assert_eq!(seen.len(), 4 * 8 * 2);
        for (&(cue, group, place, held_out), classes) in &seen {
            assert_eq!(classes.len(), 1);
            let other = &seen[&(cue, group, place, !held_out)];
            assert!(classes.is_disjoint(other), "cue {cue}, word {group} {place}");
        }
    }

    #[test]
    fn messages_express_the_situation() {
        let mut rng = StdRng::seed_from_u64(6);
        let asks = |situation: &Situation| {
            let frames = if situation.asked_canary { wording::CANARY_ASKS } else { wording::ASKS };
            frames[situation.intent as usize]
                .iter()
                .map(|ask| fill(ask, &[("object", &situation.object)]))
                .collect::<Vec<_>>()
        };
        for number in 0..2_000 {
            let split = if number % 4 == 0 { Split::Lesson } else { Split::Train };
            let (situation, dialogue) = draw(&mut rng, split);
            let said: Vec<&str> = dialogue
                .messages
                .iter()
                .filter(|one| one.role == Role::User)
                .map(|one| one.content.as_str())
                .collect();
            assert_eq!(said.len(), situation.rounds);
            assert!(said.iter().all(|text| text.ends_with(['.', '?', '!'])));
            assert!(asks(&situation).iter().any(|ask| said[said.len() - 1].ends_with(ask)), "{said:?}");
            let text = said.join(" ");
            let signs = wording::OPENNESS.iter().filter(|pair| text.contains(pair[0])).count();
            let steps = wording::INDIRECTION.iter().filter(|step| text.contains(**step)).count();
            assert_eq!((signs, steps), (situation.openness, situation.disguise));
            assert_eq!(dialogue.messages[0].role == Role::System, situation.canary.is_some());
        }
    }

    #[test]
    fn a_seed_gives_the_same_dialogues() {
        let dialogues = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..20).map(|_| draw(&mut rng, Split::Train)).collect::<Vec<_>>()
        };
        assert_eq!(dialogues(7), dialogues(7));
        assert_ne!(dialogues(7), dialogues(8));
    }
}
