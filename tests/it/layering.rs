//! Data goes one way: a module uses only modules that stand before it in `lib.rs`.

use std::path::Path;

/// The modules of the crate, in the order of `lib.rs`.
fn modules() -> Vec<String> {
    let text = std::fs::read_to_string("src/lib.rs").unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_string).collect()
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_import_runs_backwards() {
    let modules = modules();
    assert!(modules.len() > 2, "lib.rs lists its modules as `pub mod NAME;`");
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut backwards = Vec::new();
    for file in files {
        let inside = file.strip_prefix("src").unwrap().components().next().unwrap();
        let room = Path::new(inside.as_os_str()).with_extension("");
        let Some(own) = modules.iter().position(|module| Path::new(module) == room) else {
            continue; // lib.rs and main.rs see everything
        };
        let text = std::fs::read_to_string(&file).unwrap();
        for (line, text) in text.lines().enumerate() {
            for (_, rest) in text.match_indices("crate::").map(|(at, found)| (at, &text[at + found.len()..]))
            {
                let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if modules.iter().position(|module| module == name).is_some_and(|used| used > own) {
                    backwards.push(format!("{}:{}: {name}", file.display(), line + 1));
                }
            }
        }
    }
    assert!(backwards.is_empty(), "{}", backwards.join("\n"));
}
