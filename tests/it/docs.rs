//! The documents name what exists: every relative link, every path of the repository and every test.

use std::path::{Path, PathBuf};

/// The documents that are kept with the code. The changelog and the log tell of the past, and are left out of names.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "experiments/real/README.md"]
            .map(PathBuf::from)
            .into();
    let docs = std::fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    found.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    found.sort();
    found
}

/// The targets of `[text](target)` that are neither addresses nor anchors, without their own anchors.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let targets = targets.map(|target| target.split('#').next().unwrap());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

/// What stands in backticks on one line.
fn quoted(text: &str) -> Vec<&str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The paths among the words of a quotation: those in folders that hold the project's own files.
fn paths(quoted: &str) -> Vec<&str> {
    const FOLDERS: [&str; 9] = [
        "src/",
        "tests/",
        "docs/",
        "examples/",
        "benches/",
        "scripts/",
        "experiments/",
        "probes/",
        "notebooks/",
    ];
    let words = quoted.split([' ', ',', ';', '(', ')']).map(|word| word.trim_end_matches(['.', ':']));
    let words = words.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)));
    words.filter(|word| !word.contains(['*', '{', '<', '…', 'N']) || word.ends_with(".md")).collect()
}

/// The text of all Rust files in a folder.
fn source(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn links_and_paths_exist() {
    let mut missing = Vec::new();
    for document in documents().into_iter().chain(["CHANGELOG.md".into(), "experiments/LOG.md".into()]) {
        let text = std::fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        missing.extend(
            links(&text)
                .into_iter()
                .filter(|link| !folder.join(link).exists())
                .map(|link| format!("{}: link {link}", document.display())),
        );
        if document.ends_with("CHANGELOG.md") || document.ends_with("LOG.md") {
            continue;
        }
        let named = quoted(&text).into_iter().flat_map(paths).filter(|path| !Path::new(path).exists());
        missing.extend(named.map(|path| format!("{}: path {path}", document.display())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn tests_that_are_named_exist() {
    let mut code = String::new();
    for folder in ["src", "tests/it"] {
        source(Path::new(folder), &mut code);
    }
    let is_test = |name: &str| {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.matches('_').count() >= 3 && name.chars().all(lower)
    };
    let mut missing = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let names = quoted(&text).into_iter().filter(|name| is_test(name));
        // A key of a format is no test, but the code has it as a string.
        let is_known = |name: &&str| {
            [format!("fn {name}("), format!("\"{name}\"")].iter().any(|text| code.contains(text))
        };
        let unknown = names.filter(|name| !is_known(name));
        missing.extend(unknown.map(|name| format!("{}: {name}", document.display())));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn links_and_paths_are_found_in_text() {
    assert_eq!(links("[a](b.md#c) [d](https://e.f) [g](#h) ![i](j.png)"), ["b.md", "j.png"]);
    assert_eq!(quoted("`a b` c `d`"), ["a b", "d"]);
    assert_eq!(paths("pearl run experiments/demo.toml --out runs/x"), ["experiments/demo.toml"]);
    assert!(paths("probes/NAME").is_empty() && paths("probes/*/probe.safetensors").is_empty());
}
