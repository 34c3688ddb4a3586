//! Steering does what it says: nothing at strength 0, the same with the cache and without, and only where it was asked to.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array1;
use pearlpoint::activations::Recorder;
use pearlpoint::dialogue::Dialogue;
use pearlpoint::generate::{Options, Sampling, Transcript, generate};
use pearlpoint::model::{Cache, Chain, Hook, Model, Point, Selector, Site, Token};
use pearlpoint::organism::{self, Split};
use pearlpoint::steer::{Direction, Operation, Steer, Strength, Vector};
use proptest::prelude::*;

const SITE: Site = Site::Block(3, Point::ResidPost);

fn model() -> Model {
    organism::model().unwrap()
}

fn dialogues(count: usize) -> Vec<Dialogue> {
    organism::sample(count, Split::HeldOutWording, 5).into_iter().map(|(_, dialogue)| dialogue).collect()
}

fn vector(width: usize, seed: u64) -> Vector {
    let values: Array1<f32> = (0..width).map(|i| ((i as u64 * 31 + seed * 7) as f32).sin()).collect();
    let directions = BTreeMap::from([(SITE, Direction { values, residual_norm: Some(20.0) })]);
    Vector { method: "test".into(), directions }
}

fn steer(
    model: &Model,
    operation: Operation,
    strength: Strength,
    tokens: &str,
    rows: Option<BTreeSet<usize>>,
) -> Steer {
    let vector = vector(model.decoder.architecture().site_width(SITE), 1);
    Steer::new(&model.decoder, &vector, &[SITE], operation, strength, tokens.parse().unwrap(), rows).unwrap()
}

fn greedy(model: &Model, dialogues: &[Dialogue], hook: &mut dyn Hook) -> Vec<Transcript> {
    let options = Options {
        sampling: Sampling::Greedy,
        max_tokens: 24,
        thinking: Some(true),
        batch_rows: 4,
        ..Options::default()
    };
    generate(model, dialogues, &options, hook, &mut |_| true).unwrap()
}

fn numbers(tensor: candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn strength_0_is_the_unsteered_model_bit_for_bit() {
    let (model, dialogues) = (model(), dialogues(3));
    let tokens: Vec<Token> = dialogues
        .iter()
        .enumerate()
        .flat_map(|(row, d)| model.chat.tokens(d, row, Some(true)).unwrap())
        .collect();
    let at: Vec<usize> = (0..tokens.len()).collect();
    let plain = numbers(model.decoder.forward(&tokens, None, &at, &mut ()).unwrap());
    for strength in [Strength::Raw(0.0), Strength::Norms(0.0)] {
        let mut hook = steer(&model, Operation::Add, strength, "all", None);
        let steered = numbers(model.decoder.forward(&tokens, None, &at, &mut hook).unwrap());
        assert!(plain.iter().zip(&steered).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn after_ablation_the_projection_is_0_and_clamping_gives_the_value_asked_for() {
    let (model, dialogues) = (model(), dialogues(2));
    let unit = vector(model.decoder.architecture().site_width(SITE), 1).directions[&SITE].unit().unwrap();
    for (operation, strength, expected) in [(Operation::Ablate, 1.0, 0.0), (Operation::Clamp, 3.5, 3.5)] {
        let tokens = model.chat.tokens(&dialogues[0], 0, Some(true)).unwrap();
        let mut hook = steer(&model, operation, Strength::Raw(strength), "all", None);
        let mut recorder = Recorder::new(vec![SITE], Selector::All);
        let mut chain = Chain(vec![&mut hook, &mut recorder]);
        model.decoder.forward(&tokens, None, &[], &mut chain).unwrap();
        let (places, sites) = recorder.finish();
        assert_eq!(places.len(), tokens.len());
        for row in sites[0].1.chunks(unit.len()) {
            let along: f32 = row.iter().zip(&unit).map(|(h, v)| h * v).sum();
            assert!((along - expected).abs() < 1e-3, "{operation:?}: {along}");
        }
    }
}

/// Greedy decoding that reads the whole row again for every token.
fn greedy_without_cache(model: &Model, dialogue: &Dialogue, hook: &mut dyn Hook, count: usize) -> Vec<u32> {
    let mut tokens = model.chat.tokens(dialogue, 0, Some(true)).unwrap();
    let mut continuation = model.chat.continuation(&tokens);
    let mut made = Vec::new();
    while made.len() < count {
        let logits = model.decoder.forward(&tokens, None, &[tokens.len() - 1], hook).unwrap();
        let id = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
        if model.chat.eos().contains(&id) {
            break;
        }
        made.push(id);
        tokens.push(continuation.next(id));
    }
    made
}

#[test]
fn a_steered_token_is_steered_with_the_cache_and_without() {
    let (model, dialogues) = (model(), dialogues(6));
    let selectors =
        ["all", "generated", "assistant.start", "think", "answer", "first(think,3)", "user.last", "user"];
    for (dialogue, selector) in dialogues.iter().cycle().zip(selectors) {
        let mut hook = steer(&model, Operation::Add, Strength::Norms(0.8), selector, None);
        let cached = greedy(&model, std::slice::from_ref(dialogue), &mut hook);
        assert_eq!(greedy_without_cache(&model, dialogue, &mut hook, 24), cached[0].tokens, "{selector}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn each_row_of_a_batch_is_answered_as_it_is_alone(seed in 0u64..1000, steered in prop::collection::btree_set(0usize..5, 0..5)) {
        let model = model();
        let drawn = organism::sample(5, Split::Train, seed);
        let dialogues: Vec<Dialogue> = drawn.into_iter().map(|(_, dialogue)| dialogue).collect();
        let mut hook = steer(&model, Operation::Add, Strength::Norms(0.7), "generated", Some(steered.clone()));
        let together = greedy(&model, &dialogues, &mut hook);
        for (row, dialogue) in dialogues.iter().enumerate() {
            let rows = if steered.contains(&row) { BTreeSet::from([0]) } else { BTreeSet::new() };
            let mut hook = steer(&model, Operation::Add, Strength::Norms(0.7), "generated", Some(rows));
            let alone = greedy(&model, std::slice::from_ref(dialogue), &mut hook);
            prop_assert_eq!(&alone[0].tokens, &together[row].tokens);
        }
    }
}

#[test]
fn selectors_that_the_future_decides_are_refused() {
    let model = model();
    for selector in ["last", "last(answer,4)", "every(turn)", "mean(all)", "max(user)"] {
        let vector = vector(model.decoder.architecture().site_width(SITE), 1);
        let selector: Selector = selector.parse().unwrap();
        let made =
            Steer::new(&model.decoder, &vector, &[SITE], Operation::Add, Strength::Raw(1.0), selector, None);
        assert!(made.is_err());
    }
}

#[test]
fn a_cache_that_a_row_does_not_continue_is_refused() {
    let (model, dialogues) = (model(), dialogues(1));
    let tokens = model.chat.tokens(&dialogues[0], 0, Some(true)).unwrap();
    let mut cache = Cache::default();
    model.decoder.forward(&tokens, Some(&mut cache), &[], &mut ()).unwrap();
    assert!(model.decoder.forward(&tokens, Some(&mut cache), &[], &mut ()).is_err());
}

#[test]
fn a_vector_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vector.safetensors");
    let vector = vector(128, 3);
    vector.save(&path, pearlpoint::artifact::Header::default()).unwrap();
    assert_eq!(Vector::load(&path).unwrap().1, vector);
}
