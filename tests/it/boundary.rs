//! Where the boundary runs and what may be promised of it: on the organism, whose truth is known, and on topics that no
//! probe was fitted on.

use std::path::Path;
use std::sync::OnceLock;

use pearlpoint::activations::{Activations, Request, extract};
use pearlpoint::analysis::interpolation::{self, interpolate};
use pearlpoint::boundary::{ActiveLearning, ErrorKind, RiskBound, Search, compare, coverage};
use pearlpoint::dialogue::Dialogue;
use pearlpoint::generate::{GenerateOptions, generate};
use pearlpoint::judge::{Words, World};
use pearlpoint::model::{Model, Selector, Site};
use pearlpoint::organism::contrast::{self, Contrast};
use pearlpoint::organism::{self, wording};
use pearlpoint::probe::{
    Examples, Logistic, Provenance, Split, Targets, Validated, ValidationPlan, validate,
};

/// Dialogues of the world in wordings that the organism was not trained on, what it holds at the end of each prompt, and
/// the strategy of its greedy answer.
struct Read {
    model: Model,
    dialogues: Vec<Dialogue>,
    activations: Activations,
    strategies: Vec<String>,
}

const SITES: &str = "1-3.resid_post";

fn read() -> &'static Read {
    static READ: OnceLock<Read> = OnceLock::new();
    READ.get_or_init(|| {
        let model = organism::model().unwrap();
        let drawn = organism::sample(4000, organism::Split::HeldOutWording, 11);
        let drawn = drawn.into_iter().filter(|(situation, _)| !situation.asked_canary);
        let dialogues: Vec<Dialogue> = drawn.map(|(_, dialogue)| dialogue).collect();
        let reading = Request::new(model.decoder.architecture().parse_sites(SITES).unwrap())
            .tokens(Selector::AssistantStart)
            .thinking(Some(true))
            .batch_tokens(4096);
        let activations = extract(&model, &dialogues, &reading, &mut |_| true).unwrap();
        // The first word of the thinking part names the need, and with it the strategy.
        let options =
            GenerateOptions::default().greedy().max_tokens(1).seed(11).thinking(true).batch_rows(256);
        let answers = generate(&model, &dialogues, &options, &mut (), &mut |_| true).unwrap();
        let strategy = |text: &str| wording::strategy_of_need(text.trim()).map_or("broken", |one| one.name());
        let strategies = answers.iter().map(|answer| strategy(&answer.text).to_owned()).collect();
        Read { model, dialogues, activations, strategies }
    })
}

/// The examples of a label at a site; rows of a strategy that is rarer than one in fifty are left out.
fn examples(label: &str, site: &str) -> Examples {
    let read = read();
    let values: Vec<String> = match label {
        "strategy" => read.strategies.clone(),
        label => read.dialogues.iter().map(|dialogue| dialogue.label(label).unwrap()).collect(),
    };
    let common = |value: &String| values.iter().filter(|other| *other == value).count() * 50 > values.len();
    let rows: Vec<usize> = (0..values.len()).filter(|&row| common(&values[row])).collect();
    let labels: Vec<&str> = rows.iter().map(|&row| values[row].as_str()).collect();
    let topics: Vec<String> = rows.iter().map(|&row| read.dialogues[row].label("topic").unwrap()).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let site: Site = site.parse().unwrap();
    let source = Provenance {
        site,
        tokens: Selector::AssistantStart,
        label: label.into(),
        model: None,
        model_hash: None,
        model_form: None,
        data_hash: None,
    };
    let features = read.activations.at(site).unwrap().select(ndarray::Axis(0), &rows);
    Examples::new(source, features, Targets::new(&labels, &topics, &[]).unwrap()).unwrap()
}

fn validated(examples: &Examples) -> Validated {
    let split = Split::hold_out(examples.targets(), &wording::HELD_OUT_TOPICS).unwrap();
    validate(&Logistic::default(), examples.clone(), &split, &ValidationPlan::default()).unwrap()
}

/// Labels and sites where nothing is certain, and where everything is.
const READINGS: [(&str, &str); 5] = [
    ("user-type", "1.resid_post"),
    ("user-type", "2.resid_post"),
    ("risk-level", "1.resid_post"),
    ("risk-level", "2.resid_post"),
    ("strategy", "3.resid_post"),
];

#[test]
fn calibrated_probabilities_are_honest_on_topics_held_out() {
    for (label, site) in READINGS {
        let validated = validated(&examples(label, site));
        let score = |name: &str| {
            let mut scores = validated.probe.scores.iter();
            scores.find(|score| score.name == name && score.split == "test").unwrap().value
        };
        let name = validated.probe.calibration.name();
        println!("{label} at {site}: ECE {:.4}, AUROC {:.4}, {name}", score("ece"), score("auroc"));
        assert!(score("ece") <= 0.03, "{label} at {site}: {}", score("ece"));
    }
}

#[test]
fn a_confident_threshold_keeps_its_promise_in_200_resamplings() {
    for (label, site, flag) in [
        ("user-type", "1.resid_post", "malicious"),
        ("risk-level", "1.resid_post", "R2"),
        ("strategy", "3.resid_post", "refuse"),
    ] {
        let examples = examples(label, site);
        let validated = validated(&examples);
        let class = examples.targets().class(flag).unwrap();
        let scores = validated.test.column(class).to_vec();
        let truth = examples.targets().select(&validated.split.test).classes;
        let positive: Vec<bool> = truth.iter().map(|&of| of == class).collect();
        // By 200 rows theory has it hold in 93.8 %: one that is just kept would be seen below 90 % every second time.
        let (alpha, delta) = (0.05, 0.1);
        for guarantee in [ErrorKind::Miss, ErrorKind::FalseAlarm] {
            let promise = RiskBound::confident(guarantee, alpha, delta);
            let found = coverage(&scores, &positive, promise, 200, 200, 7).unwrap();
            println!("{label} at {site}, {flag}: {promise:?} {found:?}");
            assert!(found.coverage >= 1.0 - delta, "{label}, {guarantee:?}: {found:?}");
            // It is no empty promise: the mean rate is not far below.
            assert!(found.mean_rate > alpha / 3.0, "{label}, {guarantee:?}: {found:?}");
        }
    }
}

#[test]
fn labels_near_the_boundary_are_worth_more_than_random_ones() {
    let examples = examples("user-type", "2.resid_post");
    let split = Split::hold_out(examples.targets(), &wording::HELD_OUT_TOPICS).unwrap();
    let campaign = ActiveLearning { repeats: 12, rounds: 10, ..ActiveLearning::default() };
    let gain = compare(&Logistic::default(), &examples, &split, &campaign).unwrap();
    let better = gain.accuracy().unwrap();
    println!("{better:?} {:?}", gain.labels_for_the_same());
    assert!(better.low > 0.0, "{better:?}");
}

/// The organism decides at block 3 what block 2 already knows: between twins the probe flips at both, the answer only where
/// the state is patched at the later one; and a random direction, as far, flips neither.
#[test]
fn the_behavioural_boundary_lies_near_the_representational_one_where_the_state_decides() {
    let probes: Vec<_> =
        ["2.resid_post", "3.resid_post"].map(|site| validated(&examples("user-type", site)).probe).into();
    let drawn = contrast::pairs(8, Contrast::Deed, 3).into_iter().enumerate();
    let pairs: Vec<(String, [Dialogue; 2])> =
        drawn.map(|(number, twins)| (number.to_string(), twins.map(|(_, dialogue)| dialogue))).collect();
    let how = interpolation::Options {
        search: Search { parts: 4, halvings: 5 },
        max_tokens: 60,
        thinking: Some(true),
        seed: 0,
    };
    let found = interpolate(&read().model, &World, &pairs, &probes, &how, &mut |_| true).unwrap();
    let summaries = found.summaries(0);
    println!("{summaries:#?}");
    let [early, late] = &summaries[..] else { panic!("{} sites", summaries.len()) };
    assert!(found.pairs >= 6 && early.probe_flips == found.pairs && late.probe_flips == found.pairs);
    assert_eq!((early.model_flips, late.control_flips), (0, 0));
    // A judge that tells no twins apart leaves the probe's flips, of every pair.
    let none = Words::new(&["zzz".into()]).unwrap();
    let alike = interpolate(&read().model, &none, &pairs, &probes[1..], &how, &mut |_| true).unwrap();
    let own = &alike.summaries(0)[0];
    assert_eq!((alike.pairs, alike.given, own.pairs), (0, 8, 8));
    assert_eq!((own.model_flips, own.control_flips, own.model_at.is_none()), (0, 0, true));
    assert!(own.probe_flips >= late.probe_flips && alike.searched().contains("all 8 pairs"));
    // Every answer changes, in all but a few pairs to the twin's own outcome.
    assert_eq!(late.model_flips + late.model_others, found.pairs);
    assert!(late.model_flips + 2 >= found.pairs);
    assert!(late.gap.unwrap().value.abs() < 0.15);
    // Every flip is bracketed as finely as was asked, and goes from the first twin's answer to another.
    for passage in found.passages.iter().filter(|passage| passage.site == probes[1].source.site) {
        let flip = passage.model.as_ref().unwrap();
        assert!((flip.high - flip.low - 0.25 / 32.0).abs() < 1e-9 && flip.from == "help", "{flip:?}");
    }
}

fn pearl(folder: &Path, arguments: &str) -> assert_cmd::assert::Assert {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_pearl"));
    command.current_dir(folder).args(arguments.split_whitespace()).assert()
}

#[test]
fn the_program_draws_a_boundary_and_says_what_is_wrong_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &str| pearl(folder.path(), arguments);
    run("organism sample --count 700 --seed 5 --out d.jsonl").success();
    run("extract --data d.jsonl --sites 1-2.resid_post --tokens assistant.start --out store").success();
    let held = "cybersecurity,healthcare,false-rumours,gambling,travel";
    run(&format!(
        "probe fit --store store --data d.jsonl --label user-type+risk-level --group topic --held-out {held} --out p.safetensors"
    ))
    .success();
    let map = "boundary --store store --data d.jsonl --probe p.safetensors --from benign+R0 --to malicious+R2 --out map";
    let shown = run(&format!("{map} --group topic --alpha 0.1 --delta 0.1 --next 5 --json")).success();
    let card: serde_json::Value = serde_json::from_slice(&shown.get_output().stdout).unwrap();
    assert_eq!(card["flagged"]["promise"], "miss rate ≤ 0.1 with confidence 0.9 on exchangeable data");
    assert!(card["flagged"]["threshold"]["bound"].as_f64().unwrap() <= 0.1);
    assert_eq!(card["flagged"]["held"], true);
    // A category and a level in one probe: the region of the benign has a face to each of the other four.
    let faces = card["faces"]["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 4);
    let at = |name: &str| folder.path().join("map").join(name);
    for name in ["map", "margins", "reliability"] {
        for end in ["chart.json", "svg", "png"] {
            assert!(at(&format!("{name}.{end}")).exists(), "{name}.{end}");
        }
    }
    // Plots come from saved tables alone, and come out the same.
    let before = std::fs::read(at("margins.svg")).unwrap();
    std::fs::remove_file(at("margins.svg")).unwrap();
    run("plot map").success();
    assert_eq!(std::fs::read(at("margins.svg")).unwrap(), before);

    run("organism pairs --contrast trust --count 2 --out pairs.jsonl").success();
    run("boundary tokens --data pairs.jsonl --probe p.safetensors --class malicious+R2 --out tokens")
        .success();
    assert!(
        std::fs::read_to_string(folder.path().join("tokens/tokens.html"))
            .unwrap()
            .contains("class=\"strip\"")
    );
    run("boundary drift --data d.jsonl --probe p.safetensors --risk-map map/map.json --out drift").success();
    assert!(folder.path().join("drift/drift.png").exists());

    let mine = ["one", "two"].map(|id| format!(r#"{{"id":"{id}","prompt":"how?","labels":{{"pair":"p"}}}}"#));
    std::fs::write(folder.path().join("mine.jsonl"), mine.join("\n")).unwrap();
    let wrong = [
        (
            "boundary cross --data mine.jsonl --probe p.safetensors --out x".into(),
            "judge others by what the model's refusals say",
        ),
        (format!("{map} --alpha 0.1"), "--alpha: dialogues that the probe was fitted on"),
        (format!("{map} --group topic --alpha 0.001"), "at least 2302, or a larger rate"),
        (format!("{map} --group topic --alpha 1.5"), "a rate of 1.5; expected one between 0 and 1"),
        (format!("{map} --group intent"), "no row that the probe never saw"),
        (format!("{map} --safe nobody"), "no class \"nobody\""),
        (
            "boundary cross --data d.jsonl --probe p.safetensors --out x".into(),
            "no dialogue with a label pair",
        ),
        ("boundary --store store".into(), "required arguments"),
        (
            "boundary cross --data pairs.jsonl --probe p.safetensors --refusal= --out x".into(),
            "an empty phrase",
        ),
        (
            "boundary tokens --data pairs.jsonl --probe p.safetensors --class R9 --out y".into(),
            "no class \"R9\"",
        ),
    ];
    for (arguments, expected) in wrong {
        let refused = run(&arguments).code(2);
        let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(said.contains(expected) && said.lines().count() == 1, "{arguments}: {said}");
    }
}

/// The two boundaries, a promise and a dialogue under the probe's eye, asked for in one file; run again, nothing is searched
/// again.
#[test]
fn an_experiment_file_asks_for_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = r#"
name = "boundary"
model = "organism"
seed = 3
thinking = true

[data]
sample = 900
exclude = { canary = "asked" }
group = "topic"
held-out = ["cybersecurity", "healthcare", "false-rumours", "gambling", "travel"]

[read]
sites = "3.resid_post"
tokens = "assistant.start"

[[probe]]
label = "user-type"
order = ["benign", "sensitive", "malicious"]

[boundary]
probe = "user-type"
from = "benign"
to = "malicious"

[boundary_report]
probe = "user-type"
from = "benign"
to = "malicious"
alpha = 0.1
delta = 0.1

[[interpolation]]
name = "deed"
probe = "user-type"
sample = 6
contrast = "deed"
max-tokens = 60
parts = 4
halvings = 2

[[interpolation]]
name = "words"
probe = "user-type"
sample = 6
contrast = "deed"
max-tokens = 60
parts = 4
halvings = 2
refusals = ["can not discuss", "not for me"]

[token_readout]
probe = "user-type"
class = "malicious"
"#;
    std::fs::write(folder.path().join("boundary.toml"), file).unwrap();
    pearl(folder.path(), "run boundary.toml --out out").success();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.path().join("out").join(name)).unwrap()).unwrap()
    };
    let results = read("results.json");
    let figure = |name: &str| {
        let found = results["figures"].as_array().unwrap().iter().find(|figure| figure["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}"))["value"].as_f64().unwrap()
    };
    let share = |what: &str| figure(&format!("crossing/deed/3.resid_post/{what}"));
    assert_eq!(share("probe-flips"), 1.0);
    // Every answer changes; where it is not what the twin is answered, the change is counted apart.
    assert!((share("answer-flips") + share("answer-changes-otherwise") - 1.0).abs() < 1e-9);
    let passages = read("crossing-deed.json")["passages"].as_array().unwrap().clone();
    let own = passages.iter().filter(|passage| passage["model"]["to"] == passage["model_target"]);
    let own = own.count() as f64 / passages.len() as f64;
    assert!((share("answer-flips") - own).abs() < 1e-9 && own > 0.6);
    // A refusal's words tell it where the world's own judge does.
    let passages =
        |name: &str| read(&format!("crossing-{name}.json"))["passages"].as_array().unwrap().clone();
    let (deed, words) = (passages("deed"), passages("words"));
    let refused = deed.iter().filter(|judged| judged["model"]["to"] == "refuse");
    let compared = refused.map(|judged| {
        let told = words.iter().find(|told| told["pair"] == judged["pair"]).unwrap();
        assert_eq!((&told["model"]["from"], &told["model"]["to"]), (&"answer".into(), &"refuse".into()));
        assert_eq!(told["model"]["low"], judged["model"]["low"]);
    });
    assert!(compared.count() >= 3);
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("Two boundaries: deed") && page.contains("Two boundaries: words"));

    let searched = read("crossing-deed.json");
    let begun = std::time::SystemTime::now();
    std::fs::remove_file(folder.path().join("out/results.json")).unwrap();
    pearl(folder.path(), "run boundary.toml --out out").success();
    assert_eq!((read("results.json"), read("crossing-deed.json")), (results.clone(), searched));
    let changed = |name: &str| folder.path().join("out").join(name).metadata().unwrap().modified().unwrap();
    assert!(changed("results.json") > begun && changed("crossing-deed.json") < begun);
}
