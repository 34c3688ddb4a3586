//! Rounds, through the program and the library: traces, plays of agents with the model's own answers, and the canary task.

use std::path::Path;

use candle_core::Tensor;
use pearlpoint::activations::{Request, extract, extract_after};
use pearlpoint::analysis::token_readout::read_tokens;
use pearlpoint::boundary::{ErrorKind, RiskBound, Threshold};
use pearlpoint::dialogue::{Dialogue, Dialogues, Message, Role};
use pearlpoint::generate::{GenerateOptions, Sampling, generate, generate_after};
use pearlpoint::model::{Hook, Model, Point, PromptCache, Selector, Site, Token};
use pearlpoint::organism::{Split, UserType};
use pearlpoint::probe::Probe;
use pearlpoint::rounds::{
    Agent, Alarm, Condition, Ended, Monitor, PlayOptions, ProbeOfClass, Reader, Refusing, Undefended, play,
    similarities, trace, user_messages, world,
};
use serde_json::Value;

use crate::cli::{one_line, pearl};

fn run(arguments: &[&str]) -> String {
    let output = pearl(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn probe(model: &Model) -> Probe {
    let data = Dialogues::organism(200, 3).unwrap();
    let states = model.extract(&data, "3.resid_post", "assistant.start").unwrap();
    states.probe("user-type").group("topic").fit().unwrap().best().clone()
}

fn options(rounds: usize) -> PlayOptions {
    PlayOptions { rounds, wave: 8, max_tokens: 48, sampling: Sampling::Greedy, thinking: None, seed: 5 }
}

fn malicious(count: usize) -> Vec<pearlpoint::rounds::Aim> {
    world::aims(count, &[UserType::Malicious], &|_| true, Split::HeldOutWording, 9).unwrap()
}

fn agent(name: &str) -> Agent {
    Agent::peers().into_iter().find(|agent| agent.name == name).unwrap()
}

#[test]
fn a_trace_reads_what_the_whole_prompt_reads_and_cuts_it_as_it_says() {
    let model = Model::load("organism").unwrap();
    let one = ProbeOfClass { name: "type".into(), probe: probe(&model), class: "malicious".into() };
    let data = Dialogues::organism(40, 8).unwrap().dialogues;
    let found =
        trace(&model, &data, std::slice::from_ref(&one), &Condition::ALL, None, &mut |_| true).unwrap();
    let rounds: usize = data.iter().map(|dialogue| user_messages(dialogue).len()).sum();
    assert_eq!(found.records.len(), 4 * rounds);
    assert_eq!(found.trajectories.len(), 4 * data.len());
    for dialogue in &data {
        let last = user_messages(dialogue).len();
        let reading = |condition: Condition, turn: usize| {
            let mut records = found.records.iter();
            let is = |record: &&pearlpoint::rounds::TurnRecord| {
                (record.dialogue.as_str(), record.condition, record.turn) == (&dialogue.id, condition, turn)
            };
            records.find(is).unwrap().clone()
        };
        // The reading token by token, by another way through the model.
        let readout =
            read_tokens(&model, dialogue, std::slice::from_ref(&one.probe), "malicious", None).unwrap();
        let end = *readout.probabilities[0].last().unwrap();
        assert!((reading(Condition::Whole, last).reading - end).abs() < 1e-3, "{}", dialogue.id);
        if last == 1 {
            for condition in Condition::ALL {
                assert!((reading(condition, 1).reading - end).abs() < 1e-3);
            }
        } else {
            let (before, own) = (reading(Condition::Whole, last - 1), reading(Condition::Whole, last));
            assert_eq!(own.change, Some(own.reading - before.reading));
        }
        assert_eq!(reading(Condition::Whole, 1).change, None);
        assert_eq!(reading(Condition::Alone, last).label, dialogue.label("user-type"));
    }
    // Of one dialogue there is no interval, and of labels of one kind no ranking.
    let alone = trace(&model, &data[..1], &[one], &[Condition::Whole], None, &mut |_| true).unwrap();
    assert!(alone.rounds[0].mean.is_none() && alone.rounds[0].fixed.is_none());
}

#[test]
fn rounds_follow_one_another_with_the_models_own_answers() {
    let model = Model::load("organism").unwrap();
    let aims = malicious(6);
    let near = similarities(&model, &aims, "3.resid_post".parse().unwrap(), None).unwrap();
    assert!(near.iter().flatten().all(|cosine| (-1.0..=1.0).contains(cosine)) && near[0].len() == 7);
    let own = agent("agent");
    let played =
        play(&model, &aims, &near, &own, &world::WorldTask, None, &mut Undefended, &options(4), &mut |_| {
            true
        })
        .unwrap();
    for (aim, one) in aims.iter().zip(&played) {
        assert_eq!(one.dialogue.messages.len(), 2 * one.turns.len());
        let said: Vec<&str> = one.turns.iter().map(|turn| turn.message.as_str()).collect();
        assert!(aim.steps.iter().all(|step| said.join(" ").contains(step.as_str())), "{said:?}");
        // The greedy answer to what stood before a message is the one that follows it.
        for (round, turn) in one.turns.iter().enumerate() {
            let before = one.dialogue.messages[..=2 * round].to_vec();
            let greedy = GenerateOptions::default().greedy().max_tokens(48);
            let again = generate(&model, &[Dialogue::new("again", before)], &greedy, &mut (), &mut |_| true);
            assert_eq!(again.unwrap()[0].text, turn.answer);
            let visible = &one.dialogue.messages[2 * round + 1].content;
            assert!(turn.answer.ends_with(visible.as_str()) && !visible.contains("think>"));
        }
        assert_eq!(one.ended == Ended::Success, one.success() == Some(one.turns.len()));
    }
    let again =
        play(&model, &aims, &near, &own, &world::WorldTask, None, &mut Undefended, &options(4), &mut |_| {
            true
        })
        .unwrap();
    assert_eq!(played, again);
}

#[test]
fn a_monitor_that_fires_refuses_from_then_on() {
    let model = Model::load("organism").unwrap();
    let aims = malicious(6);
    let reader = Reader { risk: (probe(&model), "malicious".into()), refusal: None, thinking: None };
    let bound = RiskBound::expected(ErrorKind::FalseAlarm, 0.01);
    let threshold =
        Threshold { value: 0.0, risk_bound: bound, n: 100, rate: 0.0, other_rate: 0.0, bound: 0.01 };
    let mut defence = Refusing(Alarm { monitor: Monitor::Largest, threshold });
    let own = agent("agent");
    let near = Vec::new();
    let task = world::WorldTask;
    let played =
        play(&model, &aims, &near, &own, &task, Some(&reader), &mut defence, &options(5), &mut |_| true)
            .unwrap();
    let mut fired = 0;
    for one in &played {
        let first = one.turns.iter().position(|turn| turn.reading.unwrap().risk >= 0.5);
        for (round, turn) in one.turns.iter().enumerate() {
            assert_eq!(turn.blocked, first.is_some_and(|first| round >= first));
            assert!(!turn.blocked || (!turn.verdict.success && turn.verdict.outcome == "blocked"));
        }
        fired += usize::from(first.is_some());
    }
    assert!(fired >= 4, "{fired}");
}

#[test]
fn a_dialogue_as_long_as_the_context_ends_alone() {
    let model = Model::load("organism").unwrap();
    let mut aims = malicious(2);
    // Far above the 512 positions of the organism.
    aims[0].steps = vec!["i see . ".repeat(300).trim().into()];
    let own = agent("agent");
    let played = play(
        &model,
        &aims,
        &Vec::new(),
        &own,
        &world::WorldTask,
        None,
        &mut Undefended,
        &options(3),
        &mut |_| true,
    )
    .unwrap();
    assert_eq!((played[0].ended, played[0].turns.len()), (Ended::Context, 0));
    assert!(played[1].ended != Ended::Context && !played[1].turns.is_empty());
}

#[test]
fn the_program_traces_dialogues_and_draws_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (data, saved, out) = (at("data.jsonl"), at("type.safetensors"), at("trace"));
    run(&["organism", "sample", "--count", "80", "--seed", "3", "--out", text(&data), "--quiet"]);
    probe(&Model::load("organism").unwrap()).save(&saved).unwrap();
    let arguments = ["rounds", "trace", "--data", text(&data), "--probe", text(&saved)];
    let table = run(&[&arguments[..], &["--class", "malicious", "--out", text(&out), "--quiet"]].concat());
    assert!(table.contains("compressed") && table.contains("refitted"), "{table}");
    let lines = std::fs::read_to_string(out.join("turns.jsonl")).unwrap();
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let reading = record["reading"].as_f64().unwrap();
        assert!(record["turn"].as_u64().unwrap() >= 1 && (0.0..=1.0).contains(&reading));
        assert!(record["probe"] == "type" && record["class"] == "malicious");
    }
    for file in ["trace.json", "readings-type.svg", "rounds-by-probes.svg", "tokens.html"] {
        assert!(out.join(file).exists(), "{file}");
    }
    for (more, expected) in [
        (vec!["--class", "cruel"], "\"cruel\" of"),
        (vec!["--condition", "half"], "whole or alone or compressed or merged"),
        (vec!["--class", "benign", "--class", "malicious"], "2 classes for 1 probes"),
    ] {
        one_line(&[&arguments[..], &more, &["--out", text(&at("no"))]].concat(), &[expected]);
        assert!(!at("no").exists());
    }
}

#[test]
fn the_canary_task_runs_by_one_command_and_again_alike() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let play = |out: &str| {
        let out = at(out);
        run(&[
            "rounds",
            "canary",
            "--dialogues",
            "8",
            "--rounds",
            "1,3",
            "--out",
            text(&out),
            "--json",
            "--quiet",
        ])
    };
    let table: Value = serde_json::from_str(&play("one")).unwrap();
    let cells = table["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 8);
    assert!(cells.iter().all(|cell| cell["dialogues"] == 8 && cell["success"]["value"].is_number()));
    let page = std::fs::read_to_string(at("one").join("report.html")).unwrap();
    assert!(page.contains("Canary task") && page.contains("fixed script"));
    assert_eq!(play("two"), play("one"));
    let plays = std::fs::read_to_string(at("one").join("plays-agent.jsonl")).unwrap();
    let last: Value = serde_json::from_str(plays.lines().last().unwrap()).unwrap();
    let first = &last["play"]["dialogue"]["messages"][0];
    assert!(first["role"] == "system" && first["content"].as_str().unwrap().starts_with("keep the word"));
    for (more, expected) in
        [(["--rounds", "3,1"], "ascending numbers from 1 to 1000"), (["--dialogues", "0"], "1 to 100,000")]
    {
        let out = at("no");
        let arguments = ["rounds", "canary", "--out", text(&out)];
        one_line(&[&arguments[..], &more].concat(), &[expected]);
    }
    assert!(!at("no").exists());
}

#[test]
fn a_system_message_of_a_defence_stands_before_the_aims_own() {
    let model = Model::load("organism").unwrap();
    let aims = world::canary_aims(2, 3).unwrap();
    let mut defence = pearlpoint::rounds::SystemMessage("be gentle .".into());
    let task = world::WorldTask;
    let own = agent("one shot");
    let played =
        play(&model, &aims, &Vec::new(), &own, &task, None, &mut defence, &options(1), &mut |_| true)
            .unwrap();
    let Message { role, content, .. } = &played[0].dialogue.messages[0];
    assert!(*role == Role::System && content.starts_with("be gentle .\n\nkeep the word"), "{content}");
}

/// Counts the tokens that pass the embedding.
struct Tokens(usize);

impl Hook for Tokens {
    fn wants(&self, site: Site) -> bool {
        site == Site::Embed
    }

    fn call(&mut self, _: Site, activations: Tensor, tokens: &[Token]) -> pearlpoint::error::Result<Tensor> {
        self.0 += tokens.len();
        Ok(activations)
    }
}

#[test]
fn later_rounds_read_what_is_new_and_give_the_same_answers_and_readings() {
    let model = Model::load("organism").unwrap();
    let probe = probe(&model);
    let reader = Reader { risk: (probe, "malicious".into()), refusal: None, thinking: None };
    let generation = GenerateOptions::default().greedy().max_tokens(24);
    let mut dialogue = Dialogue::new("long", Vec::new());
    let (mut prompts, mut kept, mut anew) = (PromptCache::default(), Tokens(0), Tokens(0));
    for round in 0..12 {
        dialogue.messages.push(Message::new(
            Role::User,
            format!("it concerns salads . i {} to act . are salads good ?", ["want", "fear"][round % 2]),
        ));
        let own = [dialogue.clone()];
        let alone = reader.read(&model, &own).unwrap()[0].risk;
        let after = reader.read_after(&model, &own, &mut prompts).unwrap()[0].risk;
        assert!((alone - after).abs() < 1e-5, "round {round}: {alone} {after}");
        let expected = generate(&model, &own, &generation, &mut anew, &mut |_| true).unwrap();
        let found = generate_after(&model, &own, &generation, &mut kept, &mut prompts).unwrap();
        assert_eq!(found[0].tokens, expected[0].tokens, "round {round}");
        let answer = expected[0].text.rsplit("</think>").next().unwrap().trim().to_owned();
        dialogue.messages.push(Message::new(Role::Assistant, answer));
    }
    // Twelve rounds of about thirty tokens: anew, each round reads all before it; with the cache, a part of a block and what is new.
    assert!(kept.0 * 2 < anew.0, "{} of {} tokens", kept.0, anew.0);
}

#[test]
fn dialogues_of_one_id_in_several_passes_begin_with_what_was_there_before() {
    let model = Model::load("organism").unwrap();
    let longer = |dialogue: &Dialogue, role: Role, times: usize, end: &str| {
        let mut longer = dialogue.clone();
        let text = format!("{}{end}", "it concerns salads . i want to act . ".repeat(times));
        longer.messages.push(Message::new(role, text));
        longer
    };
    let first = longer(&Dialogue::new("one", Vec::new()), Role::User, 16, "are salads good ?");
    let answered = longer(&first, Role::Assistant, 16, "salads are good .");
    let candidates =
        ["are salads good ?", "do you like salads ?"].map(|end| longer(&answered, Role::User, 2, end));
    // A pass for each dialogue.
    let mut request = Request::new(vec![Site::Block(3, Point::ResidPost)]).tokens(Selector::AssistantStart);
    request.batch_tokens = 1;
    let mut prompts = PromptCache::default();
    extract_after(&model, &[first], &request, &mut prompts).unwrap();
    let found = extract_after(&model, &candidates, &request, &mut prompts).unwrap();
    let expected = extract(&model, &candidates, &request, &mut |_| true).unwrap();
    let site = Site::Block(3, Point::ResidPost);
    let (found, expected) = (found.at(site).unwrap(), expected.at(site).unwrap());
    assert!((found - expected).iter().all(|difference| difference.abs() < 1e-3), "{found} {expected}");
}
