//! The layering of the crate, read from its source text.
//!
//! 1. A module uses only modules that `lib.rs` lists before it.
//! 2. No folder, at any depth, is in a circle with the files and folders beside it.
//! 3. No two files use each other, directly or through others.
//!
//! One kind of use doesn't count as part of a circle: a file may use the types and traits that the `mod.rs` of a folder around
//! it defines. That is an extension point: the trait and the table of its implementations are in `mod.rs`, and each
//! implementation is a file beside it. Functions, constants and macros of `mod.rs` do count.

mod import_graph;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use import_graph::{Import, declared_modules, imports};

/// Files that form a circle and may stay one, each set with its reason. The set is sorted by path.
const ALLOWED: [(&[&str], &str); 0] = [];

/// Folders whose circles and backward imports aren't refused yet.
const PENDING: [&str; 0] = [];

/// Whether every one of these files or folders is under [`PENDING`].
fn is_pending(paths: &[&str]) -> bool {
    paths.iter().all(|path| PENDING.iter().any(|folder| format!("{path}/").starts_with(folder)))
}

/// The folder of a file.
fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether an import is that of an extension point's type or trait by one of its implementations.
fn is_extension_point(import: &Import) -> bool {
    let inside = import.to.strip_suffix("mod.rs").is_some_and(|folder| import.from.starts_with(folder));
    inside && import.is_type
}

/// The sets of nodes that reach each other, each with more than one.
fn circles<'a>(edges: &BTreeSet<(&'a str, &'a str)>) -> Vec<Vec<&'a str>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    edges.iter().for_each(|(from, to)| next.entry(from).or_default().push(to));
    let reached = |from: &'a str| -> BTreeSet<&'a str> {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(node) = left.pop() {
            let new = next.get(node).into_iter().flatten().filter(|node| reached.insert(**node));
            left.extend(new.copied().collect::<Vec<_>>());
        }
        reached
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|&node| (node, reached(node))).collect();
    let both = |a: &str, b: &str| reach[a].contains(b) && reach.get(b).is_some_and(|reach| reach.contains(a));
    let mut circles: Vec<Vec<&str>> = Vec::new();
    for &node in reach.keys().filter(|node| both(node, node)) {
        match circles.iter_mut().find(|circle| both(circle[0], node)) {
            Some(circle) => circle.push(node),
            None => circles.push(vec![node]),
        }
    }
    circles
}

/// The imports between the members of a circle, one a line.
fn ties(imports: &[Import], is_member: impl Fn(&str, &str) -> bool) -> String {
    let mut names: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for import in imports.iter().filter(|import| is_member(&import.from, &import.to)) {
        names.entry((&import.from, &import.to)).or_default().insert(&import.item);
    }
    let line = |((from, to), names): ((&str, &str), BTreeSet<&str>)| {
        format!("  {from} -> {to}: {}\n", names.into_iter().collect::<Vec<_>>().join(", "))
    };
    names.into_iter().map(line).collect()
}

/// Imports of a module that `lib.rs` lists later.
fn backward_imports(files: &BTreeMap<String, String>, imports: &[Import]) -> Vec<String> {
    let order = declared_modules(&files["src/lib.rs"]);
    let place = |file: &str| {
        let name = file.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
        order.iter().position(|module| module == name)
    };
    let backward = imports.iter().filter(|import| match (place(&import.from), place(&import.to)) {
        (Some(from), Some(to)) => from < to,
        // The library never uses the program.
        (Some(_), None) => true,
        (None, _) => false,
    });
    let backward = backward.filter(|import| !is_pending(&[&import.from]));
    backward
        .map(|import| format!("{}:{} uses {} of {}", import.from, import.line, import.item, import.to))
        .collect()
}

/// Circles among the files and folders of one folder that at least one folder takes part in.
fn folder_circles(imports: &[Import]) -> Vec<String> {
    let files = imports.iter().flat_map(|import| [import.from.as_str(), import.to.as_str()]);
    let around = |file| {
        std::iter::successors(Some(folder(file)), |inner| {
            Some(folder(inner)).filter(|outer| !outer.is_empty())
        })
    };
    let folders: BTreeSet<&str> = files.flat_map(around).collect();
    let mut found = Vec::new();
    for outer in folders {
        let child = |file: &'_ str| -> Option<usize> {
            let inner = file.strip_prefix(outer)?.strip_prefix('/')?;
            Some(outer.len() + 1 + inner.find('/').unwrap_or(inner.len()))
        };
        let pair = |import: &'_ Import| -> Option<(usize, usize)> {
            Some((child(&import.from)?, child(&import.to)?))
        };
        let edges: BTreeSet<(&str, &str)> = imports
            .iter()
            .filter(|import| !is_extension_point(import))
            .filter_map(|import| pair(import).map(|(from, to)| (&import.from[..from], &import.to[..to])))
            .filter(|(from, to)| from != to)
            .collect();
        let circles = circles(&edges);
        let with_folder = circles.iter().filter(|circle| circle.iter().any(|name| !name.ends_with(".rs")));
        for circle in with_folder.filter(|circle| !is_pending(circle)) {
            let member = |file: &str| child(file).is_some_and(|end| circle.contains(&&file[..end]));
            let beside = |from: &str, to: &str| {
                member(from)
                    && member(to)
                    && child(from).map(|end| &from[..end]) != child(to).map(|end| &to[..end])
            };
            let counted: Vec<Import> =
                imports.iter().filter(|import| !is_extension_point(import)).cloned().collect();
            found.push(format!("in {outer}: {}\n{}", circle.join(", "), ties(&counted, beside)));
        }
    }
    found
}

/// Circles among files.
fn file_circles(imports: &[Import]) -> Vec<(Vec<&str>, String)> {
    let counted: Vec<Import> = imports.iter().filter(|import| !is_extension_point(import)).cloned().collect();
    let edges = imports.iter().filter(|import| !is_extension_point(import));
    let edges: BTreeSet<(&str, &str)> =
        edges.map(|import| (import.from.as_str(), import.to.as_str())).collect();
    let circles = circles(&edges);
    let described = circles.into_iter().filter(|circle| !is_pending(circle)).map(|circle| {
        let ties = ties(&counted, |from, to| circle.contains(&from) && circle.contains(&to));
        (circle, ties)
    });
    described.collect()
}

fn read_sources(folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.to_str().unwrap().replace('\\', "/");
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn crate_sources() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    read_sources(Path::new("src"), &mut files);
    files
}

#[test]
fn no_import_runs_backwards() {
    let files = crate_sources();
    let imports = imports(&files, "pearlpoint");
    assert!(imports.len() > 500, "only {} imports were read", imports.len());
    let backward = backward_imports(&files, &imports);
    assert!(backward.is_empty(), "{}", backward.join("\n"));
}

#[test]
fn no_folder_is_in_a_circle() {
    let found = folder_circles(&imports(&crate_sources(), "pearlpoint"));
    assert!(found.is_empty(), "{} circles\n{}", found.len(), found.join("\n"));
}

#[test]
fn no_files_use_each_other() {
    let files = crate_sources();
    let imports = imports(&files, "pearlpoint");
    let found = file_circles(&imports);
    let allowed = |circle: &[&str]| ALLOWED.iter().any(|(files, _)| *files == circle);
    let forbidden: Vec<&str> =
        found.iter().filter(|(circle, _)| !allowed(circle)).map(|(_, ties)| ties.as_str()).collect();
    assert!(forbidden.is_empty(), "{} circles\n{}", forbidden.len(), forbidden.join("\n"));
    for (circle, reason) in ALLOWED {
        assert!(found.iter().any(|(other, _)| other == circle), "no longer a circle: {circle:?} ({reason})");
    }
}

mod made_up {
    //! The same checks on small made-up crates.

    use super::*;

    fn files(sources: &[(&str, &str)]) -> BTreeMap<String, String> {
        sources.iter().map(|(path, text)| (format!("src/{path}"), text.to_string())).collect()
    }

    /// `FROM -> TO: ITEM` of every import.
    fn edges(sources: &[(&str, &str)]) -> Vec<String> {
        let imports = imports(&files(sources), "pearlpoint");
        let line = |import: &Import| {
            let [from, to] = [&import.from, &import.to].map(|file| file.trim_start_matches("src/"));
            format!("{from} -> {to}: {}", import.item)
        };
        imports.iter().map(line).collect()
    }

    const LIB: (&str, &str) = ("lib.rs", "pub mod low;\npub mod high;\n");

    #[test]
    fn every_form_of_path_is_resolved_to_the_file_that_defines_the_item() {
        let found = edges(&[
            LIB,
            ("main.rs", "mod cli; use pearlpoint::low::Low;"),
            ("cli/mod.rs", "fn print() { pearlpoint::high::run(); }"),
            ("low/mod.rs", "mod a; pub mod b; pub use a::Low; use b::Inner as Renamed; pub use b::*;"),
            ("low/a.rs", "pub struct Low; fn f() { super::b::g::<u8>(); }"),
            ("low/b.rs", "pub struct Inner; pub fn g<T>() {} pub mod deep { pub const D: u8 = 1; }"),
            (
                "high.rs",
                "use crate::low::{self, b as bee, b::deep::D, Inner};
                 pub fn run() { low::Low; bee::g::<u8>(); }
                 mod inline { use super::super::low::Low; fn f() { super::run() } }",
            ),
        ]);
        let expected = [
            "cli/mod.rs -> high.rs: run",
            "high.rs -> low/a.rs: Low",
            "high.rs -> low/a.rs: Low",
            "high.rs -> low/b.rs: D",
            "high.rs -> low/b.rs: Inner",
            "high.rs -> low/b.rs: g",
            "low/a.rs -> low/b.rs: g",
            "low/mod.rs -> low/b.rs: Inner",
            "main.rs -> low/a.rs: Low",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_strings_and_tests_are_no_imports() {
        let text = r##"
            // crate::high::run
            /* crate::high::run /* nested */ crate::high::run */
            /// [`crate::high::run`]
            const TEXT: &str = "crate::high::run \" crate::high::run"; const C: char = '"';
            const RAW: &str = r#"crate::high::run " crate::high::run"#;
            fn lifetime<'a>(x: &'a str) -> &'a str { x }
            #[cfg(test)]
            #[allow(dead_code)]
            mod tests { use crate::high::run; }
            #[cfg(test)]
            use crate::high::{run, other};
            #[cfg(not(test))]
            fn g() { crate::high::counted() }
        "##;
        let found = edges(&[LIB, ("low.rs", text), ("high.rs", "pub fn run() {} pub fn counted() {}")]);
        assert_eq!(found, ["low.rs -> high.rs: counted"]);
    }

    #[test]
    fn a_backward_import_is_found() {
        let sources =
            files(&[LIB, ("low.rs", "fn f() {\n  crate::high::run();\n}"), ("high.rs", "pub fn run() {}")]);
        let found = backward_imports(&sources, &imports(&sources, "pearlpoint"));
        assert_eq!(found, ["src/low.rs:2 uses run of src/high.rs"]);
    }

    #[test]
    fn circles_of_files_are_found_and_extension_points_are_none() {
        let circle = |table: &str| {
            let sources = files(&[
                LIB,
                ("low/mod.rs", &format!("mod a; mod b; pub trait Low {{}} pub fn help() {{}} {table}")),
                ("low/a.rs", "use super::Low; pub struct A; impl Low for A {}"),
                ("low/b.rs", "pub struct B; pub fn b() { super::help() }"),
            ]);
            let imports = imports(&sources, "pearlpoint");
            file_circles(&imports).into_iter().map(|(circle, _)| circle.join(" ")).collect::<Vec<_>>()
        };
        assert!(circle("static TABLE: [&dyn Low; 1] = [&a::A];").is_empty());
        assert_eq!(circle("fn table() { b::b() }"), ["src/low/b.rs src/low/mod.rs"]);
    }

    #[test]
    fn circles_of_folders_are_found_at_any_depth() {
        let sources = files(&[
            LIB,
            ("low/mod.rs", "mod one; mod two; mod three;"),
            ("low/one/mod.rs", "pub mod x; pub mod y;"),
            ("low/one/x.rs", "pub fn x() { crate::low::two::z() }"),
            ("low/one/y.rs", "pub fn y() {}"),
            ("low/two.rs", "pub fn z() { super::three::w() }"),
            ("low/three.rs", "pub fn w() { super::one::y::y() }"),
        ]);
        let imports = imports(&sources, "pearlpoint");
        assert!(file_circles(&imports).is_empty());
        let found = folder_circles(&imports);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("in src/low: src/low/one, src/low/three.rs, src/low/two.rs\n"),
            "{found:?}"
        );
    }
}
