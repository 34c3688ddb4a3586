//! Malformed checkpoints, given to the program: a one-line error that names the file and the fault, exit code 2, in little
//! time and memory.

use std::path::{Path, PathBuf};

use super::cli::{one_line, pearl};

const SMALL: &str = "tests/fixtures/qwen3";

/// The small checkpoint with these files added or replaced.
fn checkpoint(root: &Path, name: &str, files: &[(&str, Vec<u8>)]) -> String {
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    {
        std::fs::copy(Path::new(SMALL).join(file), folder.join(file)).unwrap();
    }
    files.iter().for_each(|(file, bytes)| std::fs::write(folder.join(file), bytes).unwrap());
    folder.display().to_string()
}

fn original(file: &str) -> String {
    std::fs::read_to_string(Path::new(SMALL).join(file)).unwrap()
}

/// A JSON file with one field changed.
fn with(file: &str, change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut json = serde_json::from_str(&original(file)).unwrap();
    change(&mut json);
    json.to_string().into_bytes()
}

/// A safetensors file with this table and `bytes` bytes of data.
fn tensors(table: &str, bytes: usize) -> Vec<u8> {
    [&(table.len() as u64).to_le_bytes()[..], table.as_bytes(), &vec![0; bytes]].concat()
}

#[test]
fn tables_of_tensors() {
    let root = tempfile::tempdir().unwrap();
    let entry = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let entry_of = |dtype: &str| format!("{{{}}}", entry("a", "[2]", 0, 8).replace("F32", dtype));
    let whole = "a whole safetensors file";
    let huge = u64::MAX / 2;
    let length = |claimed: u64| [&claimed.to_le_bytes()[..], b"{}"].concat();
    let typed = |dtype: &str| tensors(&entry_of(dtype), 8);
    let cases: [(&str, Vec<u8>, &str); 15] = [
        (
            "wide-type",
            typed("F64"),
            "tensor a of type F64 and shape [2] in 8 bytes; expected 16 bytes in a whole",
        ),
        (
            "narrow-type",
            typed("F8_E4M3"),
            "tensor a of type F8_E4M3 and shape [2] in 8 bytes; expected 2 bytes",
        ),
        ("unknown-type", typed("F8"), "tensor a of type \"F8\"; expected a type of safetensors"),
        ("empty", vec![], whole),
        ("header-of-terabytes", length(1 << 42), whole),
        ("header-beyond-the-file", length(4096), whole),
        ("header-that-overflows", length(u64::MAX), whole),
        (
            "data-of-terabytes",
            tensors(&format!("{{{}}}", entry("a", "[1099511627776]", 0, 1 << 42)), 8),
            whole,
        ),
        ("offsets-that-overflow", tensors(&format!("{{{}}}", entry("a", "[1]", huge, huge + 4)), 8), whole),
        (
            "overlapping",
            tensors(&format!("{{{},{}}}", entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12)), 12),
            whole,
        ),
        (
            "shape-that-overflows",
            tensors(&format!("{{{}}}", entry("a", "[4294967296,4294967296,16]", 0, 8)), 8),
            whole,
        ),
        (
            "names-twice",
            tensors(&format!("{{{},{}}}", entry("a", "[2]", 0, 8), entry("a", "[2]", 0, 8)), 8),
            "tensor a twice; expected each tensor once",
        ),
        ("nested", tensors(&"[".repeat(100_000), 8), whole),
        (
            "no-utf-8",
            tensors("{\"\u{1}", 8).into_iter().map(|b| if b == 1 { 0xff } else { b }).collect(),
            whole,
        ),
        (
            "one-tensor",
            tensors(&format!("{{{}}}", entry("a", "[2]", 0, 8)), 8),
            "no more blocks than tensors",
        ),
    ];
    for (name, bytes, expected) in cases {
        let folder = checkpoint(root.path(), name, &[("model.safetensors", bytes)]);
        let file = if name == "one-tensor" { "config.json" } else { "model.safetensors" };
        one_line(&["inspect", &folder], &[file, expected]);
        one_line(&["generate", "--model", &folder, "--prompt", "a"], &[file, expected]);
    }
}

#[test]
fn indices_of_shards() {
    let root = tempfile::tempdir().unwrap();
    let index = |entries: &str| format!("{{\"weight_map\":{{{entries}}}}}").into_bytes();
    // A single file would count before the index.
    let place = |name: &str, entries: &str| {
        let folder = checkpoint(root.path(), name, &[("model.safetensors.index.json", index(entries))]);
        let at = |name: &str| Path::new(&folder).join(name);
        std::fs::rename(at("model.safetensors"), at("model-1.safetensors")).unwrap();
        folder
    };
    let listed = r#""model.norm.weight":"model-1.safetensors""#;
    one_line(
        &["inspect", &place("shard-missing", &format!(r#"{listed},"b":"model-2.safetensors""#))],
        &["model-2.safetensors: no such file (1 of 2 are missing)", "model.safetensors.index.json"],
    );
    one_line(
        &["inspect", &place("tensor-missing", &format!(r#"{listed},"nose":"model-1.safetensors""#))],
        &["model-1.safetensors: no tensor nose, which the index says is in it"],
    );
    one_line(
        &["inspect", &place("outside", r#""a":"../../etc/passwd""#)],
        &["index.json: file ../../etc/passwd", "files beside the index"],
    );
    one_line(&["inspect", &place("empty", "")], &["model.safetensors.index.json: an empty weight_map"]);
    let nested = checkpoint(
        root.path(),
        "nested",
        &[("model.safetensors.index.json", "{\"weight_map\":".repeat(100_000).into_bytes())],
    );
    std::fs::remove_file(Path::new(&nested).join("model.safetensors")).unwrap();
    one_line(&["inspect", &nested], &["index.json: ", "a weight_map from tensors to files"]);
    // A tensor in a shard that the index doesn't list is still found; a second copy is refused.
    let both = place("twice", &format!(r#"{listed},"model.embed_tokens.weight":"copy.safetensors""#));
    std::fs::copy(Path::new(SMALL).join("model.safetensors"), Path::new(&both).join("copy.safetensors"))
        .unwrap();
    one_line(&["inspect", &both], &["which is also in", "each tensor once"]);
    // A single file hides an index, also one whose shards are gone or that is no index.
    for (name, index) in [("gone", index(r#""a":"model-9.safetensors""#)), ("no-index", b"[]".to_vec())] {
        let folder = checkpoint(root.path(), name, &[("model.safetensors.index.json", index)]);
        pearl(&["inspect", &folder]).assert().success();
    }
}

#[test]
fn absurd_configs() {
    let root = tempfile::tempdir().unwrap();
    let cases: [(&str, serde_json::Value, &[&str]); 16] = [
        ("num_hidden_layers", 2147483648u64.into(), &["num_hidden_layers is 2147483648", "a whole number"]),
        ("num_hidden_layers", 2147483647u64.into(), &["2147483647", "whole number from 1 to 10000"]),
        ("num_hidden_layers", 10_000.into(), &["10000 blocks", "no more blocks than tensors"]),
        ("num_hidden_layers", 0.into(), &["num_hidden_layers is 0"]),
        ("num_hidden_layers", (-1).into(), &["num_hidden_layers is -1"]),
        ("num_hidden_layers", 3.into(), &["no tensor model.layers.2."]),
        ("num_hidden_layers", 1.into(), &["model.layers.1.", "no place for"]),
        ("num_attention_heads", 3.into(), &["3 heads", "divide"]),
        ("num_attention_heads", 2147483647.into(), &["config.json: ", "heads"]),
        ("num_key_value_heads", 8.into(), &["4 heads", "8", "divide"]),
        ("num_key_value_heads", 3.into(), &["4 heads", "3", "divide"]),
        ("head_dim", 0.into(), &["head_dim is 0"]),
        ("head_dim", 2147483646.into(), &["config.json: ", "fit in memory"]),
        ("vocab_size", 0.into(), &["vocab_size is 0"]),
        ("vocab_size", 2147483647.into(), &["embed_tokens.weight", "2147483647"]),
        ("hidden_size", "many".into(), &["hidden_size is \"many\"", "a whole number"]),
    ];
    for (number, (field, value, expected)) in cases.into_iter().enumerate() {
        let config = with("config.json", |json| {
            json[field] = value;
            // A list for another number of blocks would be refused first.
            json.as_object_mut().unwrap().remove("layer_types");
        });
        let folder = checkpoint(root.path(), &number.to_string(), &[("config.json", config)]);
        one_line(&["inspect", &folder], expected);
    }
    let twice = original("config.json").replacen('{', "[", 1);
    let folder = checkpoint(root.path(), "no-json", &[("config.json", twice.into_bytes())]);
    one_line(&["inspect", &folder], &["config.json: ", "a JSON object"]);
}

#[test]
fn deep_and_wrong_json() {
    let root = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        for (name, text) in [
            ("brackets", "[".repeat(100_000)),
            ("objects", "{\"a\":".repeat(100_000)),
            ("closed", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ] {
            let folder = checkpoint(root.path(), &format!("{file}-{name}"), &[(file, text.into_bytes())]);
            // A tokenizer is refused for its structure before its depth matters.
            let expected =
                if file == "tokenizer.json" { "not a valid tokenizer (" } else { "recursion limit exceeded" };
            one_line(&["inspect", &folder], &[file, expected]);
        }
        // Deep nesting in a field that is ignored.
        let inside = |text: String| original(file).replacen('{', &format!("{{\"x\":{text},"), 1).into_bytes();
        if Path::new(SMALL).join(file).is_file() {
            let deep = inside("[".repeat(100_000) + &"]".repeat(100_000));
            let folder = checkpoint(root.path(), &format!("{file}-inside"), &[(file, deep)]);
            let expected =
                if file == "tokenizer.json" { "not a valid tokenizer (" } else { "recursion limit exceeded" };
            one_line(&["inspect", &folder], &[file, expected]);
        }
        let folder = checkpoint(root.path(), &format!("{file}-bytes"), &[(file, vec![0xff, 0xfe, 0x00])]);
        one_line(&["inspect", &folder], &[file]);
    }
    let folder = PathBuf::from(checkpoint(root.path(), "config-of-unknown", &[]));
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    std::fs::write(folder.join("tokenizer.model"), "").unwrap();
    one_line(
        &["inspect", folder.to_str().unwrap()],
        &["tokenizer.json: no such file, only tokenizer.model", "save_pretrained"],
    );
}

#[test]
fn tokenizers_that_do_not_fit() {
    let root = tempfile::tempdir().unwrap();
    let merge = with("tokenizer.json", |json| {
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        merges.push(serde_json::json!(["nobody", "knows"]));
    });
    let folder = checkpoint(root.path(), "merge", &[("tokenizer.json", merge)]);
    one_line(
        &["inspect", &folder],
        &["tokenizer.json: not a valid tokenizer (", "nobody", "tokenizers library"],
    );
    let beyond = with("tokenizer.json", |json| {
        let mut token = json["added_tokens"][1].clone();
        (token["id"], token["content"]) = (100_000.into(), "<|beyond|>".into());
        json["added_tokens"].as_array_mut().unwrap().push(token);
    });
    let template = b"<|beyond|>{{ messages[0].content }}".to_vec();
    let folder =
        checkpoint(root.path(), "beyond", &[("tokenizer.json", beyond), ("chat_template.jinja", template)]);
    one_line(&["tokens", "--model", &folder, "--prompt", "a"], &["<|beyond|>", "the model's "]);
}

#[test]
fn templates_without_end() {
    let root = tempfile::tempdir().unwrap();
    let endless = "the chat template exceeds its limit of steps or output";
    let cases: [(&str, &str); 6] = [
        ("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}", endless),
        ("{{ 'x' * 10**9 }}", endless),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion limit exceeded"),
        ("{% for m in messages %}", "not a valid chat template (syntax error"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% include 'chat_template.jinja' %}", "chat template fails"),
    ];
    for (number, (source, expected)) in cases.into_iter().enumerate() {
        let folder = checkpoint(root.path(), &number.to_string(), &[("chat_template.jinja", source.into())]);
        one_line(&["tokens", "--model", &folder, "--prompt", "a"], &["chat_template.jinja: ", expected]);
    }
    // The same as an option, which overrides the model's own template.
    let file = root.path().join("own.jinja");
    std::fs::write(&file, "{{ 'x' * 10**9 }}").unwrap();
    let file = file.display().to_string();
    one_line(&["tokens", "--chat-template", &file, "--prompt", "a"], &["own.jinja: ", endless]);
    one_line(&["tokens", "--chat-template", "nowhere.jinja", "--prompt", "a"], &["nowhere.jinja: "]);
}

#[cfg(unix)]
#[test]
fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let root = tempfile::tempdir().unwrap();
    let name = root.path().join(std::ffi::OsStr::from_bytes(b"mod\xffel"));
    let mut command = pearl(&["inspect"]);
    let output = command.arg(&name).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("no model there"), "{said}");
    std::fs::rename(checkpoint(root.path(), "fine", &[]), &name).unwrap();
    pearl(&["inspect", "--json"]).arg(&name).assert().success();
}

#[test]
fn json_of_many_values_and_settings_that_are_not_honoured() {
    let root = tempfile::tempdir().unwrap();
    let many = |file: &str| {
        let text = original(file);
        let body = text.trim_end().strip_suffix('}').unwrap();
        format!("{body},\"a_list\":[{}0]}}", "0,".repeat(1_000_000)).into_bytes()
    };
    let cases: [(&str, &str, Vec<u8>, &str); 3] = [
        ("many", "config.json", many("config.json"), "more than 1000000 values; expected a config"),
        (
            "many-of-tokenizer",
            "tokenizer_config.json",
            many("tokenizer_config.json"),
            "more than 1000000 values; expected a file of a usual size",
        ),
        (
            "split",
            "tokenizer_config.json",
            with("tokenizer_config.json", |json| json["split_special_tokens"] = true.into()),
            "split_special_tokens = true; expected false",
        ),
    ];
    for (name, file, bytes, expected) in cases {
        let model = checkpoint(root.path(), name, &[(file, bytes)]);
        one_line(&["tokens", "--model", &model, "--prompt", "hi", "--brief"], &[expected, file]);
    }
    // A byte order mark before a config is no part of it.
    let marked = [b"\xef\xbb\xbf", original("config.json").as_bytes()].concat();
    let model = checkpoint(root.path(), "marked", &[("config.json", marked)]);
    pearl(&["tokens", "--model", &model, "--prompt", "hi", "--brief"]).assert().success();
}
