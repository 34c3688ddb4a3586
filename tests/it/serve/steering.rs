//! Steering, readings and hidden states of requests, beside what the library computes.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array1, Array2};
use pearlpoint::activations::{Request, extract};
use pearlpoint::artifact::Header;
use pearlpoint::dialogue::{Dialogue, Message, Role};
use pearlpoint::generate::{Transcript, generate};
use pearlpoint::model::{Chain, Hook, Model, Selector};
use pearlpoint::organism;
use pearlpoint::probe::{Calibration, Link, Probe, Provenance};
use pearlpoint::steer::{Direction, Plan, Vector};
use serde_json::{Value, json};

use super::client::served;
use super::{asked, logprobs, messages, options, text, with};

const SITES: [&str; 2] = ["1.resid_post", "2.resid_post"];

fn numbers(width: usize, seed: u64) -> Vec<f32> {
    (0..width).map(|i| ((i as u64 * 31 + seed * 7 + 1) as f32).sin()).collect()
}

/// A folder with two vectors, two probes and a plan of each kind that a cache could confuse.
pub fn folder(model: &Model) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let width = model.decoder.architecture().width;
    let header =
        Header { model: Some(model.name.clone()), model_hash: Some(model.hash.clone()), ..Header::default() };
    for (seed, name) in [(1, "east"), (2, "west")] {
        let direction =
            |site: &str| (site.parse().unwrap(), Direction::new(numbers(width, seed).into(), Some(20.0)));
        let directions: BTreeMap<_, _> = SITES.map(direction).into();
        let vector = Vector { method: "test".into(), directions, best: None };
        vector.save(&path(&format!("{name}.safetensors")), header.clone()).unwrap();
    }
    for (name, classes, tokens, seed) in [
        ("mood", &["low", "high"][..], "assistant.start", 5),
        ("kind", &["a", "b", "c"][..], "mean(user)", 6),
    ] {
        let heads = if classes.len() == 2 { 1 } else { classes.len() };
        let weight: Vec<f32> = numbers(heads * width, seed).iter().map(|w| w / 20.0).collect();
        let probe = Probe {
            weight: Array2::from_shape_vec((heads, width), weight).unwrap(),
            bias: Array1::from_iter((0..heads).map(|head| head as f32 / 4.0)),
            link: Link::of(classes.len()),
            classes: classes.iter().map(|class| (*class).to_owned()).collect(),
            source: Provenance {
                site: "2.resid_post".parse().unwrap(),
                tokens: tokens.parse().unwrap(),
                label: name.into(),
                model: Some(model.name.clone()),
                model_hash: Some(model.hash.clone()),
                model_form: None,
                data_hash: None,
            },
            method: "test".into(),
            strength: 1.0,
            calibration: Calibration::Temperature { temperature: 2.0 },
            threshold: BTreeMap::from([("high".to_owned(), 0.5)])
                .into_iter()
                .filter(|_| classes.len() == 2)
                .collect(),
            scores: Vec::new(),
            held_out: Vec::new(),
            seed: 0,
        };
        probe.save(&path(&format!("{name}.safetensors"))).unwrap();
    }
    for (name, plan) in plans() {
        std::fs::write(path(&format!("{name}.toml")), plan).unwrap();
    }
    folder
}

/// Plans by name: vectors, places, tokens, schedules, conditions and doses.
fn plans() -> Vec<(&'static str, String)> {
    let one = |keys: &str| format!("[[intervention]]\nvector = \"east\"\nsites = \"1.resid_post\"\n{keys}\n");
    vec![
        ("all", one("strength = \"0.4n\"")),
        ("other", one("strength = \"0.4n\"").replace("east", "west")),
        ("stronger", one("strength = \"0.5n\"")),
        ("generated", one("strength = \"0.5n\"\ntokens = \"generated\"")),
        ("given", one("strength = \"0.5n\"\ntokens = \"prompt\"")),
        ("user-last", one("strength = \"0.9n\"\ntokens = \"user.last\"")),
        ("start", one("strength = \"0.9n\"\ntokens = \"assistant.start\"")),
        ("decay", one("strength = \"0.6n\"\nschedule = \"decay(4)\"")),
        ("ablate", one("operation = \"ablate\"")),
        ("gated", one("strength = \"0.5n\"\nwhen = \"probe mood:high > 0.3\"\nevaluate_at = \"token\"").replace("1.resid", "2.resid")),
        ("cast", one("strength = \"0.5n\"\nwhen = \"probe mood:high > 0.4\"")),
        ("dosed", one("strength = \"1n\"\ncontrol = { probe = \"mood:high\", target = 0.7, proportional = 0.3, integral = 0.05 }").replace("1.resid", "2.resid")),
        ("none", one("strength = 0")),
        ("two", one("strength = \"0.2n\"") + &one("strength = \"0.3n\"\ntokens = \"generated\"").replace("east", "west")),
    ]
}

/// The plan as the library reads it from the folder.
fn library_plan(folder: &Path, name: &str) -> Plan {
    let text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
    let file = |name: &str| folder.join(format!("{name}.safetensors")).display().to_string();
    let text = text
        .replace("\"east\"", &format!("{:?}", file("east")))
        .replace("\"west\"", &format!("{:?}", file("west")));
    toml::from_str(&text.replace("mood:", &format!("{}:", file("mood")))).unwrap()
}

/// The library's answer under a plan.
fn steered(model: &Model, dialogue: &Dialogue, plan: &Plan) -> Transcript {
    let dialogues = std::slice::from_ref(dialogue);
    let mut hooks = plan.hooks(model, dialogues, None).unwrap();
    let mut chain = Chain(hooks.iter_mut().map(|hook| hook as &mut dyn Hook).collect());
    generate(model, dialogues, &options(), &mut chain, &mut |_| true).unwrap().remove(0)
}

/// A dialogue of several rounds, long enough that its beginning is worth a cache.
fn rounds(count: usize) -> Vec<Value> {
    let said = messages(12);
    let one = |at: usize| match at % 2 {
        0 => json!({"role": "user", "content": said[at % said.len()]}),
        _ => json!({"role": "assistant", "content": "i can not discuss this . please look at rest ."}),
    };
    (0..2 * count - 1).map(one).collect()
}

pub fn dialogue(messages: &[Value]) -> Dialogue {
    let message = |own: &Value| {
        let role = if own["role"] == "user" { Role::User } else { Role::Assistant };
        Message::new(role, own["content"].as_str().unwrap())
    };
    Dialogue::new("request", messages.iter().map(message).collect())
}

fn request(messages: &[Value], plan: Option<&str>) -> Value {
    let fields =
        json!({"messages": messages, "logprobs": true, "steering": plan.map(|plan| json!({"plan": plan}))});
    with(asked(""), fields)
}

/// What is compared of an answer: its text and every log-probability, bit for bit.
fn exact(response: &Value) -> (String, Vec<f64>) {
    (text(response).to_owned(), logprobs(response))
}

#[test]
fn every_row_of_a_mixed_batch_is_answered_as_it_is_alone_and_by_the_library() {
    let model = organism::model().unwrap();
    let folder = folder(&model);
    let server = served(&["--vectors", &folder.path().display().to_string(), "--batch-tokens", "64"]);
    let names: Vec<Option<&str>> = plans().into_iter().map(|(name, _)| Some(name)).chain([None]).collect();
    let requests: Vec<(Option<&str>, Vec<Value>)> =
        names.iter().flat_map(|&name| [(name, rounds(1)), (name, rounds(3))]).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let ask = |(name, messages): &(Option<&str>, Vec<Value>)| {
            let (server, request) = (&server, request(messages, *name));
            scope.spawn(move || server.chat(&request))
        };
        let asked: Vec<_> = requests.iter().map(ask).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut different = std::collections::BTreeSet::new();
    for ((name, messages), response) in requests.iter().zip(&together) {
        let alone = server.chat(&request(messages, *name));
        assert_eq!(exact(response), exact(&alone), "{name:?}");
        let plan = name.map_or(Plan::default(), |name| library_plan(folder.path(), name));
        let expected = steered(&model, &dialogue(messages), &plan);
        let own: Vec<f64> = expected.logprobs.iter().flatten().map(|token| token.logprob).collect();
        assert_eq!(exact(response), (expected.text, own), "{name:?}");
        different.insert(format!("{:?}", exact(response)));
    }
    assert!(different.len() > requests.len() - 6, "the plans hardly differ: {}", different.len());
}

#[test]
fn strength_0_is_the_baseline_and_a_plan_composed_with_nothing_is_the_plan() {
    let model = organism::model().unwrap();
    let folder = folder(&model);
    let server = served(&["--vectors", &folder.path().display().to_string()]);
    for messages in [rounds(1), rounds(2)] {
        let with_field = |steering: Value| {
            exact(&server.chat(&with(request(&messages, None), json!({"steering": steering}))))
        };
        let baseline = exact(&server.chat(&request(&messages, None)));
        let vector = |scale: f64| json!({"vectors": [{"source": "east", "scale": scale, "layers": [1]}]});
        for nothing in [
            json!({"plan": "none"}),
            json!({"plan": "all", "scale": 0}),
            vector(0.0),
            json!(false),
            json!({"interventions": []}),
        ] {
            assert_eq!(with_field(nothing.clone()), baseline, "{nothing}");
        }
        let plan = with_field(json!({"plan": "all"}));
        assert_ne!(plan, baseline);
        let nothing = json!({"vector": "west", "sites": "1.resid_post", "strength": 0.0});
        let written = json!({"vector": "east.safetensors", "sites": "1.resid_post", "strength": "0.4n"});
        for same in [
            json!("all"),
            json!({"plan": "all", "interventions": []}),
            json!({"plan": "all", "scale": 1}),
            json!({"interventions": [written]}),
            json!({"interventions": [written, nothing]}),
            json!({"intervention": [written]}),
        ] {
            assert_eq!(with_field(same.clone()), plan, "{same}");
        }
        // EasySteer's object, with the places of its `apply`.
        let length = Direction::new(numbers(128, 1).into(), None).length();
        let generated = json!({"vectors": [{"source": "east", "algorithm": "direct", "scale": 0.5 * 20.0 / length,
            "layers": [1], "normalize": false, "apply": {"generation": "all"}}], "conflict": "sequential"});
        assert_eq!(with_field(generated).0, with_field(json!({"plan": "generated"})).0);
    }
    for (steering, part) in [
        (json!({"vectors": [{"source": "/etc/passwd"}]}), "a name of the server's folder"),
        (json!({"vectors": [{"source": "../east"}]}), "a name of the server's folder"),
        (json!({"vectors": [{"source": "north"}]}), "east, west"),
        (json!({"vectors": [{"source": "east", "layers": [9]}]}), "no block 9"),
        (json!({"vectors": [{"source": "east", "layers": [1], "apply": {"prompt": 3}}]}), "generation"),
        (json!({"vectors": [{"source": "east", "algorithm": "loreft"}]}), "direct"),
        (
            json!({"vectors": [{"source": "east", "layers": [1]}, {"source": "west", "layers": [1]}], "conflict": "error"}),
            "share a layer",
        ),
        (json!({"interventions": [{"vector": "east", "tokens": "last"}]}), "the last token is not known"),
        (json!({"interventions": [{"vector": "east", "color": 3}]}), "unknown field"),
        (json!({"interventions": [{"vector": "east", "ids": ["a"]}]}), "a request is one dialogue"),
        (
            json!({"interventions": [{"vector": "east", "when": "probe /etc/x:a > 0.5"}]}),
            "a name of the server's folder",
        ),
        (json!({"plan": "all", "scale": "big"}), "a factor"),
        (json!({"constructive": "set"}), "has no policy"),
        (json!({"constructive": "set", "plan": "all"}), "one of the two"),
        (json!([]), "an object of"),
    ] {
        let (status, body) = server
            .post("/v1/chat/completions", &with(request(&rounds(1), None), json!({"steering": steering})));
        assert_eq!(status, 400, "{steering}: {body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(part), "{steering}: {body}");
    }
}

/// A prefix that was kept under one plan and read under another would change an answer of the second server, which keeps none.
#[test]
fn a_prefix_kept_under_one_plan_is_never_read_under_another() {
    let model = organism::model().unwrap();
    let folder = folder(&model);
    let path = folder.path().display().to_string();
    let keeping = served(&["--vectors", &path]);
    let fresh = served(&["--vectors", &path, "--cache", "0"]);
    let names: Vec<Option<&str>> = plans().into_iter().map(|(name, _)| Some(name)).chain([None]).collect();
    let (mut cached, mut pairs) = (BTreeMap::new(), 0);
    // Each plan after each other one, on prompts that go on where others end.
    for round in 0..2 {
        for (number, name) in names.iter().enumerate() {
            let other = names[(number + round * 5 + 1) % names.len()];
            for (plan, count) in [(*name, 4), (other, 4), (*name, 6), (other, 6), (*name, 4)] {
                let request = request(&rounds(count), plan);
                let found = keeping.chat(&request);
                assert_eq!(
                    exact(&found),
                    exact(&fresh.chat(&request)),
                    "{plan:?} after {name:?}, {count} rounds"
                );
                let taken = found["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
                *cached.entry(plan).or_insert(0) += taken;
                pairs += 1;
            }
        }
    }
    assert!(pairs > 100);
    assert_eq!(fresh.metric("pearl_prompt_tokens_cached_total"), 0.0);
    // The cache was used, by steered rows too.
    for name in [None, Some("all"), Some("generated"), Some("ablate"), Some("decay")] {
        assert!(cached[&name] >= 100, "{name:?}: {cached:?}");
    }
}

#[test]
fn readings_are_the_probes_probabilities_of_the_states_whole_and_in_streams() {
    let model = organism::model().unwrap();
    let folder = folder(&model);
    let server = served(&["--vectors", &folder.path().display().to_string()]);
    let messages = rounds(2);
    let fields = json!({"probes": ["mood", "kind:b"], "probe_prompt": true, "trace": true});
    let asked = with(request(&messages, None), fields);
    let response = server.chat(&asked);
    let pearl = &response["choices"][0]["pearl"];
    // The states of the whole dialogue, read at once, without the model's own end of turn.
    let transcript = steered(&model, &dialogue(&messages), &Plan::default());
    let mut tokens = model.chat.tokens(&dialogue(&messages), 0, None).unwrap();
    let prompt = tokens.len();
    let mut continuation = model.chat.continuation(&tokens);
    tokens.extend(transcript.tokens.iter().map(|id| continuation.next(*id)));
    for (name, class) in [("mood", 1), ("kind:b", 1)] {
        let file = name.split(':').next().unwrap();
        let probe = Probe::load(&folder.path().join(format!("{file}.safetensors"))).unwrap();
        let mut recorder = pearlpoint::activations::Recorder::new(vec![probe.source.site], Selector::All);
        model.decoder.forward(&tokens, None, &[], &mut recorder).unwrap();
        let states = recorder.finish().1.remove(0).1;
        let states = Array2::from_shape_vec((tokens.len(), states.len() / tokens.len()), states).unwrap();
        let expected = probe.probabilities(states.view()).unwrap().column(class).to_vec();
        let own = &pearl["readings"][name];
        let near = |found: &Value, at: usize| {
            assert!(
                (found.as_f64().unwrap() - expected[at]).abs() < 1e-4,
                "{name} {at}: {found} {}",
                expected[at]
            );
        };
        let answer = own["tokens"].as_array().unwrap();
        assert_eq!(answer.len(), transcript.tokens.len());
        answer.iter().enumerate().for_each(|(at, found)| near(found, prompt + at));
        let given = own["prompt"].as_array().unwrap();
        assert_eq!(given.len(), prompt);
        given.iter().enumerate().for_each(|(at, found)| near(&found["probability"], at));
        near(&own["start"]["probability"], prompt - 1);
        let turns = own["turns"].as_array().unwrap();
        assert_eq!(turns.len(), 3);
        for (turn, found) in turns.iter().enumerate() {
            let last =
                tokens[..prompt].iter().rposition(|token| token.turn == turn && token.is_content()).unwrap();
            near(&found["probability"], last);
        }
        match name {
            "mood" => {
                assert_eq!(own["verdict"]["flagged"], json!(expected[prompt - 1] >= 0.5));
                assert_eq!(own["verdict"]["threshold"], 0.5);
            }
            _ => assert!(own.get("verdict").is_none()),
        }
        assert_eq!(own["class"], if name == "mood" { "high" } else { "b" });
    }
    // A stream has them as they arise, and at its end all of them.
    let chunks = server.stream("/v1/chat/completions", &with(asked.clone(), json!({"stream": true})));
    let last = &chunks.last().unwrap()["choices"][0];
    assert_eq!((&last["pearl"]["readings"], &last["finish_reason"]), (&pearl["readings"], &json!("stop")));
    let arisen: Vec<&Value> = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["pearl"]["new"]["mood"].as_array().into_iter().flatten())
        .collect();
    let all = pearl["readings"]["mood"]["tokens"].as_array().unwrap();
    let in_order =
        arisen.iter().enumerate().all(|(at, new)| new["index"] == at && new["probability"] == all[at]);
    assert!(in_order && arisen.len() == all.len(), "{arisen:?}");
    let first =
        chunks.iter().find(|chunk| chunk["choices"][0]["pearl"]["readings"]["mood"].is_object()).unwrap();
    assert_eq!(first["choices"][0]["pearl"]["readings"]["mood"]["turns"], pearl["readings"]["mood"]["turns"]);
    // Reading changes nothing.
    assert_eq!(exact(&response), exact(&server.chat(&request(&messages, None))));
}

#[test]
fn both_answers_come_of_one_request_and_a_trace_says_what_was_changed() {
    let model = organism::model().unwrap();
    let folder = folder(&model);
    let server = served(&["--vectors", &folder.path().display().to_string()]);
    let messages = rounds(3);
    for plan in ["generated", "all"] {
        let fields = json!({"compare": true, "probes": "mood"});
        let both = server.chat(&with(request(&messages, Some(plan)), fields));
        let choices = both["choices"].as_array().unwrap();
        assert_eq!(
            (choices.len(), choices[0]["pearl"]["steered"] == true, choices[1]["pearl"]["steered"] == false),
            (2, true, true)
        );
        let alone = |plan| server.chat(&request(&messages, plan));
        assert_eq!(choices[0]["message"], alone(Some(plan))["choices"][0]["message"]);
        assert_eq!(choices[1]["message"], alone(None)["choices"][0]["message"]);
    }
    // One reading of the prompt where the plan leaves the prompt as it is.
    let new = json!({"messages": [{"role": "user", "content": "i see . ".repeat(40)}], "compare": true});
    let both = server.chat(&with(request(&messages, Some("generated")), new.clone()));
    let usage = &both["usage"];
    let (prompt, cached) = (
        usage["prompt_tokens"].as_u64().unwrap(),
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(),
    );
    let unit = model.decoder.part_tokens().unwrap() as u64;
    assert!(prompt > 100 && cached == (prompt - 16) / unit * unit, "{usage}");
    let traced = server.chat(&with(request(&messages, Some("generated")), json!({"trace": true})));
    let trace = traced["choices"][0]["pearl"]["trace"].as_array().unwrap();
    let steps = |generated: bool| {
        trace
            .iter()
            .filter(|token| token["generated"] == generated)
            .flat_map(|token| token["steps"].as_array().unwrap())
            .count()
    };
    assert_eq!(steps(false), 0);
    assert!(steps(true) > 0);
}

#[test]
fn hidden_states_are_what_extract_records() {
    let model = organism::model().unwrap();
    let server = served(&[]);
    let dialogues: Vec<Vec<Value>> = (1..4).map(rounds).collect();
    let own: Vec<Dialogue> = dialogues.iter().map(|messages| dialogue(messages)).collect();
    for tokens in ["last", "assistant.start", "mean(user)", "user"] {
        let sites = model.decoder.architecture().parse_sites("*.resid_post,1.mlp_out").unwrap();
        let expected =
            extract(&model, &own, &Request::new(sites).tokens(tokens.parse().unwrap()), &mut |_| true)
                .unwrap();
        let request = json!({"dialogues": dialogues, "sites": "*.resid_post,1.mlp_out", "tokens": tokens});
        let (status, found) = server.post("/v1/hidden_states", &request);
        assert_eq!(status, 200, "{found}");
        let rows: Vec<(usize, Option<usize>)> = found["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                (row["dialogue"].as_u64().unwrap() as usize, row["position"].as_u64().map(|at| at as usize))
            })
            .collect();
        assert_eq!(
            rows,
            expected.example.iter().copied().zip(expected.position.iter().copied()).collect::<Vec<_>>()
        );
        for (site, (name, values)) in found["sites"].as_array().unwrap().iter().zip(&expected.sites) {
            assert_eq!(site["site"], name.to_string());
            for (found, expected) in site["values"].as_array().unwrap().iter().zip(values.rows()) {
                for (found, expected) in found.as_array().unwrap().iter().zip(expected) {
                    assert!((found.as_f64().unwrap() as f32 - expected).abs() < 1e-5, "{tokens} {name}");
                }
            }
        }
        let (status, bytes) = super::client::response(server.send(
            "/v1/hidden_states",
            with(request, json!({"format": "safetensors"})).to_string().as_bytes(),
        ));
        assert_eq!(status, 200);
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (name, values) = &expected.sites[0];
        assert_eq!(file.tensor(&name.to_string()).unwrap().shape(), values.shape());
    }
    for (wrong, param) in [
        (json!({"dialogues": [], "sites": "embed"}), "dialogues"),
        (json!({"dialogues": dialogues, "sites": "99.resid_post"}), "sites"),
        (json!({"dialogues": dialogues, "sites": "embed", "tokens": "first"}), "tokens"),
        (json!({"dialogues": dialogues, "sites": "embed", "format": "pickle"}), "format"),
        (json!({"dialogues": dialogues, "sites": "embed", "steering": "all"}), "steering"),
    ] {
        let (status, body) = server.post("/v1/hidden_states", &wrong);
        assert_eq!((status, body["error"]["param"].as_str().unwrap()), (400, param), "{body}");
    }
}

#[test]
fn a_dialogue_in_the_terminal_is_steered_and_read_as_a_request_is() {
    let model = organism::model().unwrap();
    let folder = folder(&model);
    let path = folder.path().display().to_string();
    let server = served(&["--vectors", &path]);
    let said = messages(2);
    let expected =
        server.chat(&with(request(&rounds(1), Some("all")), json!({"max_tokens": 40, "probes": ["mood"]})));
    let lines = format!(
        "/probe mood\n/steer all\n{0}\n/reset\n/steer east:0.4n@1.resid_post\n{0}\n/steer\n{1}\n/quit\n",
        said[0], said[1]
    );
    let arguments = ["chat", "--vectors", &path, "--greedy", "--max-tokens", "40", "--quiet"];
    let output = crate::cli::pearl(&arguments).write_stdin(lines).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<&str> = text.lines().collect();
    assert_eq!((answers.len(), answers[0], answers[2]), (6, super::text(&expected), super::text(&expected)));
    let start = expected["choices"][0]["pearl"]["readings"]["mood"]["start"]["probability"].as_f64().unwrap();
    assert!(
        answers[1].starts_with("  [mood (high): message ")
            && answers[1].contains(&format!("start {start:.3}")),
        "{}",
        answers[1]
    );
    crate::cli::one_line(&["chat", "--vectors", &path, "--steer", "north"], &["no plan", "all"]);
    crate::cli::one_line(&["chat", "--vectors", &path, "--probe", "weather"], &["no probe", "mood"]);
}
