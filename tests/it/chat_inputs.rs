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
