//! Steering: strength 0 is the unsteered model, the cache changes nothing, and only the picked tokens are steered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ndarray::Array1;
use pearlpoint::activations::{Recorder, Request, extract};
use pearlpoint::dialogue::Dialogue;
use pearlpoint::generate::{GenerateOptions, Transcript, generate};
use pearlpoint::model::{Cache, Chain, Hook, Model, Point, Selector, Site, Token};
use pearlpoint::organism::{self, Split};
use pearlpoint::probe::{Examples, Fit, Means, Probe, Provenance, Targets};
use pearlpoint::steer::{
    Control, Direction, Intervention, OPERATIONS, Operation, PiController, Plan, ProbeQuery, Probes,
    Schedule, SteerHook, Strength, TraceEntry, Vector,
};
use proptest::prelude::*;

use crate::cli::one_line;

/// Tokens of an answer, at most.
const TOKENS: usize = 44;
/// The residual stream's norm there, about.
const NORM: f32 = 94.0;
const SITE: Site = Site::Block(3, Point::ResidPost);

fn model() -> Model {
    organism::model().unwrap()
}

fn dialogues(count: usize) -> Vec<Dialogue> {
    organism::sample(count, Split::HeldOutWording, 5).into_iter().map(|(_, dialogue)| dialogue).collect()
}

fn vector(width: usize, seed: u64) -> Vector {
    let values: Array1<f32> = (0..width).map(|i| ((i as u64 * 31 + seed * 7) as f32).sin()).collect();
    let directions = BTreeMap::from([(SITE, Direction::new(values, Some(20.0)))]);
    Vector { method: "test".into(), directions, best: None }
}

fn steer(
    model: &Model,
    operation: Operation,
    strength: Strength,
    tokens: &str,
    rows: Option<BTreeSet<usize>>,
) -> SteerHook {
    let vector = vector(model.decoder.architecture().site_width(SITE), 1);
    SteerHook::new(&model.decoder, &vector, &[SITE], (operation, strength), tokens.parse().unwrap(), rows)
        .unwrap()
}

fn greedy(model: &Model, dialogues: &[Dialogue], hook: &mut dyn Hook) -> Vec<Transcript> {
    let options = GenerateOptions::default().greedy().max_tokens(TOKENS).thinking(true).batch_rows(4);
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
        let mut hook = steer(&model, Operation::ADD, strength, "all", None);
        let steered = numbers(model.decoder.forward(&tokens, None, &at, &mut hook).unwrap());
        assert!(plain.iter().zip(&steered).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn after_ablation_the_projection_is_0_and_clamping_gives_the_value_asked_for() {
    let (model, dialogues) = (model(), dialogues(2));
    let unit = vector(model.decoder.architecture().site_width(SITE), 1).directions[&SITE].unit().unwrap();
    for (operation, strength, expected) in [(Operation::ABLATE, 1.0, 0.0), (Operation::CLAMP, 3.5, 3.5)] {
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
        let mut hook = steer(&model, Operation::ADD, Strength::Norms(0.8), selector, None);
        let cached = greedy(&model, std::slice::from_ref(dialogue), &mut hook);
        assert_eq!(greedy_without_cache(&model, dialogue, &mut hook, TOKENS), cached[0].tokens, "{selector}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn each_row_of_a_batch_is_answered_as_it_is_alone(seed in 0u64..1000, steered in prop::collection::btree_set(0usize..5, 0..5)) {
        let model = model();
        let drawn = organism::sample(5, Split::Train, seed);
        let dialogues: Vec<Dialogue> = drawn.into_iter().map(|(_, dialogue)| dialogue).collect();
        let mut hook = steer(&model, Operation::ADD, Strength::Norms(0.7), "generated", Some(steered.clone()));
        let together = greedy(&model, &dialogues, &mut hook);
        for (row, dialogue) in dialogues.iter().enumerate() {
            let rows = if steered.contains(&row) { BTreeSet::from([0]) } else { BTreeSet::new() };
            let mut hook = steer(&model, Operation::ADD, Strength::Norms(0.7), "generated", Some(rows));
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
        let made = SteerHook::new(
            &model.decoder,
            &vector,
            &[SITE],
            (Operation::ADD, Strength::Raw(1.0)),
            selector,
            None,
        );
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

/// A probe of the user's type at a site, by the means of some dialogues.
fn probe(model: &Model, site: &str) -> Probe {
    let drawn = organism::sample(240, Split::Train, 9);
    let dialogues: Vec<Dialogue> = drawn.iter().map(|(_, dialogue)| dialogue.clone()).collect();
    let types: Vec<&str> = drawn.iter().map(|(situation, _)| situation.user_type.name()).collect();
    let (site, tokens) = (site.parse().unwrap(), Selector::AssistantStart);
    let reading = Request::new([site]).tokens(tokens.clone()).thinking(Some(true)).batch_tokens(4096);
    let read = extract(model, &dialogues, &reading, &mut |_| true).unwrap();
    let (label, model_hash) = ("user-type".to_string(), Some(model.hash.clone()));
    let source =
        Provenance { site, tokens, label, model: None, model_hash, model_form: None, data_hash: None };
    let targets = Targets::new(&types, &types, &["benign", "sensitive", "malicious"]).unwrap();
    let examples = Examples::new(source, read.at(site).unwrap().clone(), targets).unwrap();
    let mut probe = Means.fit_all(examples, 1.0).unwrap();
    // The means' logits are far too sure of themselves.
    probe.calibration = pearlpoint::probe::Calibration::Temperature { temperature: 400.0 };
    probe
}

fn hooks(
    model: &Model,
    probe: &Probe,
    folder: &Path,
    plan: &str,
    dialogues: &[Dialogue],
) -> pearlpoint::Result<Vec<SteerHook>> {
    let path = folder.join("vector.safetensors");
    // From benign users to malicious ones, where the probe knows them; else any direction.
    let values = probe.direction("benign", "malicious").unwrap();
    let mut vector = vector(128, 1);
    if probe.source.site == SITE {
        vector.directions.insert(SITE, Direction::new(values, Some(NORM)));
    }
    vector.save(&path, pearlpoint::artifact::Header::default()).unwrap();
    let plan = plan.replace("VECTOR", &format!("vector = \"{}\"", path.display()));
    let plan: Plan = toml::from_str(&plan).unwrap();
    plan.hooks_with(Probes::default().with(Path::new("p"), probe.clone()), model, dialogues, Some(true))
}

/// Probability of a sensitive user at the end of each prompt, as the unsteered model has it.
fn sensitive(model: &Model, probe: &Probe, dialogues: &[Dialogue]) -> Vec<f64> {
    let reading = Request::new([probe.source.site])
        .tokens(Selector::AssistantStart)
        .thinking(Some(true))
        .batch_tokens(4096);
    let read = extract(model, dialogues, &reading, &mut |_| true).unwrap();
    probe.probabilities(read.at(probe.source.site).unwrap().view()).unwrap().column(1).to_vec()
}

#[test]
fn a_condition_on_the_prompt_steers_the_rows_that_meet_it() {
    let (model, dialogues, folder) = (model(), dialogues(24), tempfile::tempdir().unwrap());
    let probe = probe(&model, "2.resid_post");
    let read = sensitive(&model, &probe, &dialogues);
    for (condition, meets) in [
        ("probe p:sensitive > 0.5", Box::new(|p: f64| p > 0.5) as Box<dyn Fn(f64) -> bool>),
        ("not probe p:sensitive > 0.5 at 2.resid_post", Box::new(|p| p <= 0.5)),
        ("probe p:sensitive > 0.9 or probe p:sensitive < 0.2", Box::new(|p| !(0.2..=0.9).contains(&p))),
    ] {
        let plan = format!("[[intervention]]\nVECTOR\nwhen = \"{condition}\"");
        let hook = hooks(&model, &probe, folder.path(), &plan, &dialogues).unwrap().remove(0);
        let steered: Vec<bool> = (0..dialogues.len()).map(|row| hook.cache_key(row) != 0).collect();
        assert_eq!(steered, read.iter().map(|p| meets(*p)).collect::<Vec<_>>(), "{condition}");
        assert!(steered.contains(&true) && steered.contains(&false), "{condition}: {read:?}");
    }
}

/// Greedy answers under a plan, and what was done.
fn traced(
    model: &Model,
    probe: &Probe,
    plan: &str,
    dialogues: &[Dialogue],
) -> (Vec<Transcript>, Vec<TraceEntry>) {
    let folder = tempfile::tempdir().unwrap();
    let hooks = hooks(model, probe, folder.path(), plan, dialogues).unwrap();
    let mut hooks: Vec<SteerHook> = hooks.into_iter().enumerate().map(|(n, hook)| hook.traced(n)).collect();
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    let answers = greedy(model, dialogues, &mut chain);
    (answers, hooks.iter_mut().flat_map(SteerHook::take_trace).collect())
}

#[test]
fn a_condition_at_every_token_steers_where_it_holds() {
    let (model, dialogues) = (model(), dialogues(6));
    let probe = probe(&model, "3.resid_post");
    let plan = "[[intervention]]\nVECTOR\nstrength = \"0.3n\"\ntokens = \"generated\"\n\
                when = \"probe p:sensitive > 0.4\"\nevaluate_at = \"token\"";
    let (_, steps) = traced(&model, &probe, plan, &dialogues);
    let (held, not): (Vec<&TraceEntry>, Vec<&TraceEntry>) =
        steps.iter().partition(|step| step.readings["p:sensitive"] > 0.4);
    assert!(!held.is_empty() && !not.is_empty());
    assert!(held.iter().all(|step| step.scale == 1.0 && (step.moved - 0.3 * NORM).abs() < 1e-2));
    assert!(not.iter().all(|step| step.scale == 0.0 && step.moved == 0.0));
}

#[test]
fn every_row_of_a_batch_may_have_a_plan_of_its_own() {
    let (model, dialogues) = (model(), dialogues(4));
    let probe = probe(&model, "3.resid_post");
    let ids: Vec<&str> = dialogues.iter().map(|dialogue| dialogue.id.as_str()).collect();
    let plans = [
        "VECTOR\nstrength = \"0.8n\"".to_string(),
        "VECTOR\noperation = \"clamp\"\nstrength = 9\nschedule = \"ramp(4)\"".into(),
        "operation = \"project\"\nprobe = \"p:malicious/benign > 0.9\"".into(),
    ];
    let part = |plan: &str, more: &str| format!("[[intervention]]\n{plan}\ntokens = \"generated\"\n{more}\n");
    let whole: String =
        plans.iter().zip(&ids).map(|(plan, id)| part(plan, &format!("ids = [\"{id}\"]"))).collect();
    let (together, _) = traced(&model, &probe, &whole, &dialogues);
    for (row, dialogue) in dialogues.iter().enumerate() {
        let alone = std::slice::from_ref(dialogue);
        let expected = match plans.get(row) {
            Some(plan) => traced(&model, &probe, &part(plan, ""), alone).0,
            None => greedy(&model, alone, &mut ()),
        };
        assert_eq!(together[row].tokens, expected[0].tokens, "row {row}");
    }
}

#[test]
fn a_projection_brings_probes_to_the_safe_side_and_says_which_pushed() {
    let (model, dialogues) = (model(), dialogues(5));
    let probe = probe(&model, "3.resid_post");
    let plan = "[[intervention]]\noperation = \"project\"\ntokens = \"all\"\n\
                probe = [\"p:malicious/benign < 0.3\", \"p:sensitive/benign < 0.4\"]";
    let folder = tempfile::tempdir().unwrap();
    let mut hook = hooks(&model, &probe, folder.path(), plan, &dialogues).unwrap().remove(0).traced(0);
    let tokens = model.chat.tokens(&dialogues[0], 0, Some(true)).unwrap();
    let mut recorder = Recorder::new(vec![SITE], Selector::All);
    let mut chain = Chain(vec![&mut hook, &mut recorder]);
    model.decoder.forward(&tokens, None, &[], &mut chain).unwrap();
    let rows = ndarray::Array2::from_shape_vec((tokens.len(), 128), recorder.finish().1.remove(0).1).unwrap();
    let after = probe.probabilities(rows.view()).unwrap();
    let mut pushed = 0;
    for (step, p) in hook.take_trace().iter().zip(after.rows()) {
        assert!(p[2] / (p[2] + p[0]) < 0.3 + 1e-4 && p[1] / (p[1] + p[0]) < 0.4 + 1e-4, "{p}");
        assert_eq!(step.half_spaces.is_empty(), step.moved == 0.0);
        if let [(name, push)] = step.half_spaces.iter().collect::<Vec<_>>()[..] {
            assert!((push - f64::from(step.moved)).abs() < 1e-3, "{name}: {push} and {}", step.moved);
        }
        pushed += step.half_spaces.len();
    }
    assert!(pushed > 0);
}

/// A loop's plan: it steers block 3 by what is read at another place.
fn looped(law: &str) -> String {
    format!(
        "[[intervention]]\nVECTOR\nstrength = \"0.5n\"\ntokens = \"generated\"\ncontrol = {{ probe = \"p:sensitive\", {law} }}"
    )
}

#[test]
fn a_closed_loop_is_the_same_with_the_cache_and_without() {
    let (model, dialogues, folder) = (model(), dialogues(4), tempfile::tempdir().unwrap());
    let law = "target = 0.7, proportional = 0.02, integral = 0.002, min = -2.0, max = 2.0";
    // Read before it acts, where it acts, and after.
    for site in ["2.resid_post", "3.resid_post", "5.resid_post"] {
        let probe = probe(&model, site);
        let (cached, steps) = traced(&model, &probe, &looped(law), &dialogues);
        for (row, dialogue) in dialogues.iter().enumerate() {
            let alone = std::slice::from_ref(dialogue);
            let mut hook = hooks(&model, &probe, folder.path(), &looped(law), alone).unwrap().remove(0);
            assert_eq!(
                greedy_without_cache(&model, dialogue, &mut hook, TOKENS),
                cached[row].tokens,
                "{site}, row {row}"
            );
        }
        let scales: BTreeSet<u32> = steps.iter().map(|step| step.scale.to_bits()).collect();
        assert!(scales.len() > 10, "{site}: the strength follows the reading");
        assert!(
            steps.iter().all(|step| (-2.0..=2.0).contains(&step.scale) && step.error.is_some()),
            "{site}"
        );
    }
}

#[test]
fn a_loops_trace_follows_from_its_law() {
    let (model, dialogues) = (model(), dialogues(2));
    let law = "target = 0.7, proportional = 0.1, integral = 0.03, min = -1e9, max = 1e9";
    for site in ["3.resid_post", "5.resid_post"] {
        let (_, steps) = traced(&model, &probe(&model, site), &looped(law), &dialogues);
        for row in 0..dialogues.len() {
            let mut sum = 0.0;
            for step in steps.iter().filter(|step| step.row == row) {
                let (error, reading) = (step.error.unwrap(), step.readings["p:sensitive"]);
                sum += error;
                assert!(
                    (f64::from(step.scale) - (0.1 * error + 0.03 * sum)).abs() < 1e-4,
                    "{site}: {step:?}"
                );
                let expected = (0.7f64 / 0.3).ln() - (reading / (1.0 - reading)).ln();
                assert!((error - expected).abs() < 1e-6 * error.abs().max(1.0));
            }
        }
    }
}

#[test]
fn a_loop_that_reads_late_refuses_several_tokens_at_once() {
    let (model, dialogues, folder) = (model(), dialogues(1), tempfile::tempdir().unwrap());
    let plan = looped("target = 0.7, proportional = 0.2");
    let mut hook =
        hooks(&model, &probe(&model, "5.resid_post"), folder.path(), &plan, &dialogues).unwrap().remove(0);
    let mut tokens = model.chat.tokens(&dialogues[0], 0, Some(true)).unwrap();
    let mut continuation = model.chat.continuation(&tokens);
    tokens.extend([20, 21, 22].map(|id| continuation.next(id)));
    let error = model.decoder.forward(&tokens, None, &[], &mut hook).unwrap_err().to_string();
    assert!(error.contains("token by token"), "{error}");
}

/// The organism's answers under each operation, word for word.
#[test]
fn golden_transcripts() {
    let (model, dialogues) = (model(), dialogues(2));
    let probe = probe(&model, "3.resid_post");
    let at = "VECTOR\ntokens = \"assistant.start\"";
    let control = "control = { probe = \"p:malicious\", target = 0.9, proportional = 0.3 }";
    let plans = [
        ("add", format!("{at}\nstrength = \"1n\"")),
        ("add, turned round", format!("{at}\nstrength = \"-1n\"")),
        ("add at every token, decaying", "VECTOR\nstrength = \"1n\"\nschedule = \"decay(6)\"".into()),
        ("add, norm kept", format!("{at}\noperation = \"add-keep-norm\"\nstrength = \"3n\"")),
        ("ablate", "VECTOR\noperation = \"ablate\"".into()),
        ("clamp", format!("{at}\noperation = \"clamp\"\nstrength = \"1n\"")),
        ("cap", "VECTOR\noperation = \"cap\"\nstrength = \"-0.5n\"".into()),
        ("project", "operation = \"project\"\nprobe = \"p:malicious > 0.8\"".into()),
        ("loop", format!("{at}\nstrength = \"1n\"\n{control}")),
    ];
    let mut shown = String::new();
    for (name, plan) in std::iter::once(("unsteered", String::new())).chain(plans) {
        let steered = match plan.as_str() {
            "" => greedy(&model, &dialogues, &mut ()),
            plan => traced(&model, &probe, &format!("[[intervention]]\n{plan}"), &dialogues).0,
        };
        for transcript in steered {
            shown += &format!("{name}: {}\n", transcript.text);
        }
    }
    insta::assert_snapshot!(shown);
}

/// Line 6 of what steering must show: one clear line each.
#[test]
fn bad_input_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let header = |hash: Option<&str>| pearlpoint::artifact::Header {
        model: Some("some/model".into()),
        model_hash: hash.map(str::to_string),
        ..Default::default()
    };
    vector(128, 1).save(&at("own"), header(None)).unwrap();
    vector(96, 1).save(&at("narrow"), header(None)).unwrap();
    vector(128, 1).save(&at("other"), header(Some("f00d"))).unwrap();
    probe(&model(), "5.resid_post").save(&at("late")).unwrap();
    let mut strange = probe(&model(), "3.resid_post");
    strange.source.model_hash = Some("f00d".into());
    strange.save(&at("strange")).unwrap();
    let path = |name: &str| at(name).display().to_string();
    let vector = |text: String, expected: &[&str]| {
        one_line(&["generate", "--prompt", "please explain pills .", "--vector", &text], expected);
    };
    vector(format!("{}:1", path("narrow")), &["3.resid_post", "width 96", "width 128, the model's"]);
    vector(format!("{}:1", path("other")), &["another model's weights (some/model)", "a vector of organism"]);
    vector(
        format!("{}:1@5.resid_post", path("own")),
        &["vector at 5.resid_post: no direction there; expected 3.resid_post"],
    );
    vector(format!("{}:1@9.resid_post", path("own")), &["9.resid_post"]);
    vector(format!("{}:NaN", path("own")), &["strength NaN", "no finite number"]);
    vector(format!("{}:infn", path("own")), &["strength infn", "no finite number"]);
    vector(format!("{}:1", path("nowhere")), &["nowhere: No such file"]);
    let plan = |text: &str, expected: &[&str]| {
        let text = text
            .replace("OWN", &path("own"))
            .replace("LATE", &path("late"))
            .replace("STRANGE", &path("strange"));
        std::fs::write(at("plan.toml"), format!("[[intervention]]\n{text}")).unwrap();
        one_line(&["generate", "--prompt", "please explain pills .", "--plan", &path("plan.toml")], expected);
    };
    let when = |condition: &str| format!("vector = \"OWN\"\nwhen = \"{condition}\"");
    plan(
        &when("probe LATE:sensitive > 0.7 and probe LATE:sensitive < 0.3"),
        &["no reading can ever meet it"],
    );
    plan(&when("probe LATE:sensitive > 0.6 and probe LATE:benign > 0.6"), &["no reading can ever meet it"]);
    plan(&when("probe LATE:angry > 0.6"), &["no class \"angry\"", "benign or sensitive or malicious"]);
    plan(&when("probe LATE:sensitive > 0.6 at 2.resid_post"), &["it reads 5.resid_post, not 2.resid_post"]);
    plan(&when("probe STRANGE:sensitive > 0.6"), &["another model's weights"]);
    plan(&when("probe LATE:sensitive above 0.6"), &["\"above\" instead of > or <"]);
    let late = format!("{}\nevaluate_at = \"token\"", when("probe LATE:sensitive > 0.6"));
    plan(&late, &["read at 5.resid_post, after 3.resid_post is steered"]);
    plan("vector = \"OWN\"\nstrength = nan", &["plan.toml", "strength NaN"]);
    plan(
        "vector = \"OWN\"\noperation = \"ablate\"\nstrength = \"1n\"",
        &["operation ablate: strength 1n", "without n"],
    );
    plan(
        "vector = \"OWN\"\ntokens = \"last\"",
        &["tokens last", "not known while the answer is being written"],
    );
    plan("vector = \"OWN\"\nids = [\"nobody\"]", &["ids: no dialogue \"nobody\""]);
    plan("vector = \"OWN\"\noperation = \"turn\"", &["plan.toml:3", "add, add-keep-norm, ablate"]);
    plan("operation = \"add\"", &["operation add: no vector"]);
    plan("operation = \"project\"", &["operation project: no probe"]);
    plan("operation = \"project\"\nprobe = \"LATE:sensitive < 0.5\"", &["not flat", "FILE:CLASS/OTHER"]);
    plan(
        "operation = \"project\"\nprobe = \"LATE:sensitive/benign\"",
        &["no bound, and no calibrated threshold"],
    );
    plan(
        "operation = \"project\"\nprobe = [\"LATE:sensitive/benign < 0.2\", \"LATE:sensitive/benign > 0.6\"]",
        &["no state is on the safe side of all of them"],
    );
    plan(
        "vector = \"OWN\"\ncontrol = { probe = \"LATE:sensitive\", target = 1.5, proportional = 0.1 }",
        &["a target of 1.5"],
    );
    plan("vector = \"OWN\"\nschedule = \"decay(0)\"", &["schedule \"decay(0)\""]);
    // Refused before a model is opened.
    let (plan, sites) = (path("plan.toml"), "[[intervention]]\nvector = \"OWN\"\nsites = \"3.nowhere\"");
    std::fs::write(&plan, sites).unwrap();
    one_line(
        &["generate", "--model", "no/folder", "--prompt", "a", "--plan", &plan],
        &["plan.toml:3", "sites", "3.nowhere"],
    );
}

#[test]
fn a_plan_of_objects_steers_as_the_plan_of_their_files() {
    let (model, dialogues, folder) = (model(), dialogues(12), tempfile::tempdir().unwrap());
    let probe = probe(&model, "3.resid_post");
    let id = &dialogues[1].id;
    let text = format!(
        "[[intervention]]\nVECTOR\nsites = \"3.resid_post\"\nstrength = \"0.8n\"\nwhen = \"probe p:sensitive > 0.5\"\n\
         [[intervention]]\noperation = \"project\"\nprobe = [\"p:malicious/benign < 0.3\", \"p:sensitive/benign < 0.4\"]\n\
         tokens = \"generated\"\n\
         [[intervention]]\nVECTOR\nsites = \"3.resid_post\"\noperation = \"clamp\"\nstrength = 9\nschedule = \"ramp(4)\"\n\
         ids = [\"{id}\"]\ncontrol = {{ probe = \"p:sensitive\", target = 0.7, proportional = 0.02 }}"
    );
    let mut of_files = hooks(&model, &probe, folder.path(), &text, &dialogues).unwrap();
    let (_, vector) = Vector::load(&folder.path().join("vector.safetensors")).unwrap();
    let controller = PiController { target: 0.7, proportional: 0.02, integral: 0.0, min: 0.0, max: 1.0 };
    let plan = Plan::add(&vector, "3.resid_post", "0.8n").unwrap().when(&probe, "sensitive", 0.5);
    let project = Intervention::project(&probe, "malicious/benign < 0.3").unwrap();
    let project = project.satisfy(&probe, "sensitive/benign < 0.4").unwrap();
    let clamp = Intervention::clamp(vector, "3.resid_post", "9").unwrap().schedule(Schedule::Ramp(4.0));
    let clamp = clamp.ids([id]).control(&probe, "sensitive", controller);
    let plan = plan.and(project.tokens(Selector::Generated)).and(clamp);
    let mut of_objects = plan.hooks(&model, &dialogues, Some(true)).unwrap();
    let answer = |hooks: &mut Vec<SteerHook>| {
        greedy(&model, &dialogues, &mut Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect()))
    };
    let answers = answer(&mut of_files);
    assert_eq!(answer(&mut of_objects), answers);
    assert_ne!(greedy(&model, &dialogues, &mut ()), answers);
    // What is in memory can't be written to a file.
    assert!(toml::to_string(&plan).unwrap_err().to_string().contains("in memory"));
    let query = ProbeQuery::parse("p:sensitive");
    let control =
        Intervention { control: Some(Control { probe: query, controller }), ..Intervention::default() };
    assert!(toml::to_string(&Plan::from(control)).is_ok());
}

#[test]
fn the_documented_operations_are_those_of_the_table() {
    let text = std::fs::read_to_string("docs/formats-steering.md").unwrap();
    for operation in OPERATIONS {
        let row = format!("| `{}` | `{}` |", operation.name(), operation.help());
        assert!(text.contains(&row), "docs/formats-steering.md lacks the row {row}");
    }
}

#[test]
fn one_direction_is_ablated_at_every_point_of_the_residual_stream() {
    let (model, dialogues) = (model(), dialogues(1));
    let vector = vector(model.decoder.architecture().site_width(SITE), 1);
    let unit = vector.directions[&SITE].unit().unwrap();
    let ablation = Intervention { from: Some(SITE), ..Intervention::ablate(&vector, "all").unwrap() };
    let mut hook = ablation.hook(&model, &vector, None).unwrap();
    let sites =
        model.decoder.architecture().parse_sites("embed,*.resid_pre,*.resid_mid,*.resid_post").unwrap();
    let mut recorder = Recorder::new(sites.clone(), Selector::All);
    let tokens = model.chat.tokens(&dialogues[0], 0, Some(true)).unwrap();
    let mut chain = Chain(vec![&mut hook, &mut recorder]);
    model.decoder.forward(&tokens, None, &[], &mut chain).unwrap();
    let (_, read) = recorder.finish();
    assert_eq!(read.len(), sites.len());
    for (site, states) in &read {
        for state in states.chunks(unit.len()) {
            let along: f64 = state.iter().zip(&unit).map(|(h, u)| f64::from(h * u)).sum();
            let length: f64 = state.iter().map(|h| f64::from(h * h)).sum::<f64>().sqrt();
            assert!(along.abs() < 1e-4 * length, "{site}: {along} of {length}");
        }
    }
}

#[test]
fn a_vectors_direction_is_used_at_other_sites_of_its_width_only() {
    let model = model();
    let vector = vector(model.decoder.architecture().site_width(SITE), 1);
    let elsewhere = |sites: &str, from: Option<Site>| {
        let change = Intervention { from, ..Intervention::add(&vector, sites, "0.5n").unwrap() };
        change
            .hook(&model, &vector, None)
            .map(|hook| [0, 1, 2].map(|b| hook.wants(Site::Block(b, Point::ResidPost))))
    };
    assert_eq!(elsewhere("0-1.resid_post", Some(SITE)).unwrap(), [true, true, false]);
    for (sites, from, expected) in [
        ("0.resid_post", None, "3.resid_post; or from = \"SITE\""),
        ("0.mlp_hidden", Some(SITE), "of width"),
        (
            "0.resid_post",
            Some(Site::Embed),
            "from embed: the vector has no direction there; expected 3.resid_post",
        ),
    ] {
        let error = elsewhere(sites, from).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // "all" without a site whose direction it is: all of the vector's.
    assert_eq!(elsewhere("all", None).unwrap(), [false; 3]);
}

#[test]
fn states_are_read_from_the_steered_model_and_know_their_plan() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let path = |name: &str| folder.path().join(name);
    let one = vector(model.decoder.architecture().site_width(SITE), 1);
    one.save(&path("v.safetensors"), pearlpoint::artifact::Header::new("vector", 2)).unwrap();
    let plan = |operation: &str| {
        let file = path("v.safetensors");
        let text = format!(
            "[[intervention]]\nvector = {file:?}\noperation = \"{operation}\"\nids = [\"d0\", \"d2\"]\n"
        );
        toml::from_str::<Plan>(&text).unwrap()
    };
    let mut all = dialogues(3);
    all.iter_mut().enumerate().for_each(|(number, one)| one.id = format!("d{number}"));
    let data = pearlpoint::dialogue::Dialogues::new("data", all).unwrap();
    let unit = one.directions[&SITE].unit().unwrap();
    let read = |plan: Option<Plan>| {
        // A dialogue a batch: rows are told apart by their dialogues.
        let extraction = model.extraction("3.resid_post", "last").unwrap().batch_tokens(1);
        let extraction = match &plan {
            None => extraction,
            Some(plan) => extraction.plan(plan).unwrap(),
        };
        extraction.run(&data).unwrap().at(SITE).unwrap().into_owned()
    };
    let (plain, ablated) = (read(None), read(Some(plan("ablate"))));
    for row in 0..3 {
        let along = ablated.row(row).dot(&unit).abs();
        match row {
            1 => assert_eq!(ablated.row(1), plain.row(1)),
            _ => assert!(along < 1e-3 && plain.row(row).dot(&unit).abs() > 0.1, "{along}"),
        }
    }
    let hashes = ["ablate", "add"].map(|operation| plan(operation).hash().unwrap());
    assert_ne!(hashes[0], hashes[1]);
    one.scaled(2.0).save(&path("v.safetensors"), pearlpoint::artifact::Header::new("vector", 2)).unwrap();
    assert_ne!(plan("ablate").hash().unwrap(), hashes[0]);
    // Stores of two plans aren't continued with each other.
    let file = path("data.jsonl");
    let lines: Vec<String> = data.dialogues.iter().map(|one| serde_json::to_string(one).unwrap()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    for (name, text) in [("a", plan("ablate")), ("b", plan("add"))] {
        std::fs::write(path(&format!("{name}.toml")), toml::to_string(&text).unwrap()).unwrap();
    }
    let (data, store) = (file.display().to_string(), path("store").display().to_string());
    let extract = |plan: &str| {
        let plan = path(plan).display().to_string();
        let words = ["extract", "--data", &data, "--sites", "3.resid_post", "--plan", &plan, "--out", &store];
        words.map(str::to_owned)
    };
    assert!(
        crate::cli::pearl(&extract("a.toml").each_ref().map(|word| word.as_str()))
            .output()
            .unwrap()
            .status
            .success()
    );
    one_line(&extract("b.toml").each_ref().map(|word| word.as_str()), &["another `plan`"]);
}
