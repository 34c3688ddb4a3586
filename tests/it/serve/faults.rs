//! Requests that fail: they fail alone, early and at little cost.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use pearlpoint::generate::{Batch, GenerateOptions, Joining};
use pearlpoint::model::{Hook, Site, Token};
use pearlpoint::{Error, organism};
use serde_json::{Value, json};

use super::attacks::memory;
use super::client::{Served, served};
use super::steering::folder;
use super::{asked, messages, text, with};

/// Runs `during` while an answer is streamed, and checks that the answer is whole and as it is alone.
fn beside_an_answer(server: &Served, during: impl FnOnce()) {
    let request =
        with(asked("i see ."), json!({"max_tokens": 400, "temperature": 2, "seed": 1, "stream": true}));
    let alone = server.stream("/v1/chat/completions", &request);
    let mut stream = BufReader::new(server.send("/v1/chat/completions", request.to_string().as_bytes()));
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no stream");
    }
    during();
    let mut all = vec![line.clone()];
    while {
        line.clear();
        stream.read_line(&mut line).unwrap() > 0
    } {
        all.push(line.clone());
    }
    let said =
        |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    let chunks = all.iter().filter_map(|line| line.strip_prefix("data: {"));
    let streamed: String =
        chunks.map(|rest| said(&serde_json::from_str(&format!("{{{rest}")).unwrap())).collect();
    assert!(all.iter().any(|line| line.trim() == "data: [DONE]"), "{all:?}");
    assert_eq!(streamed, alone.iter().map(said).collect::<String>());
}

#[test]
fn a_token_that_the_model_lacks_is_refused_before_it_meets_other_rows() {
    let server = served(&[]);
    beside_an_answer(&server, || {
        for id in [337u32, 338, 999_999, u32::MAX] {
            let (status, body) = server.post("/v1/completions", &json!({"prompt": [id], "max_tokens": 1}));
            assert_eq!((status, &body["error"]["param"]), (400, &json!("prompt")), "{id}: {body}");
        }
        assert_eq!(server.post("/v1/completions", &json!({"prompt": [336], "max_tokens": 1})).0, 200);
    });
    assert_eq!(server.metric("pearl_answers_failed_total"), 0.0);
}

#[test]
fn a_dose_that_no_reading_sets_is_refused_before_it_meets_other_rows() {
    let folder = folder(&organism::model().unwrap());
    let server = served(&["--vectors", folder.path().to_str().unwrap()]);
    let control = json!({"probe": "mood:high", "target": 0.5, "proportional": 1});
    let late = |tokens: &str| {
        let own = json!({"vector": "east", "from": "1.resid_post", "sites": "0.resid_post", "tokens": tokens, "control": control});
        with(asked("i see ."), json!({"steering": {"interventions": [own]}}))
    };
    beside_an_answer(&server, || {
        for tokens in ["all", "assistant.start", "prompt", "user"] {
            let (status, body) = server.post("/v1/chat/completions", &late(tokens));
            assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")), "{body}");
            assert!(body["error"]["message"].as_str().unwrap().contains("generated"), "{body}");
        }
        assert!(!text(&server.chat(&late("generated"))).is_empty());
    });
    assert_eq!(server.metric("pearl_answers_failed_total"), 0.0);
}

/// A hook that fails wherever it sees a row.
struct Refuses(usize);

impl Hook for Refuses {
    fn wants(&self, site: Site) -> bool {
        site.to_string() == "3.resid_post"
    }

    fn call(
        &mut self,
        _: Site,
        states: candle_core::Tensor,
        tokens: &[Token],
    ) -> pearlpoint::Result<candle_core::Tensor> {
        match tokens.iter().any(|token| token.row == self.0 && token.generated) {
            true => Err(Error::input("row", "one that fails", "another")),
            false => Ok(states),
        }
    }

    fn cache_key(&self, _: usize) -> u64 {
        0
    }
}

#[test]
fn rows_go_on_bit_for_bit_after_a_pass_that_one_of_them_fails() {
    let model = organism::model().unwrap();
    let run = |refused: usize| {
        let mut batch = Batch::new(&model);
        let options = std::sync::Arc::new(
            GenerateOptions::default().greedy().max_tokens(20).logits(pearlpoint::generate::KeptLogits::All),
        );
        let dialogues: Vec<_> = messages(3)
            .iter()
            .map(|said| super::steering::dialogue(&[json!({"role": "user", "content": said})]))
            .collect();
        for (row, dialogue) in dialogues.iter().enumerate() {
            let prompt = model.chat.tokens(dialogue, row, None).unwrap();
            let (options, beginning) = (options.clone(), Vec::new());
            batch
                .join(Joining {
                    prompt,
                    beginning,
                    options,
                    random_stream: 0,
                    stream: false,
                    whole: false,
                    prefix: None,
                })
                .unwrap();
        }
        let mut hook = Refuses(refused);
        while !batch.is_finished() {
            if batch.step(&mut hook, &mut |_| {}).is_ok() {
                continue;
            }
            batch.undo().unwrap();
            for row in (0..3).filter(|row| batch.row(*row).is_some()).collect::<Vec<_>>() {
                if batch.step_alone(row, &mut hook, &mut |_| {}).is_err() {
                    assert_eq!(row, refused);
                    batch.leave(row, &dialogues[row]).unwrap();
                    batch.undo().unwrap();
                }
            }
        }
        (0..3)
            .map(|row| batch.leave(row, &dialogues[row]).unwrap().map(|(own, _)| (own.tokens, own.logits)))
            .collect::<Vec<_>>()
    };
    let whole = run(9);
    for refused in 0..3 {
        let left = run(refused);
        for row in 0..3 {
            assert_eq!(
                left[row].as_ref(),
                Some(&whole[row]).filter(|_| row != refused).and_then(Option::as_ref),
                "{row}"
            );
        }
    }
}

#[test]
fn a_small_request_takes_little_memory_and_time() {
    let folder = folder(&organism::model().unwrap());
    let server = served(&["--vectors", folder.path().to_str().unwrap()]);
    let steered = |own: Value| with(asked("i see ."), json!({"steering": {"interventions": own}}));
    let sites = "0-4095,".repeat(30_000) + "0.resid_post";
    let cases = [
        (with(asked("i see ."), json!({"probes": vec!["kind"; 8000]})), "probes"),
        (with(asked("i see ."), json!({"probes": vec!["mood"; 65]})), "probes"),
        (steered(json!([{"vector": "east", "from": "1.resid_post", "sites": sites}])), "steering"),
        (
            steered(json!(vec![json!({"operation": "project", "probe": vec!["mood:high < 0.9"; 500]}); 32])),
            "steering",
        ),
        (
            steered(json!([{"vector": "east", "when": vec!["probe mood:high > 0.5"; 65].join(" and ")}])),
            "steering",
        ),
        (steered(json!(vec![json!({"vector": "east"}); 33])), "steering"),
    ];
    let before = memory(&server);
    for (request, param) in cases {
        let begin = Instant::now();
        let (status, body) = server.post("/v1/chat/completions", &request);
        assert_eq!((status, body["error"]["param"].as_str().unwrap_or_default()), (400, param), "{body}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{param}: {:?}", begin.elapsed());
    }
    // A text that can't fit is refused before it is cut into tokens.
    let long = "i see . ".repeat(400_000);
    let states = json!({"dialogues": [[{"role": "user", "content": long}]], "sites": "0.resid_post"});
    let cases = [
        ("/v1/chat/completions", asked(&long)),
        ("/v1/completions", json!({"prompt": long})),
        ("/v1/completions", json!({"prompt": ["a", long]})),
        ("/v1/hidden_states", states),
    ];
    for (path, request) in cases {
        let (status, body) = server.post(path, &request);
        assert_eq!((status, &body["error"]["code"]), (400, &json!("context_length_exceeded")), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(" bytes"), "{body}");
    }
    let grown = memory(&server).saturating_sub(before) >> 20;
    assert!(grown < 150, "{grown} MiB");
    // As many as are allowed.
    assert_eq!(
        server.post("/v1/chat/completions", &with(asked("i see ."), json!({"probes": vec!["mood"; 64]}))).0,
        200
    );
    let bounds = vec!["probe mood:high > 0.5"; 64].join(" and ");
    assert_eq!(
        server.post("/v1/chat/completions", &steered(json!([{"vector": "east", "when": bounds}]))).0,
        200
    );
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let server = served(&["--read-timeout", "1"]);
    // More than the system's buffers hold: a page of states, asked for again and again on one connection.
    let said = "i see . ".repeat(30);
    let states = json!({"dialogues": vec![json!([{"role": "user", "content": said}]); 8], "sites": "*.resid_post", "tokens": "all"});
    let body = states.to_string();
    assert_eq!(server.post_bytes("/v1/hidden_states", body.as_bytes()).0, 200);
    let begin = Instant::now();
    let silent: Vec<_> = (0..3).map(|_| server.send("/v1/hidden_states", body.as_bytes())).collect();
    server.wait_for("pearl_connections", |open| open >= 4.0);
    server.wait_for("pearl_connections", |open| open <= 1.0);
    assert!(begin.elapsed() > Duration::from_secs(1), "{:?}", begin.elapsed());
    drop(silent);
}

#[test]
fn plans_and_policies_that_fit_nothing_are_said_and_not_listed() {
    let model = organism::model().unwrap();
    let folder = folder(&model);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let east = "[[intervention]]\nvector = \"east\"\n";
    write("site.toml", &format!("{east}sites = \"0.resid_post\"\n"));
    write("class.toml", &format!("{east}when = \"probe mood:middle > 0.5\"\n"));
    write("ids.toml", &format!("{east}ids = [\"a\"]\n"));
    write(
        "early.toml",
        &format!(
            "{east}from = \"1.resid_post\"\nsites = \"0.resid_post\"\ncontrol = {{ probe = \"mood:high\", target = 0.5, proportional = 1 }}\n"
        ),
    );
    write("bound.toml", "[[intervention]]\noperation = \"project\"\nprobe = \"kind:a\"\n");
    write("broken.safetensors", "not one");
    std::fs::create_dir(folder.path().join("policy")).unwrap();
    write("policy/constructive.json", "{}");
    let said = std::cell::RefCell::new(Vec::new());
    let library = pearlpoint::serve::Library::read(&[folder.path().to_owned()], &model, &|line| {
        said.borrow_mut().push(line)
    })
    .unwrap();
    for (kind, name) in [
        ("plan", "site"),
        ("plan", "class"),
        ("plan", "ids"),
        ("plan", "early"),
        ("plan", "bound"),
        ("vector", "broken"),
        ("policy", "policy"),
    ] {
        let begin = format!("{kind} {name} is left out: ");
        assert!(said.borrow().iter().any(|line| line.starts_with(&begin)), "{begin}{said:?}");
    }
    assert_eq!(said.borrow().len(), 7, "{said:?}");
    assert!(library.policy_names().is_empty());
    assert!(
        !library
            .plan_names()
            .iter()
            .any(|name| ["site", "class", "ids", "early", "bound"].contains(&name.as_str()))
    );
    assert!(library.plan_names().contains(&"dosed".to_owned()));
}

#[test]
fn an_echo_is_one_text_with_its_answer_and_offsets_point_into_it() {
    let server = served(&[]);
    for prompt in ["i see", "they call it"] {
        let ask = json!({"prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 0});
        let own = server.post("/v1/completions", &ask).1["choices"][0]["text"].as_str().unwrap().to_owned();
        let choice =
            server.post("/v1/completions", &with(ask.clone(), json!({"echo": true}))).1["choices"][0].clone();
        // The organism's words are joined by spaces.
        let whole = format!("{prompt} {own}");
        assert_eq!(choice["text"], whole);
        let list = |key: &str| choice["logprobs"][key].as_array().unwrap().clone();
        for (token, offset) in list("tokens").iter().zip(list("text_offset")) {
            let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
            assert!(whole[offset..].starts_with(token), "{token:?} at {offset} of {whole:?}");
        }
        let ends: Vec<usize> = list("text_offset").iter().map(|at| at.as_u64().unwrap() as usize).collect();
        assert!(ends.windows(2).all(|two| two[0] < two[1]), "{ends:?}");
        // In a stream, offsets go on from token to token.
        let chunks = server.stream("/v1/completions", &with(ask.clone(), json!({"stream": true})));
        let streamed: Vec<Value> = chunks
            .iter()
            .flat_map(|chunk| {
                chunk["choices"][0]["logprobs"]["text_offset"].as_array().cloned().unwrap_or_default()
            })
            .collect();
        let alone = server.post("/v1/completions", &ask).1["choices"][0]["logprobs"]["text_offset"].clone();
        assert_eq!(json!(streamed), alone);
        // A stop text cuts the answer, not what joins it.
        let stopped = with(ask, json!({"stop": own.split(' ').next_back().unwrap()}));
        let said = |request: &Value| {
            let text = server.post("/v1/completions", request).1["choices"][0]["text"].clone();
            text.as_str().unwrap().to_owned()
        };
        let (cut, echoed) = (said(&stopped), said(&with(stopped.clone(), json!({"echo": true}))));
        assert!(cut.len() < own.len(), "{cut:?}");
        assert_eq!(echoed.trim_end(), format!("{prompt} {cut}").trim_end());
    }
}

#[test]
fn what_the_description_allows_is_taken_and_the_wrong_field_is_named() {
    let server = served(&[]);
    for path in ["/v1/models/%ff", "/v1/models/a%ff%fe"] {
        let (status, body) = server.get_json(path);
        assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")), "{body}");
    }
    let wrong = [
        (json!({"min_p": 2}), "min_p"),
        (json!({"min_p": -0.5}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"repetition_penalty": -1}), "repetition_penalty"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": ["a", ""]}), "stop"),
        (json!({"max_tokens": 5.5}), "max_tokens"),
        (json!({"max_tokens": "5"}), "max_tokens"),
        (json!({"n": 1.5}), "n"),
        (json!({"n": -1.0}), "n"),
    ];
    for (fields, param) in wrong {
        let (status, body) = server.post("/v1/chat/completions", &with(asked("a"), fields));
        assert_eq!((status, body["error"]["param"].as_str().unwrap_or_default()), (400, param), "{body}");
    }
    // 5.0 is the same number as 5.
    let whole = json!({"max_tokens": 5.0, "n": 2.0, "seed": 7.0, "top_k": 3.0, "max_completion_tokens": 4.0, "think_budget": 30.0});
    let response = server.chat(&with(asked("i see ."), whole));
    assert_eq!(
        (response["choices"].as_array().unwrap().len(), &response["usage"]["completion_tokens"]),
        (2, &json!(8))
    );
    let text = server.post(
        "/v1/completions",
        &json!({"prompt": "i see", "max_tokens": 2.0, "logprobs": 1.0, "best_of": 1.0}),
    );
    assert_eq!(text.0, 200, "{text:?}");

    let api = server.get_json("/openapi.json").1;
    let schemas = &api["components"]["schemas"];
    assert_eq!(schemas["ResponseFormat"]["required"], json!(["type"]));
    assert_eq!(schemas["StatesRequest"]["properties"]["steering"]["maxProperties"], 0);
    let states = |fields: Value| {
        let own = json!({"dialogues": [[{"role": "user", "content": "i see ."}]], "sites": "0.resid_post"});
        server.post("/v1/hidden_states", &with(own, fields))
    };
    for steering in [json!({}), json!(null), json!(false)] {
        assert_eq!(states(json!({"steering": steering})).0, 200);
    }
    for (fields, param) in [
        (json!({"steering": {"plan": "a"}}), "steering"),
        (json!({"sites": ""}), "sites"),
        (json!({"sites": " , "}), "sites"),
    ] {
        let (status, body) = states(fields);
        assert_eq!((status, body["error"]["param"].as_str().unwrap_or_default()), (400, param), "{body}");
    }
    // More rows than a response may have are counted, not read.
    let begin = Instant::now();
    let many = json!({"dialogues": vec![json!([{"role": "user", "content": "i see ."}]); 20_000], "sites": "*.resid_post"});
    let (status, body) = states(many);
    assert_eq!((status, &body["error"]["param"]), (400, &json!("sites")), "{body}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
