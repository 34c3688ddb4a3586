//! Odd requests: roles, fields of other servers and values of a wrong kind, refused by name or answered as they are meant.

use serde_json::{Value, json};

use super::client::served;
use super::{asked, text, with};

/// The program's answer to the same messages.
fn generated(messages: &Value) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.jsonl");
    std::fs::write(&file, json!({"id": "prompt", "messages": messages}).to_string() + "\n").unwrap();
    let arguments =
        ["generate", "--data", file.to_str().unwrap(), "--greedy", "--max-tokens", "12", "--quiet"];
    let output = crate::cli::pearl(&arguments).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(String::from_utf8(output.stderr).unwrap().trim().to_owned()),
    }
}

#[test]
fn every_role_is_answered_or_refused_as_by_the_program() {
    let server = served(&[]);
    let user = json!({"role": "user", "content": "i see ."});
    let mut answers = Vec::new();
    for other in [
        json!({"role": "system", "content": "they call it"}),
        json!({"role": "developer", "content": "they call it"}),
        json!({"role": "function", "name": "f", "content": "they call it"}),
        json!({"role": "tool", "tool_call_id": "c", "content": "they call it"}),
        json!({"role": "assistant", "content": "they call it"}),
        json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
        json!({"role": "user", "name": "ann", "content": "they call it"}),
    ] {
        for messages in [json!([other, user]), json!([user, other, user])] {
            let (status, body) = server.post(
                "/v1/chat/completions",
                &with(asked(""), json!({"messages": messages, "max_tokens": 12})),
            );
            match generated(&messages) {
                Ok(expected) => {
                    assert_eq!(status, 200, "{messages}: {body}");
                    assert_eq!(text(&body), expected, "{messages}");
                    answers.push(body["usage"]["prompt_tokens"].clone());
                }
                Err(expected) => {
                    assert_eq!(status, 400, "{messages}: {body}, {expected}");
                    let said = body["error"]["message"].as_str().unwrap();
                    assert!(expected.contains(said), "{expected}: {said}");
                }
            }
        }
    }
    assert!(answers.len() >= 8, "{answers:?}");
    for role in ["ipython", "observation", "User", "", "king"] {
        let messages = json!([{"role": role, "content": "i see ."}]);
        let (status, body) = server.post("/v1/chat/completions", &json!({"messages": messages}));
        assert_eq!((status, &body["error"]["param"]), (400, &json!("messages[0].role")), "{body}");
    }
}

#[test]
fn a_wrong_value_is_named_with_what_would_be_right() {
    let server = served(&[]);
    let chat = [
        (json!({"temperature": "1"}), "temperature", "string \"1\"; expected a number"),
        (json!({"temperature": true}), "temperature", "boolean `true`; expected a number"),
        (json!({"n": -1}), "n", "expected a whole number, 0 or more"),
        (json!({"seed": 1.5}), "seed", "expected a whole number of 64 bits"),
        (json!({"stop": 5}), "stop", "expected a text or a list of texts"),
        (json!({"stop": [["a"]]}), "stop", "expected a text or a list of texts"),
        (json!({"probes": 5}), "probes", "expected a text or a list of texts"),
        (json!({"stream": "true"}), "stream", "expected true or false"),
        (json!({"messages": {}}), "messages", "expected a list"),
        (json!({"messages": ["hi"]}), "messages[0]", "expected an object"),
        (json!({"messages": [{"content": "hi"}]}), "messages[0].role", "nothing; expected a value"),
        (json!({"stream_options": "x"}), "stream_options", "expected an object"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", "\"stream\": true"),
        (json!({"tool_choice": "required"}), "tool_choice", "\"none\" or \"auto\""),
        (json!({"tool_choice": {"type": "function"}}), "tool_choice", "\"none\" or \"auto\""),
        (json!({"function_call": {"name": "f"}}), "function_call", "\"none\" or \"auto\""),
        (json!({"modalities": ["text", "audio"]}), "modalities", "[\"text\"]"),
        (json!({"modalities": "audio"}), "modalities", "[\"text\"]"),
        (json!({"web_search_options": {}}), "web_search_options", "expected none"),
        (json!({"response_format": "text"}), "response_format", "{\"type\": \"text\"}"),
        (json!({"response_format": {}}), "response_format", "{\"type\": \"text\"}"),
        (json!({"response_format": {"type": "json_object"}}), "response_format", "json_object"),
    ];
    let text = [
        (json!({"prompt": 5}), "prompt", "a list of texts"),
        (json!({"prompt": null}), "prompt", "a list of texts"),
        (json!({"prompt": ["a", 5]}), "prompt", "a list of texts"),
        (json!({"prompt": [-1]}), "prompt", "token ids"),
        (json!({"prompt": "a", "logprobs": true}), "logprobs", "a whole number, 0 or more"),
    ];
    let states = [
        (json!({"dialogues": ["x"], "sites": "embed"}), "dialogues[0]", "a list of messages"),
        (json!({"dialogues": [], "sites": ["embed"]}), "sites", "expected a text"),
    ];
    for (path, base, cases) in [
        ("/v1/chat/completions", asked("a"), &chat[..]),
        ("/v1/completions", json!({}), &text),
        ("/v1/hidden_states", json!({}), &states),
    ] {
        for (fields, param, part) in cases {
            let (status, body) = server.post(path, &with(base.clone(), fields.clone()));
            assert_eq!((status, body["error"]["param"].as_str()), (400, Some(*param)), "{fields}: {body}");
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("{param}: ")) && message.contains(part), "{fields}: {body}");
            // Words of the server's own code mean nothing to a client.
            for word in ["usize", "i64", "f32", "struct", "enum", "line 1", "sequence"] {
                assert!(!message.contains(word), "{message}");
            }
        }
    }
    for twice in [
        "{\"max_tokens\": 1, \"max_tokens\": 2, \"messages\": []}",
        "{\"messages\": [{\"role\": \"user\", \"role\": \"user\"}]}",
    ] {
        let (status, body) = server.post_bytes("/v1/chat/completions", twice.as_bytes());
        assert!(status == 400 && body.contains("it is there twice; expected one"), "{body}");
    }
    // What changes nothing is taken.
    let expected = server.chat(&asked("i see ."));
    for free in [
        json!({"tool_choice": "none"}),
        json!({"tool_choice": "auto", "tools": []}),
        json!({"function_call": null}),
        json!({"modalities": ["text"]}),
        json!({"stream_options": null}),
        json!({"reasoning_effort": "low", "store": true, "prediction": null, "parallel_tool_calls": false}),
        json!({"stop": ["q1", "q2", "q3", "q4", "q5"], "seed": -1, "top_p": 0, "logprobs": false}),
    ] {
        assert_eq!(super::text(&server.chat(&with(asked("i see ."), free))), super::text(&expected));
    }
}
