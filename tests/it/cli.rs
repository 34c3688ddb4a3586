//! The program as users run it: what it leaves behind, and what it says of bad input: one line, exit code 2.

use std::path::Path;

use assert_cmd::Command;

pub fn pearl(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("pearl").unwrap();
    command.args(arguments);
    command
}

/// Runs a command that must fail, and gives its one line.
fn failure(arguments: &[&str]) -> String {
    let output = pearl(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    said
}

pub fn one_line(arguments: &[&str], expected: &[&str]) {
    let said = failure(arguments);
    assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said}");
    for part in expected {
        assert!(said.contains(part), "{arguments:?}: {said:?} lacks {part:?}");
    }
}

/// A copy of the small Qwen3 checkpoint with one file changed.
fn broken(folder: &Path, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let from = Path::new("tests/fixtures/qwen3");
    std::fs::create_dir_all(folder).unwrap();
    for file in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let path = folder.join(name);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, change(bytes)).unwrap();
    folder.display().to_string()
}

fn replace(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(from));
    text.replace(from, to).into_bytes()
}

#[test]
fn wrong_use_is_one_clear_line() {
    one_line(&["generate", "--promt", "hello"], &["unexpected argument '--promt' found", "'--prompt'"]);
    one_line(&["extract"], &["required arguments", "--data", "--out"]);
    one_line(&["generate", "--prompt", "a", "--vector", "v.safetensors:NaN"], &["strength NaN", "0.4n"]);
    let fit = "probe fit --store nowhere --data a --label a --group b --held-out c --out d";
    one_line(&fit.split(' ').collect::<Vec<_>>(), &["nowhere/manifest.json: No such file"]);
    one_line(
        &["generate", "--model", "no/such/folder", "--prompt", "a"],
        &["no/such/folder", "expected a checkpoint folder"],
    );
    one_line(
        &["tokens", "--prompt", "i see .", "--tokens", "mean(assistant.start)", "--model", "nowhere"],
        &["nowhere"],
    );
}

/// The lines under "Example:" in a command's help.
fn examples(command: &str) -> Vec<String> {
    let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
    let help = String::from_utf8(pearl(&arguments).output().unwrap().stdout).unwrap();
    let lines = help.split_once("Example:").unwrap_or_else(|| panic!("{command}: {help}")).1.lines();
    lines.filter_map(|line| Some(line.strip_prefix("  pearl ")?.to_string())).collect()
}

#[test]
fn the_examples_of_the_help_run() {
    let folder = tempfile::tempdir().unwrap();
    // In an order in which each finds what it reads. Those of experiment files and of training have tests of their own.
    let commands = [
        "organism sample",
        "organism pairs",
        "organism export",
        "inspect",
        "tokens",
        "extract",
        "store check",
        "store merge",
        "probe fit",
        "probe score",
        "probe compare",
        "probe cosines",
        "vector build",
        "vector info",
        "vector cosines",
        "vector scale",
        "vector add",
        "vector subtract",
        "vector orthogonalise",
        "vector export",
        "vector import",
        "generate",
        "lens",
        "patch",
        "boundary map",
        "boundary interpolate",
        "boundary token-map",
        "boundary trajectory",
        "boundary active-learning",
        "plot",
    ];
    for example in commands.iter().flat_map(|command| examples(command)) {
        if example == "probe fit probes/user-type" {
            continue; // It writes into the folder of the concept.
        }
        // What stands in quotes is one word.
        let parts = example.split('"').enumerate();
        let arguments: Vec<&str> = parts
            .flat_map(|(number, part)| match number % 2 {
                0 => part.split_whitespace().collect::<Vec<_>>(),
                _ => vec![part],
            })
            .collect();
        let output = pearl(&arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    }
    wrong_names_list_the_choices(folder.path());
    bare_boundary_is_its_map(folder.path());
}

fn wrong_names_list_the_choices(folder: &Path) {
    let states = "--store store --data data.jsonl";
    let cases = [
        (format!("probe fit {states} --label kind --out p"), "user-type"),
        (format!("probe fit {states} --label user-type --group kind --out p"), "topic"),
        (format!("vector build {states} --label kind --from a --to b --out v"), "user-type"),
        (format!("vector build {states} --label user-type --from a --to benign --out v"), "malicious, sensitive"),
        (format!("vector build {states} --label user-type --from benign --to a --out v"), "malicious, sensitive"),
        (
            format!("boundary map {states} --probe user-type.safetensors --from a --to benign --out b"),
            "benign or malicious or sensitive",
        ),
        (
            "boundary token-map --prompt a --probe user-type.safetensors --class a --out t".into(),
            "benign or malicious or sensitive",
        ),
        ("boundary token-map --data data.jsonl --probe user-type.safetensors --class benign --id a --out t".into(), "one of "),
        (format!("boundary active-learning {states} --label user-type --site embed --group topic --held-out travel --out a"), "3.resid_post"),
        ("probe fit --store store --data none.jsonl --label a --out p".to_string(), "none.jsonl: No such file"),
        (format!("probe score none.safetensors {states}"), "none.safetensors: No such file"),
        ("vector import none.gguf --out v".into(), "none.gguf: No such file"),
        ("generate --prompt a --plan none.toml".into(), "none.toml: No such file"),
        ("generate --prompt a --chat-template none.jinja".into(), "none.jinja: No such file"),
        ("run none.toml --out r".into(), "none.toml: No such file"),
        ("plot none".into(), "none: No such file"),
    ];
    for (line, expected) in cases {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = pearl(&arguments).current_dir(folder).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.trim_end().lines().count()), (Some(2), 1), "{line}: {text}");
        assert!(text.contains(expected), "{line}: {text}");
    }
}

fn bare_boundary_is_its_map(folder: &Path) {
    let options =
        "--store store --data data.jsonl --probe user-type.safetensors --from benign --to malicious";
    let card = |command: &str| {
        let line = format!("{command} {options} --out {} --json", command.replace(' ', "-"));
        let output = pearl(&line.split(' ').collect::<Vec<_>>()).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(card("boundary"), card("boundary map"));
}

#[test]
fn quiet_means_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    std::fs::write(&data, "{\"prompt\": \"i see .\"}\nbroken\n").unwrap();
    let arguments = ["generate", "--data", data.to_str().unwrap(), "--skip-bad", "--max-tokens", "2"];
    let talk = |more: &[&str]| {
        let output = pearl(&[&arguments[..], more].concat()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(talk(&[]).contains("1 bad records were left out"));
    assert_eq!(talk(&["--quiet"]), "");
}

#[test]
fn broken_checkpoints_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cut = broken(&at("cut"), "model.safetensors", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    one_line(&["inspect", &cut], &["model.safetensors", "a whole safetensors file"]);
    let shape = broken(&at("shape"), "config.json", |b| {
        replace(b, "\"intermediate_size\": 48", "\"intermediate_size\": 40")
    });
    one_line(&["inspect", &shape], &["mlp.gate_proj.weight", "[48, 32]", "[40, 32]"]);
    let family = broken(&at("family"), "config.json", |b| {
        replace(b, "\"model_type\": \"qwen3\"", "\"model_type\": \"nonesuch\"")
    });
    one_line(
        &["inspect", &family],
        &["config.json", "nonesuch", "one of llama, ", "it most resembles qwen3 (", "norms on query and key"],
    );
    let nan = broken(&at("nan"), "model.safetensors", |mut bytes| {
        // The last tensor's last number, in bf16.
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&[0xc0, 0x7f]);
        bytes
    });
    one_line(&["generate", "--model", &nan, "--prompt", "a"], &["tensor ", "NaN", "finite"]);
    let index = broken(&at("index"), "config.json", |bytes| bytes);
    // A single file of weights would count before the index.
    std::fs::remove_file(at("index").join("model.safetensors")).unwrap();
    std::fs::write(
        at("index").join("model.safetensors.index.json"),
        r#"{"weight_map":{"a":"missing.safetensors"}}"#,
    )
    .unwrap();
    one_line(&["inspect", &index], &["missing.safetensors", "no such file"]);
}

/// What `inspect` says is in the headers and the config; that it reads no weights is why it is quick.
#[test]
fn a_model_is_told_from_its_headers() {
    let folder = tempfile::tempdir().unwrap();
    let output = pearl(&["inspect", "--json", "tests/fixtures/qwen3"]).output().unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in [
        "family",
        "blocks",
        "width",
        "heads",
        "kv_heads",
        "vocabulary",
        "parameters",
        "dtype",
        "backend",
        "sites",
    ] {
        assert!(!facts[key].is_null(), "{key}");
    }
    assert_eq!((facts["family"].as_str(), facts["hash"].as_str()), (Some("qwen3"), None));
    let parameters = facts["parameters"].as_u64().unwrap();
    assert_eq!(facts["memory"]["f32"].as_u64().unwrap(), 4 * parameters);
    // Two blocks of two heads of twelve, keys and values, in f32.
    assert_eq!(facts["cache_per_token"], 2 * 2 * 2 * 12 * 4);
    assert_eq!(facts["sites"]["1.attn_heads"], 4 * 12);
    assert!(facts["template"].as_str().unwrap().ends_with("chat_template.jinja"));
    assert!(facts["stored"]["bf16"].as_u64().unwrap() > 10);
    let hashed = pearl(&["inspect", "--json", "--hash", "organism"]).output().unwrap();
    let hashed: serde_json::Value = serde_json::from_slice(&hashed.stdout).unwrap();
    assert_eq!(hashed["hash"].as_str().unwrap().len(), 64);
    // A weight that is no number is not seen, for no weight is read.
    let nan = broken(&folder.path().join("nan"), "model.safetensors", |mut bytes| {
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&[0xc0, 0x7f]);
        bytes
    });
    pearl(&["inspect", &nan]).assert().success();
}

#[test]
fn a_model_of_the_hub_is_found_in_its_cache() {
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join("hub/models--some--model");
    std::fs::create_dir_all(cache.join("refs")).unwrap();
    std::fs::write(cache.join("refs/main"), "0123abcd").unwrap();
    broken(&cache.join("snapshots/0123abcd"), "config.json", |bytes| bytes);
    let run = |name: &str| {
        let mut command = pearl(&["inspect", "--json", name]);
        command.env_remove("HF_HUB_CACHE").env_remove("HUGGINGFACE_HUB_CACHE").env("HF_HOME", home.path());
        command.env("HF_HUB_OFFLINE", "1");
        command.output().unwrap()
    };
    for name in ["some/model", "some/model@0123abcd"] {
        let facts: serde_json::Value = serde_json::from_slice(&run(name).stdout).unwrap();
        assert_eq!((facts["model"].as_str(), facts["family"].as_str()), (Some(name), Some("qwen3")));
    }
    for (name, expected) in [("some/model@v9", "--revision v9"), ("some/other", "hf download some/other")] {
        let output = run(name);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(expected) && said.contains("the hub's cache"), "{said}");
    }
}

#[test]
fn bad_data_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, bad) = (folder.path().join("empty.jsonl"), folder.path().join("bad.jsonl"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&bad, "{\"prompt\": \"i see .\"}\n{\"prompt\": \n").unwrap();
    let out = folder.path().join("store").display().to_string();
    let extract =
        |data: &Path| ["extract", "--data", data.to_str().unwrap(), "--out", &out].map(String::from);
    let run = |data: &Path, expected: &[&str]| {
        let arguments = extract(data);
        one_line(&arguments.each_ref().map(String::as_str), expected);
    };
    run(&empty, &["empty.jsonl"]);
    run(&bad, &["bad.jsonl", "2"]);
    let data = folder.path().join("good.jsonl");
    std::fs::write(&data, "{\"prompt\": \"i see .\"}\n").unwrap();
    let data = data.display().to_string();
    one_line(
        &["extract", "--data", &data, "--out", &out, "--sites", "9.resid_post"],
        &["9.resid_post", "0 to 5"],
    );
    assert!(!Path::new(&out).exists(), "nothing is left half-written");
}

#[test]
fn a_vector_of_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (data, store, vector) = (at("data.jsonl"), at("store"), at("vector.safetensors"));
    let lines = ["a", "b"]
        .map(|kind| format!("{{\"prompt\":\"rest today {kind}\",\"labels\":{{\"kind\":\"{kind}\"}}}}\n"));
    std::fs::write(&data, lines.concat()).unwrap();
    let small = "tests/fixtures/qwen3";
    pearl(&["extract", "--model", small, "--data", &data, "--out", &store]).assert().success();
    let build = [
        "vector", "build", "--store", &store, "--data", &data, "--label", "kind", "--from", "a", "--to", "b",
        "--out", &vector,
    ];
    pearl(&build).assert().success();
    one_line(
        &["generate", "--prompt", "i see .", "--vector", &format!("{vector}:1")],
        &["another model's weights (tests/fixtures/qwen3)", "a vector of organism"],
    );
    pearl(&[
        "generate",
        "--model",
        small,
        "--prompt",
        "rest",
        "--max-tokens",
        "3",
        "--vector",
        &format!("{vector}:1n@1.resid_post"),
    ])
    .assert()
    .success();
}

/// An experiment small enough for a test: everything runs, a folder as the formats promise is left.
#[test]
fn an_experiment_leaves_a_whole_run() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("small.toml"), folder.path().join("run"));
    let demo = std::fs::read_to_string("experiments/demo.toml").unwrap();
    let small = demo.replace("sample = 2800", "sample = 900").replace(
        "strengths = [\"0.4n\", \"0.6n\", \"0.8n\", \"1n\", \"1.2n\", \"1.4n\"]",
        "strengths = [\"0.8n\"]",
    );
    assert_ne!(demo, small);
    std::fs::write(&file, small).unwrap();
    let paths = [file.to_str().unwrap(), out.to_str().unwrap()];
    let output = pearl(&["run", paths[0], "--out", paths[1], "--json", "--quiet"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((results["kind"].as_str(), results["version"].as_u64()), (Some("results"), Some(1)));
    let value = |name: &str| {
        let figures = results["figures"].as_array().unwrap();
        figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("{name}"))["value"]
            .as_f64()
            .unwrap()
    };
    // Loose bounds, for few dialogues: the demo's own figures are in the README.
    assert!(value("probe/user-type/auroc") > value("probe/user-type/ngram/auroc") + 0.1);
    assert!(value("steer/gated/sensitive/guide") > value("steer/unsteered/sensitive/guide") + 0.3);
    assert!((value("steer/null/random/median") - value("steer/unsteered/sensitive/guide")).abs() < 0.25);
    assert!(value("steer/null/random/vector") > value("steer/null/random/median") + 0.3);
    assert!(value("steer/unsteered/malicious/refuse") - value("steer/gated/malicious/refuse") <= 0.02);
    for name in [
        "report.html",
        "results.json",
        "experiment.toml",
        "risk-map.svg",
        "pearl.png",
        "activations/manifest.json",
    ] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    let outside = page.replace("http://www.w3.org/", "");
    assert!(!page.contains("<script") && !outside.contains("http:") && !outside.contains("https:"));
}

#[test]
fn output_that_is_no_longer_read_is_no_error() {
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{} organism sample --count 2000 | head -1", env!("CARGO_BIN_EXE_pearl")))
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let help = String::from_utf8(pearl(&["--help"]).output().unwrap().stdout).unwrap();
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands: Vec<&str> =
        commands.map_while(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(commands.len() > 20 && commands.contains(&"extract"), "{help}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = String::from_utf8(pearl(&["completions", shell]).output().unwrap().stdout).unwrap();
        assert!(
            commands.iter().all(|name| script.contains(name)) && script.contains("store-dtype"),
            "{shell}"
        );
    }
    one_line(&["completions", "cmd"], &["bash", "zsh"]);
    let out = folder.path().join("man").display().to_string();
    pearl(&["man", "--out", &out]).assert().success();
    let page = |name: &str| std::fs::read_to_string(folder.path().join("man").join(name)).unwrap();
    for name in commands.iter().filter(|name| **name != "help") {
        assert!(page(&format!("pearl-{name}.1")).starts_with(".ie"), "{name}");
    }
    assert!(page("pearl-probe-fit.1").contains("held") && page("pearl-extract.1").contains("Example"));
}
