//! The server as its clients see it: a process on a free port, and plain sockets.

mod attacks;
mod client;
mod faults;
mod odd_requests;
mod steering;
mod terminal;
mod waiting;

use std::collections::BTreeSet;

use pearlpoint::dialogue::{Dialogue, Message, Role};
use pearlpoint::generate::{GenerateOptions, KeptLogits, Sampling, Transcript, generate};
use pearlpoint::organism::{self, Split};
use serde_json::{Value, json};

use client::{Served, served};

/// User messages of the organism's world, which it answers at different lengths.
pub fn messages(count: usize) -> Vec<String> {
    let drawn = organism::sample(count, Split::HeldOutWording, 5);
    drawn.into_iter().map(|(_, dialogue)| dialogue.messages[0].content.clone()).collect()
}

/// The library's answer to a message, with its log-probabilities.
pub fn answer(message: &str, options: &GenerateOptions) -> Transcript {
    let model = organism::model().unwrap();
    let dialogue = Dialogue::new("request", vec![Message::new(Role::User, message)]);
    generate(&model, &[dialogue], options, &mut (), &mut |_| true).unwrap().remove(0)
}

pub fn options() -> GenerateOptions {
    GenerateOptions::default().greedy().max_tokens(80).logits(KeptLogits::Top(2))
}

/// A greedy request for an answer.
pub fn asked(message: &str) -> Value {
    json!({"messages": [{"role": "user", "content": message}], "temperature": 0, "max_tokens": 80})
}

pub fn with(mut request: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// The text of the first answer.
pub fn text(response: &Value) -> &str {
    response["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{response}"))
}

/// The log-probabilities of the first answer's tokens.
pub fn logprobs(response: &Value) -> Vec<f64> {
    let all = response["choices"][0]["logprobs"]["content"].as_array().unwrap();
    all.iter().map(|token| token["logprob"].as_f64().unwrap()).collect()
}

#[test]
fn an_answer_is_the_librarys_whole_and_as_a_stream() {
    let server = served(&[]);
    for message in messages(4) {
        let request = with(asked(&message), json!({"logprobs": true, "top_logprobs": 2}));
        let expected = answer(&message, &options());
        let response = server.chat(&request);
        assert_eq!(text(&response), expected.text);
        let own: Vec<f64> = expected.logprobs.unwrap().iter().map(|token| token.logprob).collect();
        assert_eq!(logprobs(&response), own);
        assert_eq!(response["object"], "chat.completion");
        assert_eq!(response["choices"][0]["message"]["role"], "assistant");
        assert_eq!(response["choices"][0]["finish_reason"], "stop");
        let usage = &response["usage"];
        assert_eq!(usage["completion_tokens"], expected.tokens.len());
        assert_eq!(
            usage["total_tokens"],
            usage["prompt_tokens"].as_u64().unwrap() + expected.tokens.len() as u64
        );

        let stream = with(request, json!({"stream": true, "stream_options": {"include_usage": true}}));
        let chunks = server.stream("/v1/chat/completions", &stream);
        let said: String =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(said, expected.text);
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let last = &chunks.last().unwrap()["usage"];
        assert_eq!((&last["total_tokens"], last["prompt_tokens"].is_u64()), (&usage["total_tokens"], true));
        let streamed: Vec<f64> = chunks
            .iter()
            .flat_map(|chunk| {
                chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default()
            })
            .map(|token| token["logprob"].as_f64().unwrap())
            .collect();
        assert_eq!(streamed, own);
        assert!(chunks.len() > expected.tokens.len(), "{}", chunks.len());
    }
}

#[test]
fn draws_follow_the_seed_and_choices_differ() {
    let server = served(&[]);
    let message = &messages(1)[0];
    let drawn = |seed: i64, n: usize| {
        let fields = json!({"temperature": 1, "seed": seed, "n": n});
        let response = server.chat(&with(asked(message), fields));
        let choices = response["choices"].as_array().unwrap().iter();
        choices.map(|choice| choice["message"]["content"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let options = options().sampling(Sampling::Temperature(1.0)).seed(7);
    assert_eq!(drawn(7, 1), [answer(message, &options).text]);
    let many = drawn(7, 8);
    // The first choice is the one answer; the same seed gives the same ones.
    assert_eq!((many[0].clone(), many.clone()), (drawn(7, 1)[0].clone(), drawn(7, 8)));
    assert!(many.iter().collect::<BTreeSet<_>>().len() > 1, "{many:?}");
    // Probability 0 and rank 1 leave the likeliest token.
    let greedy = answer(message, &options.clone().greedy()).text;
    for cut in [json!({"top_p": 0}), json!({"top_k": 1}), json!({"min_p": 1.0})] {
        let request = with(asked(message), json!({"temperature": 1}));
        assert_eq!(text(&server.chat(&with(request, cut))), greedy);
    }
}

#[test]
fn stops_limits_and_completions_are_kept() {
    let server = served(&[]);
    let message = &messages(1)[0];
    let whole = answer(message, &options()).text;
    let word = whole.split(' ').nth(3).unwrap();
    for stop in [json!(word), json!([word, "never there"])] {
        let response = server.chat(&with(asked(message), json!({"stop": stop})));
        assert_eq!(text(&response), &whole[..whole.find(word).unwrap()]);
        assert_eq!(response["choices"][0]["finish_reason"], "stop");
    }
    for field in ["max_tokens", "max_completion_tokens"] {
        let response = server.chat(&with(asked(message), json!({ field: 3 })));
        let usage = response["usage"]["completion_tokens"].as_u64().unwrap();
        assert_eq!((usage, &response["choices"][0]["finish_reason"]), (3, &json!("length")));
    }
    let none = server.chat(&with(asked(message), json!({"max_tokens": 0})));
    assert_eq!((text(&none), &none["choices"][0]["finish_reason"]), ("", &json!("length")));
    // A list of prompts, as text and as ids; echo begins with the prompt, and its tokens are scored.
    let request = json!({"prompt": ["i see .", "they call it"], "max_tokens": 4, "temperature": 0});
    let texts = server.post("/v1/completions", &request).1;
    let one = server.post("/v1/completions", &json!({"prompt": "they call it", "max_tokens": 4, "temperature": 0, "echo": true, "logprobs": 1})).1;
    let second = texts["choices"][1]["text"].as_str().unwrap();
    let echoed = one["choices"][0]["text"].as_str().unwrap();
    assert_eq!(echoed, format!("they call it {second}"));
    let logprobs = &one["choices"][0]["logprobs"];
    let scored = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!((scored.len(), &scored[0]), (7, &Value::Null));
    // By hand: the prompt's second token as an answer to the first.
    let forced = server
        .post(
            "/v1/completions",
            &json!({"prompt": "they", "max_tokens": 1, "temperature": 0, "logprobs": 20}),
        )
        .1;
    let top = &forced["choices"][0]["logprobs"]["top_logprobs"][0];
    if let Some(known) = top["call"].as_f64() {
        assert!((scored[1].as_f64().unwrap() - known).abs() < 1e-4);
    }
}

#[test]
fn wrong_requests_have_openais_errors() {
    let server = served(&[]);
    let cases = [
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": "hello"}), 400, "messages"),
        (json!({}), 400, "messages"),
        (json!(["organism", 1]), 400, ""),
        (json!("hello"), 400, ""),
        (with(asked("a"), json!({"model": "gpt-9"})), 404, "model"),
        (with(asked("a"), json!({"temperature": 3})), 400, "temperature"),
        (with(asked("a"), json!({"temperature": "hot"})), 400, "temperature"),
        (with(asked("a"), json!({"top_p": -1})), 400, "top_p"),
        (with(asked("a"), json!({"n": 0})), 400, "n"),
        (with(asked("a"), json!({"n": 1000})), 400, "n"),
        (with(asked("a"), json!({"max_tokens": -1})), 400, "max_tokens"),
        (with(asked("a"), json!({"max_tokens": 1_000_000_000})), 400, "max_tokens"),
        (with(asked("a"), json!({"top_logprobs": 3})), 400, "top_logprobs"),
        (with(asked("a"), json!({"logprobs": true, "top_logprobs": 21})), 400, "top_logprobs"),
        (with(asked("a"), json!({"response_format": {"type": "json_schema"}})), 400, "response_format"),
        (with(asked("a"), json!({"tools": [{"type": "function"}]})), 400, "tools"),
        (with(asked("a"), json!({"presence_penalty": 1})), 400, "presence_penalty"),
        (with(asked("a"), json!({"logit_bias": {"5": 1}})), 400, "logit_bias"),
        (with(asked("a"), json!({"probes": ["risk"]})), 400, "probes"),
        (with(asked("a"), json!({"steering": {"plan": "calm"}})), 400, "steering.plan"),
        (with(asked("a"), json!({"steering": {"strenght": 1}})), 400, "steering"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            400,
            "messages[0].content",
        ),
        (json!({"messages": [{"role": "king", "content": "a"}]}), 400, "messages[0].role"),
        (asked(&"i see . ".repeat(400)), 400, "messages"),
    ];
    for (request, status, param) in cases {
        let (found, body) = server.post("/v1/chat/completions", &request);
        assert_eq!(found, status, "{request}: {body}");
        assert_eq!(body["error"]["param"].as_str().unwrap_or_default(), param, "{request}: {body}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(server.get("/v1/nowhere").0, 404);
    assert_eq!(server.get("/v1/chat/completions").0, 405);
    // What clients send and no server needs, and what is off, changes nothing.
    let expected = server.chat(&asked("i see ."));
    let more = json!({
        "user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "auto", "tools": [], "stop": null, "seed": null,
        "logit_bias": {}, "presence_penalty": 0, "response_format": {"type": "text"}, "some_future_field": [1],
        "steering": null, "probes": [], "model": "organism",
    });
    assert_eq!(text(&server.chat(&with(asked("i see ."), more))), text(&expected));
    let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "i see"}, {"type": "text", "text": " ."}], "name": null}]});
    assert_eq!(text(&server.chat(&with(asked(""), parts))), text(&expected));
}

#[test]
fn the_description_is_true() {
    let server = served(&[]);
    let (status, api) = server.get_json("/openapi.json");
    assert_eq!((status, api["openapi"].as_str().unwrap()), (200, "3.1.0"));
    for (path, methods) in api["paths"].as_object().unwrap() {
        let method = methods.as_object().unwrap().keys().next().unwrap();
        let path = path.replace("{id}", "organism");
        let status = match method.as_str() {
            "get" => server.get(&path).0,
            _ => server.post(&path, &json!({})).0,
        };
        assert_eq!(status, if method == "get" { 200 } else { 400 }, "{method} {path}");
    }
    // Every key of a response is in the description, and every key that this requires is in the response.
    let schemas = &api["components"]["schemas"];
    let response = server.chat(&with(asked("i see ."), json!({"logprobs": true})));
    conforms(&response, &schemas["ChatResponse"], schemas, "ChatResponse");
    let response =
        server.post("/v1/completions", &json!({"prompt": "i see", "max_tokens": 2, "logprobs": 1})).1;
    conforms(&response, &schemas["TextResponse"], schemas, "TextResponse");
    conforms(&server.get_json("/v1/models").1, &schemas["ModelList"], schemas, "ModelList");
    conforms(
        &server.post("/v1/completions", &json!({})).1,
        &schemas["ErrorResponse"],
        schemas,
        "ErrorResponse",
    );
}

/// Checks a value against a schema, as far as objects, lists and references go.
fn conforms(value: &Value, schema: &Value, schemas: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return conforms(value, &schemas[name], schemas, &format!("{place} ({name})"));
    }
    if let Some(one_of) = schema["oneOf"].as_array() {
        return match value {
            Value::Null => assert!(one_of.iter().any(|one| one["type"] == "null"), "{place}: null"),
            _ => conforms(value, one_of.iter().find(|one| one["type"] != "null").unwrap(), schemas, place),
        };
    }
    match value {
        Value::Object(object) if schema["properties"].is_object() => {
            for (key, value) in object {
                let own = &schema["properties"][key];
                assert!(!own.is_null(), "{place}: {key} is not in the description");
                conforms(value, own, schemas, &format!("{place}.{key}"));
            }
            for key in schema["required"].as_array().into_iter().flatten() {
                assert!(object.contains_key(key.as_str().unwrap()), "{place}: {key} is missing");
            }
        }
        Value::Array(list) => {
            for value in list {
                conforms(value, &schema["items"], schemas, &format!("{place}[]"));
            }
        }
        other => {
            let kind = match other {
                Value::String(_) => "string",
                Value::Bool(_) => "boolean",
                Value::Number(number) if number.is_f64() => "number",
                Value::Number(_) => "integer",
                Value::Null => "null",
                _ => "object",
            };
            let types = match &schema["type"] {
                Value::Array(types) => types.clone(),
                one => vec![one.clone()],
            };
            let known = types.iter().any(|own| own == kind || (own == "number" && kind == "integer"));
            assert!(known, "{place}: {kind}, not {types:?}");
        }
    }
}

#[test]
fn a_server_says_where_it_is_and_how_it_is() {
    let server = served(&[]);
    assert_eq!(server.get_json("/health").1, json!({"status": "ok"}));
    assert_eq!(server.get_json("/v1/models").1["data"][0]["id"], "organism");
    assert_eq!(server.get("/v1/models/organism").0, 200);
    assert_eq!(server.get("/v1/models/other").0, 404);
    server.chat(&asked("i see ."));
    server.wait_for("pearl_rows", |rows| rows == 0.0);
    for name in ["pearl_answers_total", "pearl_first_token_seconds_count"] {
        assert_eq!(server.metric(name), 1.0, "{name}");
    }
    let Served { address, .. } = &server;
    assert!(address.starts_with("127.0.0.1:"));
}
