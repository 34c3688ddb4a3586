//! Invariants 1 to 6 of steering as properties, over families, batches, selectors and operations. The models are the tiny
//! checkpoints of every family; operation, site, selector, schedule and strength are drawn at random.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use ndarray::Array1;
use pearlpoint::activations::Recorder;
use pearlpoint::dialogue::Role;
use pearlpoint::model::{Cache, Chain, Decoder, Hook, Phase, Point, Selector, Site, Token};
use pearlpoint::steer::{
    Direction, HalfSpace, Measure, OPERATIONS, Operation, SafeSet, Schedule, SteerHook, Strength, Vector,
};
use proptest::prelude::*;

/// One of each kind of block: with and without biases, post-norms, parallel blocks, experts, recurrent states, learned
/// positions.
const FAMILIES: [&str; 17] = [
    "llama",
    "qwen3",
    "gemma2",
    "gemma3n",
    "gemma4",
    "gemma4-moe",
    "gpt2",
    "gpt_neox",
    "olmo2",
    "qwen3_moe",
    "qwen3_next",
    "phi3",
    "gpt_oss",
    "llama4",
    "cohere2",
    "glm4_moe",
    "granite",
];

const SELECTORS: [&str; 10] = [
    "all",
    "prompt",
    "generated",
    "assistant.start",
    "user",
    "user.last",
    "think",
    "answer",
    "first(think,2)",
    "turn(1)",
];

const POINTS: [Point; 4] = [Point::ResidPre, Point::AttnOut, Point::MlpOut, Point::ResidPost];

const SCHEDULES: [&str; 3] = ["constant", "decay(2)", "ramp(3)"];

fn decoder(family: &str) -> Decoder {
    crate::model::decoder(&format!("families/{family}"))
}

/// A row of a dialogue as a chat template would mark it: a user's words, the opening of the answer, then so many tokens
/// of thinking and of answer that the model made.
fn row(row: usize, prompt: usize, thought: usize, answer: usize, seed: u64) -> Vec<Token> {
    let total = prompt + 1 + thought + answer;
    let token = |position: usize| {
        let (role, turn, phase, index) = match position {
            at if at < prompt => (Role::User, 0, Phase::Prompt, at),
            at if at == prompt => (Role::Assistant, 1, Phase::Template, 0),
            at if at <= prompt + thought => (Role::Assistant, 1, Phase::Think, at - prompt - 1),
            at => (Role::Assistant, 1, Phase::Answer, at - prompt - thought - 1),
        };
        Token {
            id: ((position as u64 * 31 + seed * 17 + 3) % 50) as u32,
            row,
            position,
            role,
            turn,
            phase,
            index,
            start: position == prompt,
            generated: position > prompt,
        }
    };
    (0..total).map(token).collect()
}

fn numbered(tokens: &[Token], row: usize) -> Vec<Token> {
    tokens.iter().map(|token| Token { row, ..token.clone() }).collect()
}

fn values(width: usize, seed: u64) -> Vec<f32> {
    (0..width).map(|i| ((i as u64 * 37 + seed * 101) as f32 * 0.61).sin()).collect()
}

/// The random parameters of a steering hook.
#[derive(Clone, Debug)]
struct Drawn {
    family: &'static str,
    operation: Operation,
    selector: &'static str,
    schedule: &'static str,
    blocks: BTreeSet<usize>,
    point: Point,
    strength: f32,
    seed: u64,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (
        prop::sample::select(&FAMILIES),
        prop::sample::select(&OPERATIONS[..]),
        prop::sample::select(&SELECTORS),
        prop::sample::select(&SCHEDULES),
        prop::collection::btree_set(0usize..2, 1..3),
        prop::sample::select(&POINTS),
        0.2f32..2.0,
        0u64..1000,
    )
        .prop_map(|(family, operation, selector, schedule, blocks, point, strength, seed)| Drawn {
            family,
            operation,
            selector,
            schedule,
            blocks,
            point,
            strength,
            seed,
        })
}

impl Drawn {
    fn sites(&self) -> Vec<Site> {
        self.blocks.iter().map(|&block| Site::Block(block, self.point)).collect()
    }

    fn hook(&self, decoder: &Decoder, strength: f32, rows: Option<BTreeSet<usize>>) -> SteerHook {
        let selector: Selector = self.selector.parse().unwrap();
        let width = decoder.architecture().width;
        let steer = if self.operation == Operation::PROJECT {
            let faces = |site: usize| {
                let face = |seed: u64| HalfSpace {
                    name: format!("face {seed}"),
                    normal: values(width, self.seed + seed + site as u64),
                    bound: 0.1 * seed as f64,
                };
                SafeSet::new(vec![face(0), face(1), face(2)]).unwrap()
            };
            let polyhedra = self.sites().into_iter().enumerate().map(|(n, site)| (site, faces(n))).collect();
            SteerHook::project(decoder, polyhedra, self.operation, Strength::Raw(strength), selector, rows)
        } else {
            let vector = self.vector(width);
            SteerHook::new(
                decoder,
                &vector,
                &self.sites(),
                (self.operation, Strength::Raw(strength)),
                selector,
                rows,
            )
        };
        steer.unwrap().scheduled(self.schedule.parse::<Schedule>().unwrap())
    }

    fn vector(&self, width: usize) -> Vector {
        let direction = |site: Site| {
            let values = Array1::from_vec(values(width, self.seed + site.block().unwrap() as u64));
            (site, Direction::new(values, Some(4.0)))
        };
        let directions: BTreeMap<Site, Direction> = self.sites().into_iter().map(direction).collect();
        Vector { method: "test".into(), directions, best: None }
    }
}

fn numbers(tensor: Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

fn logits(decoder: &Decoder, tokens: &[Token], hook: &mut dyn Hook) -> Vec<Vec<f32>> {
    let at: Vec<usize> = (0..tokens.len()).collect();
    numbers(decoder.forward(tokens, None, &at, hook).unwrap())
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|number| number.to_bits()).collect()).collect()
}

/// The largest difference between two tables of logits.
fn apart(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Every row through a cache: its prompt (or more) at once, then token by token, all rows side by side.
fn by_token(decoder: &Decoder, rows: &[Vec<Token>], given: usize, hook: &mut dyn Hook) -> Vec<Vec<Vec<f32>>> {
    let mut cache = Cache::default();
    let mut read: Vec<Vec<Vec<f32>>> = vec![Vec::new(); rows.len()];
    let longest = rows.iter().map(Vec::len).max().unwrap();
    for step in given..=longest {
        let part = |row: &Vec<Token>| match step == given {
            true => row[..given.min(row.len())].to_vec(),
            false => row.get(step - 1).cloned().into_iter().collect(),
        };
        let tokens: Vec<Token> = rows.iter().flat_map(part).collect();
        let at: Vec<usize> = (0..tokens.len()).collect();
        let logits = numbers(decoder.forward(&tokens, Some(&mut cache), &at, hook).unwrap());
        for (token, logits) in tokens.iter().zip(logits) {
            read[token.row].push(logits);
        }
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// 1.
    #[test]
    fn strength_0_is_the_unsteered_model_bit_for_bit(drawn in drawn()) {
        prop_assume!(drawn.operation.measure() != Measure::Projection);
        let decoder = decoder(drawn.family);
        let tokens = row(0, 5, 3, 3, drawn.seed);
        let mut hook = drawn.hook(&decoder, 0.0, None);
        prop_assert_eq!(bits(&logits(&decoder, &tokens, &mut ())), bits(&logits(&decoder, &tokens, &mut hook)));
        // And a hook that steers other rows only.
        let mut hook = drawn.hook(&decoder, drawn.strength, Some(BTreeSet::from([7])));
        prop_assert_eq!(bits(&logits(&decoder, &tokens, &mut ())), bits(&logits(&decoder, &tokens, &mut hook)));
    }

    /// 2 and 6.
    #[test]
    fn a_row_in_any_batch_is_steered_as_it_is_alone(drawn in drawn(), steered in prop::collection::btree_set(0usize..3, 1..4)) {
        let decoder = decoder(drawn.family);
        let rows = [row(0, 5, 3, 3, 1), row(1, 2, 0, 4, 2), row(2, 7, 5, 1, 3)];
        let batch: Vec<Token> = rows.concat();
        let together = logits(&decoder, &batch, &mut drawn.hook(&decoder, drawn.strength, Some(steered.clone())));
        let mut begin = 0;
        for (number, row) in rows.iter().enumerate() {
            let alone = match steered.contains(&number) {
                true => logits(&decoder, &numbered(row, 0), &mut drawn.hook(&decoder, drawn.strength, None)),
                false => logits(&decoder, &numbered(row, 0), &mut ()),
            };
            let difference = apart(&alone, &together[begin..begin + row.len()]);
            prop_assert!(difference < 1e-3, "row {number}: {difference}");
            begin += row.len();
        }
    }

    /// 3.
    #[test]
    fn a_steered_token_is_steered_with_the_cache_and_without(drawn in drawn(), given in 5usize..9) {
        let decoder = decoder(drawn.family);
        let rows = [row(0, 4, 3, 3, 5), row(1, 3, 0, 5, 6)];
        let cached = by_token(&decoder, &rows, given, &mut drawn.hook(&decoder, drawn.strength, None));
        for (row, cached) in rows.iter().zip(cached) {
            let whole = logits(&decoder, &numbered(row, 0), &mut drawn.hook(&decoder, drawn.strength, None));
            let difference = apart(&whole, &cached);
            prop_assert!(difference < 1e-3, "{difference}");
        }
    }

    /// 4 and 6: what was asked for is there afterwards, at the tokens that the selector picks, and nowhere else.
    #[test]
    fn each_operation_does_what_it_says_where_it_says(drawn in drawn()) {
        let decoder = decoder(drawn.family);
        let tokens = row(0, 5, 3, 3, drawn.seed);
        let drawn = Drawn { blocks: BTreeSet::from([1]), schedule: "constant", ..drawn };
        let site = drawn.sites()[0];
        let strength = if drawn.operation.measure() == Measure::Share { 1.0 } else { drawn.strength };
        let read = |hook: &mut dyn Hook| -> Vec<Vec<f32>> {
            let mut recorder = Recorder::new(vec![site], Selector::All);
            let mut chain = Chain(vec![hook, &mut recorder]);
            decoder.forward(&tokens, None, &[], &mut chain).unwrap();
            let width = decoder.architecture().width;
            recorder.finish().1[0].1.chunks(width).map(<[f32]>::to_vec).collect()
        };
        let before = read(&mut ());
        let after = read(&mut drawn.hook(&decoder, strength, None));
        let twice = {
            let (mut one, mut two) = (drawn.hook(&decoder, strength, None), drawn.hook(&decoder, strength, None));
            read(&mut Chain(vec![&mut one, &mut two]))
        };
        let picked = drawn.selector.parse::<Selector>().unwrap().pick(&tokens);
        let vector = drawn.vector(decoder.architecture().width);
        let (unit, length) = (vector.directions[&site].unit().unwrap(), vector.directions[&site].length());
        let along = |h: &[f32]| h.iter().zip(&unit).map(|(h, v)| h * v).sum::<f32>();
        let norm = |h: &[f32]| h.iter().map(|h| h * h).sum::<f32>().sqrt();
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            if !picked.contains(&at) {
                prop_assert_eq!(before, after);
                continue;
            }
            let (was, is) = (along(before), along(after));
            match drawn.operation.name() {
                "add" => prop_assert!((is - was - strength * length).abs() < 1e-3),
                "add-keep-norm" => prop_assert!((norm(before) - norm(after)).abs() < 1e-3),
                "ablate" => prop_assert!(is.abs() < 1e-4),
                "clamp" => prop_assert!((is - strength).abs() < 1e-4),
                "cap" => prop_assert!((is - was.min(strength)).abs() < 1e-4),
                "project" => (),
                other => prop_assert!(false, "no test for {other}"),
            }
            let again: f32 = after.iter().zip(&twice[at]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let is_idempotent = drawn.operation.measure() != Measure::Displacement;
            prop_assert!(!is_idempotent || again < 1e-3, "{again}");
        }
    }

    /// 5, with steering beside the reading.
    #[test]
    fn reading_beside_steering_changes_nothing(drawn in drawn()) {
        let decoder = decoder(drawn.family);
        let tokens = row(0, 5, 3, 3, drawn.seed);
        let plain = logits(&decoder, &tokens, &mut drawn.hook(&decoder, drawn.strength, None));
        let mut recorder = Recorder::new(decoder.architecture().sites(), Selector::All);
        let mut hook = drawn.hook(&decoder, drawn.strength, None);
        let mut chain = Chain(vec![&mut recorder, &mut hook]);
        let read = logits(&decoder, &tokens, &mut chain);
        // With all sites wanted, logits are computed of all tokens at once, in another order of sums.
        prop_assert!(apart(&plain, &read) < 1e-4);
    }

    /// A trace is a look, not a change; it has a step for each picked token and site.
    #[test]
    fn a_trace_changes_nothing(drawn in drawn()) {
        let decoder = decoder(drawn.family);
        let tokens = row(0, 5, 3, 3, drawn.seed);
        let plain = logits(&decoder, &tokens, &mut drawn.hook(&decoder, drawn.strength, None));
        let mut hook = drawn.hook(&decoder, drawn.strength, None).traced(0);
        prop_assert_eq!(bits(&plain), bits(&logits(&decoder, &tokens, &mut hook)));
        let picked = drawn.selector.parse::<Selector>().unwrap().pick(&tokens);
        let steps = hook.take_trace();
        let places: Vec<(String, usize)> = steps.iter().map(|step| (step.site.clone(), step.position)).collect();
        let sites = drawn.sites();
        let expected = sites.iter().flat_map(|site| picked.iter().map(|at| (site.to_string(), tokens[*at].position)));
        prop_assert_eq!(places, expected.collect::<Vec<_>>());
    }

    /// The cache knows what steered it.
    #[test]
    fn a_cache_is_never_read_under_another_steering(drawn in drawn()) {
        let decoder = decoder(drawn.family);
        let tokens = row(0, 4, 2, 2, drawn.seed);
        let (first, rest) = tokens.split_at(5);
        let pass = |cache: &mut Cache, tokens: &[Token], hook: &mut dyn Hook| {
            decoder.forward(tokens, Some(cache), &[], hook).map(|_| ())
        };
        let steered = |strength: f32| drawn.hook(&decoder, strength, None);
        for (mut before, mut after) in [
            (Some(steered(drawn.strength)), None),
            (None, Some(steered(drawn.strength))),
            (Some(steered(drawn.strength)), Some(steered(drawn.strength + 0.5))),
        ] {
            let mut cache = Cache::default();
            let hook = |steer: &mut Option<SteerHook>, cache: &mut Cache, tokens: &[Token]| match steer {
                Some(steer) => pass(cache, tokens, steer),
                None => pass(cache, tokens, &mut ()),
            };
            hook(&mut before, &mut cache, first).unwrap();
            let error = hook(&mut after, &mut cache, rest).unwrap_err().to_string();
            prop_assert!(error.contains("another steering"), "{error}");
        }
        // The same plan, made anew, is the same steering; and so is one that steers other rows only.
        let mut cache = Cache::default();
        pass(&mut cache, first, &mut steered(drawn.strength)).unwrap();
        pass(&mut cache, rest, &mut steered(drawn.strength)).unwrap();
        let mut cache = Cache::default();
        pass(&mut cache, first, &mut ()).unwrap();
        pass(&mut cache, rest, &mut drawn.hook(&decoder, drawn.strength, Some(BTreeSet::from([3])))).unwrap();
    }
}

/// Each family takes each operation at every site where it has one.
#[test]
fn every_family_can_be_steered_at_every_residual_site() {
    for family in crate::model::families() {
        let decoder = crate::model::decoder(&family);
        let (width, tokens) = (decoder.architecture().width, row(0, 5, 2, 2, 1));
        if !decoder.architecture().causal {
            continue;
        }
        let plain = logits(&decoder, &tokens, &mut ());
        for site in decoder.architecture().sites() {
            if decoder.architecture().site_width(site) != width {
                continue;
            }
            let direction = Direction::new(Array1::from_vec(values(width, 1)), None);
            let vector =
                Vector { method: "test".into(), directions: BTreeMap::from([(site, direction)]), best: None };
            let selector = Selector::All;
            let mut hook = SteerHook::new(
                &decoder,
                &vector,
                &[site],
                (Operation::ADD, Strength::Raw(1.0)),
                selector,
                None,
            )
            .unwrap();
            assert!(apart(&plain, &logits(&decoder, &tokens, &mut hook)) > 1e-6, "{family} {site}");
        }
    }
}
