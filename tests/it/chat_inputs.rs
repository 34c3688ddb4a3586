//! What users bring to a chat model: tokenizers that break a library, templates that ask for the date or take long, dialogues
//! longer than the context, several ends of a checkpoint.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::cli::{one_line, pearl};

const SMALL: &str = "tests/fixtures/qwen3";

/// The small checkpoint with these files added or replaced.
fn checkpoint(folder: &Path, files: &[(&str, String)]) -> String {
    std::fs::create_dir_all(folder).unwrap();
    for file in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    {
        std::fs::copy(Path::new(SMALL).join(file), folder.join(file)).unwrap();
    }
    files.iter().for_each(|(file, text)| std::fs::write(folder.join(file), text).unwrap());
    folder.display().to_string()
}

fn words(part: &str, value: Value) -> String {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
    });
    file[part] = value;
    file.to_string()
}

#[test]
fn a_tokenizer_that_breaks_the_library_is_one_line() {
    let root = tempfile::tempdir().unwrap();
    for (number, (file, expected)) in [
        (words("pre_tokenizer", json!({"type": "FixedLength", "length": 0})), "a fixed length of 0"),
        (
            words("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="})),
            "claims 4294967295 bytes",
        ),
        ("[".repeat(100_000), "not a valid tokenizer"),
    ]
    .into_iter()
    .enumerate()
    {
        let model = checkpoint(&root.path().join(number.to_string()), &[("tokenizer.json", file)]);
        one_line(&["tokens", "--model", &model, "--prompt", "how to help"], &["tokenizer.json: ", expected]);
    }
}

const DATED: &str = "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}\
    {{ strftime_now('%d') }} <|im_start|> assistant <think>";

/// A folder with a template that asks for the date and two dialogues.
fn dated(root: &Path) -> [String; 2] {
    let (template, data) = (root.join("dated.jinja"), root.join("d.jsonl"));
    std::fs::write(&template, DATED).unwrap();
    let line = |text: &str| format!("{}\n", json!({"messages": [{"role": "user", "content": text}]}));
    std::fs::write(&data, line("help me please") + &line("help")).unwrap();
    [template.display().to_string(), data.display().to_string()]
}

fn manifest(store: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(store.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn the_date_of_a_template_is_part_of_a_store() {
    let root = tempfile::tempdir().unwrap();
    let [template, data] = dated(root.path());
    let extract = |out: &str, more: &[&str]| {
        let out = root.path().join(out).display().to_string();
        let base = [
            "extract",
            "--chat-template",
            &template,
            "--data",
            &data,
            "--sites",
            "0.resid_post",
            "--out",
            &out,
        ];
        [&base[..], more].concat().into_iter().map(String::from).collect::<Vec<_>>()
    };
    let run = |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        pearl(&arguments).assert().success();
    };
    run(extract("a", &["--date", "2025-01-02"]));
    assert_eq!(manifest(&root.path().join("a"))["date"], "2025-01-02");
    // The run's own day counts where none is given, and another is refused.
    run(extract("a", &[]));
    let other = extract("a", &["--date", "2025-01-03"]);
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    one_line(&other, &["another `date`: 2025-01-02; expected 2025-01-03"]);
    // Parts of two days are not merged.
    run(extract("p1", &["--shard", "1/2", "--date", "2025-01-02"]));
    run(extract("p2", &["--shard", "2/2", "--date", "2025-01-03"]));
    let [one, two, out] = ["p1", "p2", "whole"].map(|name| root.path().join(name).display().to_string());
    one_line(&["store", "merge", &one, &two, "--out", &out], &["another `date`: 2025-01-03"]);
    // A template that doesn't ask leaves no date.
    let plain = root.path().join("plain").display().to_string();
    let arguments =
        ["extract", "--data", &data, "--sites", "0.resid_post", "--out", &plain, "--date", "2025-01-02"];
    pearl(&arguments).assert().success();
    assert_eq!(manifest(Path::new(&plain)).get("date"), None);
}

#[test]
fn a_dialogue_longer_than_the_context_is_refused_at_once_or_skipped() {
    let root = tempfile::tempdir().unwrap();
    let long = "help ".repeat(200_000);
    let data = root.path().join("d.jsonl");
    let line = |id: &str, text: &str| {
        format!("{}\n", json!({"id": id, "messages": [{"role": "user", "content": text}]}))
    };
    std::fs::write(&data, line("short", "help me") + &line("long", &long)).unwrap();
    let (data, out) = (data.display().to_string(), root.path().join("store").display().to_string());
    let begin = Instant::now();
    let expected = ["dialogue long: 200", " tokens; expected at most ", "--too-long skip"];
    one_line(&["generate", "--data", &data], &expected);
    one_line(&["tokens", "--data", &data, "--html"], &expected);
    one_line(&["extract", "--data", &data, "--out", &out], &expected);
    assert!(!Path::new(&out).exists(), "nothing is left");
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    let skip = |arguments: &[&str]| {
        let output = pearl(&[arguments, &["--data", &data, "--too-long", "skip"]].concat()).output().unwrap();
        let [said, out] = [output.stderr, output.stdout].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success() && said.contains("left out"), "{said}");
        out
    };
    assert_eq!(skip(&["generate", "--json", "--max-tokens", "3"]).lines().count(), 1);
    assert_eq!(skip(&["tokens", "--json"]).lines().count(), 1);
    skip(&["extract", "--sites", "0.resid_post", "--out", &out]);
    assert_eq!(
        (manifest(Path::new(&out))["rows"].clone(), manifest(Path::new(&out))["refused"].clone()),
        (json!(1), json!(1))
    );
}

#[test]
fn a_selector_that_picks_nothing_says_in_how_many() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("d.jsonl");
    let answered =
        json!({"messages": [{"role": "user", "content": "help"}, {"role": "assistant", "content": "yes"}]});
    let open = json!({"messages": [{"role": "user", "content": "help"}]});
    std::fs::write(&data, format!("{answered}\n{open}\n{open}\n")).unwrap();
    let (data, out) = (data.display().to_string(), root.path().join("store").display().to_string());
    let said = |arguments: &[&str]| {
        let output = pearl(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let tokens = said(&["tokens", "--data", &data, "--tokens", "answer", "--brief"]);
    assert!(tokens.contains("answer picks nothing in 2 of 3 dialogues"), "{tokens}");
    let extract =
        said(&["extract", "--data", &data, "--tokens", "answer", "--sites", "embed", "--out", &out]);
    assert!(extract.contains("2 dialogues have no token that answer picks"), "{extract}");
    assert_eq!(manifest(Path::new(&out))["unpicked"], 2);
}

#[test]
fn inspect_names_the_ends_and_their_file() {
    let root = tempfile::tempdir().unwrap();
    let model = checkpoint(
        &root.path().join("m"),
        &[("generation_config.json", r#"{"eos_token_id": [2, 0]}"#.into())],
    );
    let ends = |model: &str| {
        let output = pearl(&["inspect", model, "--json"]).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ids = json["ends"].as_array().unwrap().iter().map(|end| end["id"].clone()).collect::<Vec<_>>();
        (ids, json["ends_from"].as_str().unwrap().to_owned())
    };
    let (ids, file) = ends(&model);
    assert_eq!((ids, file.ends_with("generation_config.json")), (vec![json!(2), json!(0)], true));
}

#[test]
fn ends_that_the_model_does_not_have_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for (number, (value, expected)) in [
        ("288", "end-of-sequence token 288; expected an id of the model's 288 tokens"),
        ("[2, 99999]", "end-of-sequence token 99999"),
        ("-1", "eos_token_id -1; expected a token id"),
        (r#"[1, "2"]"#, r#"eos_token_id [1,"2"]"#),
    ]
    .into_iter()
    .enumerate()
    {
        let file = ("generation_config.json", format!(r#"{{"eos_token_id": {value}}}"#));
        let model = checkpoint(&root.path().join(number.to_string()), &[file]);
        one_line(&["inspect", &model], &["generation_config.json: ", expected]);
    }
}

#[test]
fn a_template_that_takes_long_ends_by_its_fuel() {
    let root = tempfile::tempdir().unwrap();
    let template = root.path().join("slow.jinja");
    let source = "{% set l = range(5000) | list %}{% for i in range(99999) %}{% if l.index(4999) %}{% endif %}{% endfor %}";
    std::fs::write(&template, source).unwrap();
    let template = template.display().to_string();
    let begin = Instant::now();
    one_line(&["tokens", "--chat-template", &template, "--prompt", "help"], &["exceeds its limit of steps"]);
    assert!(begin.elapsed().as_secs() < 8, "{:?}", begin.elapsed());
}

/// A template that writes the system text, tools, functions, names, and one variable.
const WHOLE: &str = "{% if tools %}<|im_start|> tools {{ tools | tojson }} <|im_end|> {% endif %}\
    {% if functions is defined %}<|im_start|> functions {{ functions | tojson }} <|im_end|> {% endif %}\
    {% for m in messages %}<|im_start|> {{ m.role }}{% if m.name %} {{ m.name }}{% endif %} {{ m.content }} <|im_end|> \
    {% endfor %}<|im_start|> assistant{% if enable_thinking is defined and not enable_thinking %} none{% endif %}";
/// One that writes messages only, though its words name the rest.
const BARE: &str = "{# tools #}{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}\
    {{ 'functions documents tools name enable_thinking'[:0] }}<|im_start|> assistant";

#[test]
fn fields_beside_the_messages_are_rendered_or_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).display().to_string();
    std::fs::write(at("whole.jinja"), WHOLE).unwrap();
    std::fs::write(at("bare.jinja"), BARE).unwrap();
    let data = at("d.jsonl");
    let record = |more: Value| {
        let mut record = json!({"messages": [{"role": "user", "content": "help me"}]});
        more.as_object().unwrap().iter().for_each(|(name, value)| record[name] = value.clone());
        std::fs::write(&data, format!("{record}\n")).unwrap();
    };
    let template = |name: &str| at(&format!("{name}.jinja"));
    let text = |name: &str, more: &[&str]| {
        let template = template(name);
        let base = ["tokens", "--json", "--model", SMALL, "--chat-template", &template, "--data", &data];
        let output = pearl(&[&base[..], more].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        json["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|token| token["text"].as_str().unwrap())
            .collect::<String>()
    };
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let call = json!([{"name": "f"}]);
    // As transformers renders them (a system text as its first message).
    for (more, begin) in [
        (json!({"system": "help"}), "<|im_start|> system help <|im_end|> <|im_start|> user help me"),
        (json!({"system_prompt": "help", "system": null}), "<|im_start|> system help <|im_end|>"),
        (
            json!({"tools": tool}),
            r#"<|im_start|> tools [{"type": "function", "function": {"name": "f"}}] <|im_end|>"#,
        ),
        (json!({"functions": call}), r#"<|im_start|> functions [{"name": "f"}] <|im_end|>"#),
        (
            json!({"messages": [{"role": "user", "name": "ann", "content": "help"}]}),
            "<|im_start|> user ann help",
        ),
        (
            json!({"prompt": "help me", "labels": {"x": 1}, "source": "s", "image": null}),
            "<|im_start|> user help me",
        ),
        (json!({"chat_template_kwargs": {}, "functions": [], "prompt_id": 7}), "<|im_start|> user help me"),
        (json!({"conversations": [{"from": "human", "value": "help me"}]}), "<|im_start|> user help me"),
    ] {
        record(more.clone());
        let text = text("whole", &[]);
        assert!(text.starts_with(begin), "{more}: {text:?}");
    }
    for arguments in
        [json!({"enable_thinking": false}), json!({"chat_template_kwargs": {"enable_thinking": false}})]
    {
        record(arguments);
        assert!(text("whole", &[]).ends_with("assistant none"));
    }
    let none: &[&str] = &[];
    for (more, name, command, expected) in [
        (json!({"tools": tool}), "bare", none, "record: `tools`, which the chat template does not write"),
        (
            json!({"functions": call}),
            "bare",
            none,
            "record: `functions`, which the chat template does not write",
        ),
        (
            json!({"documents": [{"text": "t"}]}),
            "whole",
            none,
            "`documents`, which the chat template does not write",
        ),
        (json!({"enable_thinking": false}), "bare", none, "`enable_thinking`, which the chat template"),
        (json!({"chat_template_kwargs": {"depth": 3}}), "whole", none, "`depth`, which the chat template"),
        (
            json!({"chat_template_kwargs": {"messages": []}}),
            "whole",
            none,
            "`messages` in `chat_template_kwargs`",
        ),
        (json!({"chat_template_kwargs": [1]}), "whole", none, "a list in `chat_template_kwargs`"),
        (
            json!({"chat_template_kwargs": {"enable_thinking": true}, "enable_thinking": false}),
            "whole",
            none,
            "`enable_thinking` in `chat_template_kwargs` beside another",
        ),
        (json!({"enable_thinking": true}), "whole", &["--no-think"], "`enable_thinking` true under false"),
        (
            json!({"messages": [{"role": "user", "name": "ann", "content": "help"}]}),
            "bare",
            none,
            "message 0: `name`, which the chat template does not write",
        ),
        (
            json!({"messages": [{"role": "user", "name": "<|im_end|>", "content": "help"}]}),
            "whole",
            none,
            "the control token <|im_end|> in `name`",
        ),
        (
            json!({"system": "one", "messages": [{"role": "system", "content": "two"}, {"role": "user", "content": "a"}]}),
            "whole",
            none,
            "`system` beside another system message; expected one",
        ),
        (json!({"system": "one", "system_prompt": "two"}), "whole", none, "`system_prompt` beside another"),
        (json!({"system": 7}), "whole", none, "a number in `system`"),
        (
            json!({"prompt": "other"}),
            "whole",
            none,
            "`prompt` beside `messages`, which has no such user message",
        ),
        (
            json!({"prompt": [{"role": "user", "content": "help me"}]}),
            "whole",
            none,
            "`prompt` beside `messages`",
        ),
        (json!({"response": "yes"}), "whole", none, "`response` beside `messages`, which has no such answer"),
        (
            json!({"conversations": [{"from": "human", "value": "no"}]}),
            "whole",
            none,
            "`conversations` beside",
        ),
        (json!({"functions": {"name": "f"}}), "whole", none, "an object in `functions`; expected a list"),
        (json!({"images": ["a.png"]}), "whole", none, "a list in `images`; expected text alone"),
        (json!({"chat_template": "{{ x }}"}), "whole", none, "a template in `chat_template`"),
        (json!({"continue_final_message": true}), "whole", none, "`continue_final_message` true"),
        (json!({"add_generation_prompt": false}), "whole", none, "`add_generation_prompt` false"),
        (
            json!({"messages": [{"role": "user", "content": "help", "images": ["a.png"]}]}),
            "whole",
            none,
            "`images` in message 0 of `messages`",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f", "limit": 12345678901234567890123_f64}}]}),
            "bare",
            none,
            "`tools`",
        ),
    ] {
        record(more);
        let template = template(name);
        let base = ["tokens", "--model", SMALL, "--chat-template", &template, "--data", &data];
        one_line(&[&base[..], command].concat(), &[expected]);
    }
    // An integer that a chat template would write otherwise.
    let text = r#"{"prompt":"help","tools":[{"name":"f","limit":12345678901234567890123}]}"#;
    std::fs::write(&data, text).unwrap();
    one_line(&["tokens", "--data", &data], &["the integer 12345678901234567890123 in `tools`"]);
    // Without a list of messages, a number is a label and a text is the system's.
    std::fs::write(&data, r#"{"prompt":"help","system":"me","tools":"a hammer","system_prompt":3}"#).unwrap();
    let read = pearlpoint::dialogue::Dialogues::read(&data).unwrap().dialogues.remove(0);
    assert_eq!((read.messages.len(), read.messages[0].content.as_str()), (2, "me"));
    assert_eq!(read.labels.keys().collect::<Vec<_>>(), ["system_prompt", "tools"]);
}

#[test]
fn a_tokenizer_file_of_another_shape_is_named() {
    let root = tempfile::tempdir().unwrap();
    let mut tokenizer: Value =
        serde_json::from_slice(&std::fs::read(Path::new(SMALL).join("tokenizer.json")).unwrap()).unwrap();
    tokenizer["added_tokens"][0]["id"] = (-1).into();
    let split =
        json!({"type": "Split", "pattern": {"Regex": "(?i)ß"}, "behavior": "Isolated", "invert": false});
    let decoder = |id: &str, token: Value| json!({"added_tokens_decoder": {id: token}}).to_string();
    for (number, (file, text, expected)) in [
        ("tokenizer_config.json", "[]".into(), "tokenizer_config.json: a list; expected a JSON object"),
        ("tokenizer_config.json", "\"a\"".into(), "tokenizer_config.json: a text; expected a JSON object"),
        ("tokenizer_config.json", "7".into(), "tokenizer_config.json: 7; expected a JSON object"),
        ("tokenizer_config.json", "null".into(), "tokenizer_config.json: null; expected a JSON object"),
        ("special_tokens_map.json", "[]".into(), "special_tokens_map.json: a list"),
        ("added_tokens.json", "[]".into(), "added_tokens.json: a list"),
        ("generation_config.json", "[]".into(), "generation_config.json: a list"),
        ("tokenizer_config.json", decoder("-1", json!({"content": "a"})), "an added token with the id -1"),
        ("tokenizer_config.json", decoder("x", json!({"content": "a"})), "an added token with the id x"),
        ("tokenizer_config.json", decoder("9", json!("a")), "an added token 9 without a text"),
        ("tokenizer_config.json", json!({"added_tokens_decoder": [1]}).to_string(), "that is not an object"),
        ("tokenizer.json", tokenizer.to_string(), "an added token with the id -1; ids go from 0"),
        (
            "tokenizer.json",
            words("pre_tokenizer", split),
            "'ß' where case is ignored, which Oniguruma finds in \"ss\"",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let model = checkpoint(&root.path().join(number.to_string()), &[(file, text)]);
        one_line(&["tokens", "--model", &model, "--prompt", "help"], &[file, expected]);
    }
    // Without added_tokens_decoder, added_tokens.json counts.
    let files = [("tokenizer_config.json", "{}".into()), ("added_tokens.json", r#"{"<x>": -1}"#.into())];
    let model = checkpoint(&root.path().join("added"), &files);
    one_line(
        &["inspect", &model],
        &["added_tokens.json: the token \"<x>\" with the id -1; expected tokens with ids from 0"],
    );
}
