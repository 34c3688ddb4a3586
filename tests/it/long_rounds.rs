//! Dialogues of many rounds: what was read of them before is not read again, steered or not, and nothing is read under another plan.

use std::path::Path;

use ndarray::{Array1, Array2};
use pearlpoint::artifact::Header;
use pearlpoint::config::StrategySpec;
use pearlpoint::constructive::{Guard, Policy, PolicySettings, StrategyDose};
use pearlpoint::dialogue::{Dialogue, Message, Role};
use pearlpoint::game::Game;
use pearlpoint::generate::{GenerateOptions, KeptLogits, Sampling, Transcript, generate, generate_after};
use pearlpoint::model::{Chain, Hook, Model, PromptCache};
use pearlpoint::probe::{Calibration, Link, Probe, Provenance};
use pearlpoint::rounds::{
    Aim, Attacker, Choice, Defence, Ended, Open, PlayOptions, Reader, Task, Verdict, play_from,
};
use pearlpoint::steer::{Direction, Intervention, Plan, Vector};

/// A tiny random model whose context holds 200 rounds.
fn model() -> (tempfile::TempDir, Model) {
    let (folder, fixture) = (tempfile::tempdir().unwrap(), Path::new("tests/fixtures/llama"));
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(fixture.join(file), folder.path().join(file)).unwrap();
    }
    let config = std::fs::read_to_string(fixture.join("config.json")).unwrap();
    let longer = config.replace("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 65536");
    assert_ne!(config, longer);
    std::fs::write(folder.path().join("config.json"), longer).unwrap();
    let model = Model::load(folder.path().to_str().unwrap()).unwrap();
    (folder, model)
}

fn numbers(width: usize, seed: u64) -> Vec<f32> {
    (0..width).map(|i| ((i as u64 * 31 + seed * 7 + 1) as f32).sin()).collect()
}

fn probe(model: &Model, seed: u64) -> Probe {
    let width = model.decoder.architecture().width;
    Probe {
        weight: Array2::from_shape_vec((1, width), numbers(width, seed)).unwrap(),
        bias: Array1::zeros(1),
        link: Link::of(2),
        classes: vec!["calm".into(), "attack".into()],
        source: Provenance {
            site: "1.resid_post".parse().unwrap(),
            tokens: "assistant.start".parse().unwrap(),
            label: "user".into(),
            model: Some(model.name.clone()),
            model_hash: Some(model.hash.clone()),
            model_form: None,
            data_hash: None,
        },
        method: "test".into(),
        strength: 1.0,
        calibration: Calibration::None,
        threshold: Default::default(),
        scores: Vec::new(),
        held_out: Vec::new(),
        seed: 0,
    }
}

fn vector(model: &Model, seed: u64) -> Vector {
    let width = model.decoder.architecture().width;
    let direction = Direction::new(numbers(width, seed).into(), Some(1.0));
    Vector {
        method: "test".into(),
        directions: [("0.resid_post".parse().unwrap(), direction)].into(),
        best: None,
    }
}

/// A policy that steers every answer.
fn policy(model: &Model) -> Policy {
    let of_type = |name: &str| {
        format!(
            "[[type]]\nname = \"{name}\"\nprior = 0.5\nretention = [[0.1], [0.9]]\nrisk = [[0.0], [0.0]]\npayoff = [[0.5], [0.5]]\n"
        )
    };
    let text = format!(
        "actions = [\"help\", \"guide\"]\nreactions = [\"stay\"]\nweights = {{ alpha = 1.0, beta = 1.0, gamma = 0.0 }}\n{}{}",
        of_type("calm"),
        of_type("attack")
    );
    let dose = StrategyDose {
        spec: StrategySpec::parse("guide=attack:refuse:help").unwrap(),
        site: "0.resid_post".parse().unwrap(),
        strength: 2.0,
        pearl: None,
        answers: 0,
        rows: [1, 1],
        has_face: false,
    };
    let settings = PolicySettings {
        label: "user".into(),
        shares: vec![0.5, 0.5],
        attack: "attack".into(),
        attack_threshold: None,
        group: "topic".into(),
        held_out: Vec::new(),
        strategies: vec![dose],
        tokens: "assistant.start".into(),
        thinking: None,
        judge: "refusals".into(),
    };
    let header = Header { model_hash: Some(model.hash.clone()), ..Header::new("constructive", 1) };
    Policy {
        header,
        settings,
        belief: probe(model, 5),
        risk: Some(probe(model, 6)),
        game: Game::parse("game", &text).unwrap(),
        vectors: [("guide".to_owned(), vector(model, 1))].into(),
        faces: Default::default(),
    }
}

struct Talks;

impl Attacker for Talks {
    fn message(&mut self, _: &Dialogue, round: usize, _: usize) -> pearlpoint::Result<String> {
        Ok(format!("and number {round}?"))
    }
}

struct Nothing;

impl Task for Nothing {
    fn judge(&self, _: &Dialogue, _: &Transcript) -> pearlpoint::Result<Verdict> {
        Ok(Verdict { outcome: "kept".into(), success: false, refused: false, satisfaction: None, risk: None })
    }

    fn refusal(&self) -> &str {
        "no"
    }
}

/// What a guard saw and did in a round.
struct Seen {
    dialogue: Dialogue,
    plan: Plan,
    /// Tokens read and bytes kept up to the round.
    read: usize,
    bytes: usize,
}

struct Watched<'a>(Guard<'a>, Vec<Seen>);

impl Defence for Watched<'_> {
    fn choose(
        &mut self,
        model: &Model,
        open: &[Open],
        prompts: &mut PromptCache,
    ) -> pearlpoint::Result<(Vec<Choice>, Plan)> {
        let (read, bytes) = (prompts.tokens_read(), prompts.bytes());
        let (choices, plan) = self.0.choose(model, open, prompts)?;
        assert_eq!(choices, [Choice::Steer]);
        let dialogue = open[0].dialogue.clone();
        self.1.push(Seen { dialogue, plan: plan.clone(), read, bytes });
        Ok((choices, plan))
    }
}

const ROUNDS: usize = 200;

#[test]
fn two_hundred_rounds_under_the_guard_read_new_tokens_only_in_linear_memory() {
    let (_folder, model) = model();
    let policy = policy(&model);
    let reader = Reader {
        risk: (probe(&model, 7), "attack".into()),
        refusal: Some((probe(&model, 8), "attack".into())),
        thinking: None,
    };
    let aim = Aim {
        dialogue: Dialogue::new("long", Vec::new()),
        opening: None,
        steps: Vec::new(),
        asks: Vec::new(),
        manners: Vec::new(),
    };
    let sampling = Sampling::Greedy;
    let options = PlayOptions { rounds: ROUNDS, wave: 1, max_tokens: 6, sampling, thinking: None, seed: 5 };
    let mut guard = Watched(Guard::new(&policy, None, 11), Vec::new());
    let on_round = &mut || true;
    let played =
        play_from(&model, &aim, &mut Talks, &Nothing, Some(&reader), &mut guard, &options, on_round).unwrap();
    let seen = guard.1;
    assert_eq!((played.turns.len(), seen.len(), played.ended), (ROUNDS, ROUNDS, Ended::GaveUp));
    let lengths: Vec<usize> =
        seen.iter().map(|own| model.chat.tokens(&own.dialogue, 0, None).unwrap().len()).collect();
    assert!(lengths[ROUNDS - 1] > 5000, "{}", lengths[ROUNDS - 1]);
    // A round reads what is new and a part of a block, as often as it reads at all: twice by probes, twice by the policy, once to answer.
    let each: Vec<usize> = seen.windows(2).map(|two| two[1].read - two[0].read).collect();
    let longest = lengths.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    let unit = model.decoder.part_tokens().unwrap();
    assert!(each.iter().all(|read| *read <= 5 * (longest + unit + 16)), "{:?}", each.iter().max());
    let anew: usize = lengths.iter().map(|length| 4 * length).sum();
    assert!(seen[ROUNDS - 1].read * 10 < anew, "{} of {anew}", seen[ROUNDS - 1].read);
    // Memory by token is that of the first rounds.
    let by_token = |round: usize| seen[round].bytes as f64 / lengths[round] as f64;
    assert!(by_token(ROUNDS - 1) < 1.1 * by_token(20), "{} {}", by_token(ROUNDS - 1), by_token(20));
    // The same readings, decisions and answers as anew.
    for round in [1, 2, 3, 60, ROUNDS] {
        let (own, turn) = (&seen[round - 1], &played.turns[round - 1]);
        let dialogues = std::slice::from_ref(&own.dialogue);
        let read = reader.read(&model, dialogues).unwrap()[0];
        let found = turn.reading.unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5;
        assert!(
            near(read.risk, found.risk) && near(read.refusal, found.refusal),
            "{round}: {read:?} {found:?}"
        );
        let decided = policy.decide(&model, dialogues, &[], 11 + round as u64).unwrap();
        assert_eq!(policy.plan(&decided, &[]).unwrap(), own.plan);
        let mut hooks = own.plan.hooks(&model, dialogues, None).unwrap();
        let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
        let greedy = GenerateOptions::default().greedy().max_tokens(6);
        let again = generate(&model, dialogues, &greedy, &mut chain, &mut |_| true).unwrap();
        assert_eq!(again[0].text, turn.answer, "{round}");
    }
}

#[test]
fn a_round_under_one_plan_takes_nothing_that_was_read_under_another() {
    let (_folder, model) = model();
    let plan = |seed: u64, tokens: &str| {
        let own = Intervention::add(vector(&model, seed), "0.resid_post", "3").unwrap();
        Plan::from(Intervention { tokens: tokens.parse().unwrap(), ..own })
    };
    let plans = [
        Plan::default(),
        plan(1, "all"),
        plan(2, "all"),
        plan(1, "assistant.start"),
        plan(2, "user.last"),
        plan(1, "generated"),
    ];
    let options = GenerateOptions::default().greedy().max_tokens(6).logits(KeptLogits::Top(2));
    let mut dialogue = Dialogue::new("one", Vec::new());
    let (mut prompts, mut length, mut first) = (PromptCache::default(), 0, Vec::new());
    for round in 0..48 {
        // Each plan after each other one, and twice in a row now and then.
        let plan = &plans[(round / 2 * 5 + round % 2 * (round / 6)) % plans.len()];
        dialogue.messages.push(Message::new(Role::User, format!("tell me of number {round}, please")));
        let own = std::slice::from_ref(&dialogue);
        let answer = |prompts: Option<&mut PromptCache>| {
            let mut hooks = plan.hooks(&model, own, None).unwrap();
            let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
            match prompts {
                Some(prompts) => generate_after(&model, own, &options, &mut chain, prompts),
                None => generate(&model, own, &options, &mut chain, &mut |_| true),
            }
            .unwrap()
            .remove(0)
        };
        let (expected, found) = (answer(None), answer(Some(&mut prompts)));
        assert_eq!((&found.tokens, &found.logprobs), (&expected.tokens, &expected.logprobs), "round {round}");
        length += model.chat.tokens(&dialogue, 0, None).unwrap().len();
        if round == 0 {
            first = plans
                .iter()
                .map(|plan| {
                    let mut hooks = plan.hooks(&model, own, None).unwrap();
                    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
                    generate(&model, own, &options, &mut chain, &mut |_| true).unwrap().remove(0).logprobs
                })
                .collect();
        }
        dialogue.messages.push(Message::new(Role::Assistant, expected.text));
    }
    // Every plan changes something, and what may be taken was.
    assert!((0..first.len()).all(|a| (0..a).all(|b| first[a] != first[b])), "{first:?}");
    assert!(prompts.tokens_read() * 4 < length * 3, "{} of {length}", prompts.tokens_read());
}
