//! The import graph of a crate, read from its source text: which file uses which item of which other file.
//!
//! Paths in `use` items and inline paths are resolved through modules, renames, globs and re-exports to the file that defines
//! the item. Items under `#[cfg(test)]` are skipped. `mod` declarations and re-exports of a module's own children make no
//! edge: they only name the children.

use std::collections::{BTreeMap, BTreeSet};

/// One use of an item of another file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub to: String,
    pub item: String,
    /// Whether the item is a type or a trait.
    pub is_type: bool,
    /// Line in `from`, counted from 1.
    pub line: usize,
}

/// The imports of a crate with a library and, optionally, a program that uses it under the name `library`.
pub fn imports(files: &BTreeMap<String, String>, library: &str) -> Vec<Import> {
    let mut graph = Graph { files, library, modules: Vec::new() };
    for root in ["src/lib.rs", "src/main.rs"] {
        if files.contains_key(root) {
            graph.module(root.into(), None);
        }
    }
    graph.imports()
}

/// The modules that a file declares with `mod NAME;`, in order.
pub fn declared_modules(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let declared = tokens.windows(3).filter(|window| window[0].text == "mod" && window[2].text == ";");
    declared.map(|window| window[1].text.clone()).collect()
}

/// A module: a file, or an inline `mod` in one.
#[derive(Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names defined here, and whether each is a type or a trait.
    items: BTreeMap<String, bool>,
    /// Names that `use` binds here, with their paths.
    bindings: BTreeMap<String, Vec<String>>,
    /// Modules whose names a glob brings here.
    globs: Vec<Vec<String>>,
    /// Every path that occurs here.
    paths: Vec<Path>,
}

struct Path {
    segments: Vec<String>,
    line: usize,
    /// Whether a `pub use` names it.
    is_reexport: bool,
    is_glob: bool,
}

enum Target {
    Module(usize),
    Item { module: usize, name: String, is_type: bool },
}

struct Graph<'a> {
    files: &'a BTreeMap<String, String>,
    library: &'a str,
    modules: Vec<Module>,
}

impl Graph<'_> {
    /// Reads a file and the files of its child modules; gives its number.
    fn module(&mut self, file: String, parent: Option<usize>) -> usize {
        let number = self.modules.len();
        let text = self.files.get(&file).map_or("", String::as_str);
        self.modules.push(Module { file, parent, ..Module::default() });
        let tokens = tokens(text);
        self.body(&tokens, &mut 0, number);
        number
    }

    /// Reads the items of a module up to its closing brace.
    fn body(&mut self, tokens: &[Token], at: &mut usize, module: usize) {
        let mut depth = 0usize;
        let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
        while *at < tokens.len() {
            let line = tokens[*at].line;
            match text(*at) {
                "{" => depth += 1,
                "}" if depth == 0 => return,
                "}" => depth -= 1,
                "#" => {
                    let begin = *at;
                    *at += if text(*at + 1) == "!" { 2 } else { 1 };
                    skip_brackets(tokens, at);
                    let words: Vec<&str> = (begin..*at).map(text).collect();
                    if words.contains(&"cfg") && words.contains(&"test") && !words.contains(&"not") {
                        skip_item(tokens, at);
                    }
                    continue;
                }
                "use" => {
                    let is_reexport = *at > 0 && matches!(text(*at - 1), "pub" | ")");
                    *at += 1;
                    self.use_tree(tokens, at, module, Vec::new(), is_reexport);
                    continue;
                }
                "mod" if text(*at + 2) == ";" => {
                    let name = text(*at + 1).to_owned();
                    if let Some(file) = self.child_file(module, &name) {
                        let child = self.module(file, Some(module));
                        self.modules[module].children.insert(name, child);
                    }
                    *at += 3;
                    continue;
                }
                "mod" if text(*at + 2) == "{" => {
                    let child = self.modules.len();
                    let file = self.modules[module].file.clone();
                    self.modules.push(Module { file, parent: Some(module), ..Module::default() });
                    self.modules[module].children.insert(text(*at + 1).to_owned(), child);
                    *at += 3;
                    self.body(tokens, at, child);
                }
                "macro_rules" => {
                    self.modules[module].items.insert(text(*at + 2).to_owned(), false);
                }
                kind @ ("fn" | "struct" | "enum" | "trait" | "union" | "const" | "static" | "type")
                    if depth == 0 && is_word(text(*at + 1)) =>
                {
                    let is_type = !matches!(kind, "fn" | "const" | "static");
                    self.modules[module].items.entry(text(*at + 1).to_owned()).or_insert(is_type);
                }
                word if is_word(word) && text(*at + 1) == "::" && (*at == 0 || text(*at - 1) != "::") => {
                    let mut segments = vec![word.to_owned()];
                    while text(*at + 1) == "::" && is_word(text(*at + 2)) {
                        segments.push(text(*at + 2).to_owned());
                        *at += 2;
                    }
                    let path = Path { segments, line, is_reexport: false, is_glob: false };
                    self.modules[module].paths.push(path);
                }
                _ => (),
            }
            *at += 1;
        }
    }

    /// Reads one tree of a `use` item, up to the comma, brace or semicolon that ends it.
    fn use_tree(
        &mut self,
        tokens: &[Token],
        at: &mut usize,
        module: usize,
        mut segments: Vec<String>,
        is_reexport: bool,
    ) {
        while *at < tokens.len() {
            let Token { text, line } = &tokens[*at];
            let line = *line;
            *at += 1;
            match text.as_str() {
                "::" => continue,
                "{" => {
                    while *at < tokens.len() && tokens[*at].text != "}" {
                        self.use_tree(tokens, at, module, segments.clone(), is_reexport);
                        if *at < tokens.len() && tokens[*at].text == "," {
                            *at += 1;
                        }
                    }
                    *at += 1;
                    return;
                }
                "*" => {
                    self.modules[module].globs.push(segments.clone());
                    self.modules[module].paths.push(Path { segments, line, is_reexport, is_glob: true });
                    return;
                }
                word => segments.push(word.to_owned()),
            }
            let next = tokens.get(*at).map_or("", |token| token.text.as_str());
            if next == "::" {
                continue;
            }
            if segments.last().is_some_and(|last| last == "self") && segments.len() > 1 {
                segments.pop();
            }
            let mut name = segments.last().cloned().unwrap_or_default();
            if next == "as" {
                name = tokens.get(*at + 1).map(|token| token.text.clone()).unwrap_or_default();
                *at += 2;
            }
            self.modules[module].bindings.insert(name, segments.clone());
            self.modules[module].paths.push(Path { segments, line, is_reexport, is_glob: false });
            return;
        }
    }

    /// The file of `mod NAME;` in a module.
    fn child_file(&self, module: usize, name: &str) -> Option<String> {
        let mut folders = Vec::new();
        let mut module = &self.modules[module];
        // Inline modules are folders under the file's own.
        while let Some(parent) = module.parent.map(|parent| &self.modules[parent]) {
            if parent.file != module.file {
                break;
            }
            let own = parent.children.iter().find(|(_, child)| std::ptr::eq(&self.modules[**child], module));
            folders.extend(own.map(|(name, _)| name.clone()));
            module = parent;
        }
        let (folder, file) = module.file.rsplit_once('/')?;
        let mut folder = match file {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            file => format!("{folder}/{}", file.trim_end_matches(".rs")),
        };
        folders.iter().rev().for_each(|inner| folder = format!("{folder}/{inner}"));
        let paths = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
        paths.into_iter().find(|path| self.files.contains_key(path))
    }

    fn root(&self, mut module: usize) -> usize {
        while let Some(parent) = self.modules[module].parent {
            module = parent;
        }
        module
    }

    /// What a path in a module means; none for what lies outside the crate. `budget` bounds the renames on the way.
    fn resolve(&self, module: usize, segments: &[String], budget: usize) -> Option<Target> {
        let budget = budget.checked_sub(1)?;
        let (first, mut rest) = segments.split_first()?;
        let mut current = match first.as_str() {
            "crate" => self.root(module),
            "self" => module,
            "super" => self.modules[module].parent?,
            name if name == self.library && self.modules[self.root(module)].file == "src/main.rs" => 0,
            name => {
                let next = self.member(module, name, rest.is_empty(), budget)?;
                return self.descend(next, rest, budget);
            }
        };
        while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
            current = self.modules[current].parent?;
            rest = after;
        }
        self.descend(Target::Module(current), rest, budget)
    }

    fn descend(&self, from: Target, segments: &[String], budget: usize) -> Option<Target> {
        let mut current = from;
        for (index, name) in segments.iter().enumerate() {
            // What follows an item are its variants and functions.
            let Target::Module(module) = current else { break };
            let last = index + 1 == segments.len();
            let unknown = || Target::Item { module, name: name.clone(), is_type: false };
            current = self.member(module, name, last, budget).unwrap_or_else(unknown);
        }
        Some(current)
    }

    /// A name in a module. Where a child module and an item share it, the last segment of a path means the item.
    fn member(&self, module: usize, name: &str, last: bool, budget: usize) -> Option<Target> {
        let Module { children, items, bindings, globs, .. } = &self.modules[module];
        let child = children.get(name).map(|child| Target::Module(*child));
        let is_item = items.contains_key(name) || bindings.contains_key(name);
        if child.is_some() && !(last && is_item) {
            return child;
        }
        if let Some(&is_type) = items.get(name) {
            return Some(Target::Item { module, name: name.into(), is_type });
        }
        if let Some(path) = bindings.get(name) {
            return self.resolve(module, path, budget).or(child);
        }
        let through_glob = |path: &Vec<String>| match self.resolve(module, path, budget)? {
            Target::Module(source) if source != module => {
                self.member(source, name, last, budget.checked_sub(1)?)
            }
            _ => None,
        };
        globs.iter().find_map(through_glob).or(child)
    }

    fn is_inside(&self, mut module: usize, ancestor: usize) -> bool {
        while module != ancestor {
            match self.modules[module].parent {
                Some(parent) => module = parent,
                None => return false,
            }
        }
        true
    }

    fn imports(&self) -> Vec<Import> {
        const RENAMES: usize = 16;
        let mut imports = BTreeSet::new();
        for (number, module) in self.modules.iter().enumerate() {
            for path in &module.paths {
                let Some(target) = self.resolve(number, &path.segments, RENAMES) else { continue };
                let (target, item, is_type) = match target {
                    Target::Module(target) if path.is_glob => (target, "*".to_owned(), false),
                    // A module that is only named: what is used of it is counted where it is used.
                    Target::Module(_) => continue,
                    Target::Item { module, name, is_type } => (module, name, is_type),
                };
                let to = &self.modules[target].file;
                if *to == module.file || (path.is_reexport && self.is_inside(target, number)) {
                    continue;
                }
                let (from, to) = (module.file.clone(), to.clone());
                imports.insert(Import { from, to, item, is_type, line: path.line });
            }
        }
        imports.into_iter().collect()
    }
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    line: usize,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::`, and single other characters; without comments, strings, characters and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut tokens) = (0, 1, Vec::new());
    let get = |index: usize| characters.get(index).copied().unwrap_or('\0');
    while at < characters.len() {
        let begin = at;
        match get(at) {
            '/' if get(at + 1) == '/' => {
                while at < characters.len() && get(at) != '\n' {
                    at += 1;
                }
            }
            '/' if get(at + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (get(at), get(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= characters.len() {
                        break;
                    }
                }
            }
            '"' => at = string_end(&characters, at),
            'r' | 'b' if raw_string(&characters, at).is_some() => {
                at = raw_string(&characters, at).unwrap_or(at + 1);
            }
            '\'' => {
                let is_character = get(at + 1) == '\\' || get(at + 2) == '\'';
                at += 1;
                if is_character {
                    at += if get(at) == '\\' { 2 } else { 1 };
                    while at < characters.len() && get(at) != '\'' {
                        at += 1;
                    }
                    at += 1;
                } else {
                    while get(at).is_alphanumeric() || get(at) == '_' {
                        at += 1;
                    }
                }
            }
            ':' if get(at + 1) == ':' => {
                tokens.push(Token { text: "::".into(), line });
                at += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                while get(at).is_alphanumeric() || get(at) == '_' {
                    at += 1;
                }
                tokens.push(Token { text: characters[begin..at].iter().collect(), line });
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.into(), line });
                }
                at += 1;
            }
        }
        line += characters[begin..at.min(characters.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Past the end of the string that begins at a quote.
fn string_end(characters: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < characters.len() && characters[at] != '"' {
        at += if characters[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Past the end of the raw or byte string that begins here, if one does.
fn raw_string(characters: &[char], begin: usize) -> Option<usize> {
    let mut at = begin;
    if characters.get(at) == Some(&'b') {
        at += 1;
    }
    let is_raw = characters.get(at) == Some(&'r');
    if is_raw {
        at += 1;
    }
    let hashes = characters[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if characters.get(at) != Some(&'"') || (hashes > 0 && !is_raw) {
        return None;
    }
    if !is_raw {
        return Some(string_end(characters, at));
    }
    at += 1;
    while at < characters.len() {
        let closes = characters[at] == '"'
            && characters[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        if closes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

/// Past a pair of square brackets.
fn skip_brackets(tokens: &[Token], at: &mut usize) {
    let mut depth = 0;
    while *at < tokens.len() {
        match tokens[*at].text.as_str() {
            "[" => depth += 1,
            "]" => depth -= 1,
            _ => (),
        }
        *at += 1;
        if depth == 0 {
            return;
        }
    }
}

/// Past an item, its further attributes included.
fn skip_item(tokens: &[Token], at: &mut usize) {
    while tokens.get(*at).is_some_and(|token| token.text == "#") {
        *at += 1;
        skip_brackets(tokens, at);
    }
    let (mut depth, mut is_use) = (0, false);
    while *at < tokens.len() {
        let text = tokens[*at].text.as_str();
        *at += 1;
        match text {
            "use" if depth == 0 => is_use = true,
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 && !is_use {
                    return;
                }
            }
            ";" if depth == 0 => return,
            _ => (),
        }
    }
}
