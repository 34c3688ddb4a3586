//! A tokenizer.json, checked before it reaches the tokenizers library.
//!
//! JSON in, the library's tokenizer out. The library trusts what a file claims: it panics, aborts or takes memory without end
//! on sizes, ids and rewriting rules that no real tokenizer has. What can be checked is checked here, patterns are translated
//! for this crate's regex engine, and what remains is caught by [`super::library_guard`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::library_guard::caught;
use super::patterns;
use crate::artifact::check_values;

/// The largest tokenizer.json read, in bytes: several times the largest of the hub.
pub(crate) const MAX_BYTES: u64 = 160 << 20;

/// Values of a tokenizer.json, at most: the largest vocabularies, with their merges, have some two million.
const MOST_VALUES: usize = 8_000_000;

/// Largest token id: several times the largest vocabulary of the hub.
pub(crate) const MAX_ID: u64 = 1 << 24;

/// Deepest nesting of `Sequence`; the library tries each level twice.
const MAX_NESTING: usize = 4;

/// Most steps of a normalizer, a pre-tokenizer, a post-processor or a decoder.
const MAX_STEPS: usize = 64;

/// Most bytes that a text may grow to, for each of its own, by rewriting rules.
const MAX_GROWTH: usize = 256;

/// Longest text that a rule inserts, in bytes.
const MAX_INSERTED: usize = 1024;

/// Most special tokens around a text.
const MAX_AROUND: usize = 1024;

/// Longest word that WordPiece takes apart, in characters; it tries every part of it.
const MAX_WORD: u64 = 1000;

/// A tokenizer, and the tokens that its file adds to the model's.
pub(crate) struct Loaded {
    pub tokenizer: Tokenizer,
    pub added: Vec<AddedToken>,
}

/// Parses, checks and loads a tokenizer.json. `adjust` changes it first; `added` maps what that found and the file's own added
/// tokens (with their ids) to those to add.
///
/// # Errors
/// What is wrong with it, as text.
pub(crate) fn load<C>(
    bytes: &[u8],
    adjust: impl FnOnce(&mut Map<String, Value>) -> Result<C, String>,
    added: impl FnOnce(C, Vec<(u64, AddedToken)>) -> Vec<AddedToken>,
) -> Result<Loaded, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{} bytes, above the limit of {MAX_BYTES}", bytes.len()));
    }
    check_values(bytes, MOST_VALUES)?;
    let json: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let Value::Object(mut file) = json else { return Err("JSON that is not an object".into()) };
    // Texts are neither cut nor padded.
    file.insert("truncation".into(), Value::Null);
    file.insert("padding".into(), Value::Null);
    let listed = match file.insert("added_tokens".into(), Value::Array(Vec::new())) {
        None | Some(Value::Null) => Vec::new(),
        Some(list) => added_tokens(list)?,
    };
    let adjusted = adjust(&mut file)?;
    model(file.get("model").unwrap_or(&Value::Null))?;
    let mut growth = 1;
    for part in ["normalizer", "pre_tokenizer"] {
        if let Some(part) = file.get_mut(part) {
            rewriting(part, &mut growth)?;
        }
    }
    if let Some(decoder) = file.get_mut("decoder") {
        rewriting(decoder, &mut 1)?;
    }
    if let Some(post_processor) = file.get("post_processor") {
        around(post_processor)?;
    }
    let added = added(adjusted, listed);
    let load = || -> Result<Tokenizer, String> {
        let mut tokenizer: Tokenizer =
            serde_json::from_value(Value::Object(file)).map_err(|error| error.to_string())?;
        tokenizer.add_tokens(added.iter().cloned()).map_err(|error| error.to_string())?;
        Ok(tokenizer)
    };
    let tokenizer = caught(load)??;
    // The id of an added token is one that the library counted.
    match tokenizer.get_vocab_size(true) as u64 {
        size if size > MAX_ID => Err(format!("{size} tokens, above the limit of {MAX_ID}")),
        _ => Ok(Loaded { tokenizer, added }),
    }
}

/// The library's added tokens, with their ids, of the file's list.
fn added_tokens(list: Value) -> Result<Vec<(u64, AddedToken)>, String> {
    let Value::Array(list) = list else { return Err("added_tokens that are not a list".into()) };
    let token = |value: Value| {
        let id = value["id"].as_u64().filter(|id| *id <= MAX_ID);
        let id = id.ok_or_else(|| {
            format!("an added token with the id {}; ids go from 0 to {MAX_ID}", value["id"])
        })?;
        let token: AddedToken =
            serde_json::from_value(value).map_err(|error| format!("added_tokens: {error}"))?;
        Ok((id, token))
    };
    list.into_iter().map(token).collect()
}

/// Checks the sizes of a model.
fn model(model: &Value) -> Result<(), String> {
    let Value::Object(model) = model else { return Err("no model".into()) };
    match model.get("vocab") {
        Some(Value::Object(vocabulary)) => {
            for (token, id) in vocabulary {
                if id.as_u64().is_none_or(|id| id > MAX_ID) {
                    return Err(format!("the token {token:?} with the id {id}; ids go from 0 to {MAX_ID}"));
                }
            }
        }
        Some(Value::Array(vocabulary)) => {
            // The library would search for an empty piece without end.
            if vocabulary.iter().any(|piece| piece[0] == "") {
                return Err("an empty piece in the vocabulary".into());
            }
        }
        _ => return Err("no vocabulary".into()),
    }
    if model.get("dropout").and_then(Value::as_f64).is_some_and(|dropout| dropout > 0.0) {
        return Err(format!("dropout {}, which cuts a text otherwise each time", model["dropout"]));
    }
    if let Some(longest) = model.get("max_input_chars_per_word")
        && longest.as_u64().is_none_or(|longest| longest > MAX_WORD)
    {
        return Err(format!("max_input_chars_per_word {longest}, above the limit of {MAX_WORD}"));
    }
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    if let Some(Value::Array(merges)) = model.get("merges")
        && !prefix.is_empty()
    {
        for merge in merges {
            let right = match merge {
                Value::String(both) => both.split_once(' ').map(|(_, right)| right),
                pair => pair[1].as_str(),
            };
            if !right.is_some_and(|right| right.starts_with(prefix)) {
                return Err(format!("the merge {merge}, whose second part does not begin with {prefix:?}"));
            }
        }
    }
    Ok(())
}

/// A check of one step.
type Visit<'a> = dyn FnMut(&mut Map<String, Value>) -> Result<(), String> + 'a;

/// The steps of a part: itself, or those of its `Sequence`s.
fn for_each_step(part: &mut Value, depth: usize, count: &mut usize, visit: &mut Visit) -> Result<(), String> {
    let Value::Object(step) = part else {
        return if part.is_null() { Ok(()) } else { Err("a step that is not an object".into()) };
    };
    *count += 1;
    if *count > MAX_STEPS || depth > MAX_NESTING {
        return Err(format!("more than {MAX_STEPS} steps, or nested more than {MAX_NESTING} deep"));
    }
    for list in ["normalizers", "pretokenizers", "processors", "decoders"] {
        if let Some(Value::Array(steps)) = step.get_mut(list) {
            for step in steps {
                for_each_step(step, depth + 1, count, visit)?;
            }
        }
    }
    visit(step)
}

/// Checks the rules of a normalizer, pre-tokenizer or decoder that rewrite text, and translates their patterns. `growth` is
/// the most bytes that one byte becomes.
fn rewriting(part: &mut Value, growth: &mut usize) -> Result<(), String> {
    for_each_step(part, 0, &mut 0, &mut |step| {
        let kind = step.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let inserted = ["content", "prepend", "replacement", "prefix", "suffix"];
        let longest =
            inserted.iter().filter_map(|key| step.get(*key)?.as_str()).map(str::len).max().unwrap_or(0);
        if longest > MAX_INSERTED {
            return Err(format!("{kind} inserts {longest} bytes, above the limit of {MAX_INSERTED}"));
        }
        let mut factor = 1;
        if let Some(pattern) = step.get_mut("pattern") {
            let replaces = kind == "Replace" || kind.is_empty();
            factor = if replaces { longest.max(1) } else { 1 };
            if let Some(Value::String(text)) = pattern.get("String") {
                // An empty text is found before every character.
                factor = if replaces {
                    longest.div_ceil(text.len().max(1)).max(1) + usize::from(text.is_empty())
                } else {
                    1
                };
            }
            if let Some(Value::String(regex)) = pattern.get_mut("Regex") {
                *regex = patterns::translate(regex)
                    .map_err(|problem| format!("in the pattern {regex:?}: {problem}"))?;
                factor += usize::from(replaces);
            }
        }
        if kind == "ByteLevel" {
            factor = 2;
        }
        if let Some(length) =
            step.get("length").filter(|length| length.as_u64().is_none_or(|length| length == 0))
        {
            return Err(format!("pieces of a fixed length of {length}"));
        }
        if let Some(map) = step.get("precompiled_charsmap") {
            factor = charsmap(map.as_str().unwrap_or_default())?.max(1);
        }
        *growth = growth.saturating_mul(factor);
        if *growth > MAX_GROWTH {
            return Err(format!("rules by which a text grows more than {MAX_GROWTH} times"));
        }
        Ok(())
    })
}

/// Checks a precompiled character map, `[bytes of the trie: u32, trie, texts that end with NUL]` in base 64, and gives the
/// length of its longest text.
fn charsmap(text: &str) -> Result<usize, String> {
    let wrong = |found: &str| format!("a precompiled character map {found}");
    let bytes = STANDARD.decode(text).map_err(|error| wrong(&format!("that is not base 64 ({error})")))?;
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Err(wrong("without a header")) };
    match u32::from_le_bytes(*head) as usize {
        0 => Err(wrong("with an empty trie")),
        trie if trie % 4 != 0 || trie > rest.len() => {
            Err(wrong(&format!("that claims {trie} bytes and has {}", rest.len())))
        }
        trie => Ok(rest[trie..].split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0)),
    }
}

/// Checks the special tokens that a post-processor puts around a text.
fn around(part: &Value) -> Result<(), String> {
    let mut total = 0;
    for_each_step(&mut part.clone(), 0, &mut 0, &mut |step| {
        let tokens = step.get("special_tokens").and_then(Value::as_object);
        for (name, token) in tokens.into_iter().flatten() {
            let length = |key: &str| token[key].as_array().map_or(0, Vec::len);
            if length("ids") != length("tokens") {
                let found = format!("{} ids and {} tokens", length("ids"), length("tokens"));
                return Err(format!("the special token {name:?} of the post-processor has {found}"));
            }
        }
        let mut texts = 0;
        for piece in step.get("single").and_then(Value::as_array).into_iter().flatten() {
            if let Some(sequence) = piece.get("Sequence") {
                texts += 1;
                if sequence["id"] != "A" || texts > 1 {
                    return Err("a template for a single text that names a second one".into());
                }
            } else if let Some(id) = piece["SpecialToken"]["id"].as_str() {
                let Some(token) = tokens.and_then(|tokens| tokens.get(id)) else {
                    return Err(format!("a template with {id:?}, which is none of its special tokens"));
                };
                total += token["ids"].as_array().map_or(0, Vec::len);
            }
        }
        match total {
            total if total > MAX_AROUND => {
                Err(format!("{total} special tokens around a text, above the limit of {MAX_AROUND}"))
            }
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::added_tokens::TokenFiles;
    use super::super::tokenizer::Vocabulary;
    use super::*;

    /// A tokenizer of two words with one part replaced.
    fn with(part: &str, value: Value) -> Value {
        let mut file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
        });
        file[part] = value;
        file
    }

    /// The error of a file, at once or when it reads or writes a text.
    fn error(file: &Value) -> String {
        let read = |text: &str| {
            let files = TokenFiles::default();
            let vocabulary = Vocabulary::new(&serde_json::to_vec(file).unwrap(), "tokenizer.json", &files)?.0;
            let pieces = vocabulary.encode(text, &[], true)?;
            let ids: Vec<u32> = pieces.iter().map(|piece| piece.id).collect();
            vocabulary.decode(&ids, false)
        };
        let error = read("how to help a friend").expect_err(&file.to_string()).to_string();
        assert!(error.starts_with("tokenizer.json: ") && error.lines().count() == 1, "{error}");
        error
    }

    #[test]
    fn what_would_break_the_library_is_refused_in_one_line() {
        let word = |vocab: Value| json!({"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"});
        let bpe = |prefix: &str, id: u64, merges: Value| json!({"type": "BPE", "continuing_subword_prefix": prefix, "vocab": {"h": 0, "o": 1, "ho": id}, "merges": merges});
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "normalizers": steps});
        let nested = (0..20).fold(json!({"type": "NFC"}), |inner, _| sequence(vec![inner]));
        let around = |single: Value, ids: Vec<u32>| {
            let tokens = vec!["x"; ids.len()];
            json!({"type": "TemplateProcessing", "single": single, "pair": [],
                   "special_tokens": {"x": {"id": "x", "ids": ids, "tokens": tokens}}})
        };
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let special = json!({"SpecialToken": {"id": "x", "type_id": 0}});
        for (file, expected) in [
            (with("pre_tokenizer", json!({"type": "FixedLength", "length": 0})), "fixed length of 0"),
            (
                with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""})),
                "without a header",
            ),
            (
                with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="})),
                "empty trie",
            ),
            (
                with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="})),
                "claims 4294967295 bytes",
            ),
            (with("model", word(json!({"a": 4_294_967_295_u64, "[UNK]": 1}))), "the id 4294967295"),
            (with("model", word(json!({"a": -1}))), "the id -1"),
            (with("model", word(json!(3))), "no vocabulary"),
            (with("model", bpe("##", 2, json!([["h", "o"]]))), "does not begin with \"##\""),
            (with("model", bpe("", 1 << 40, json!([["h", "o"]]))), "the id 1099511627776"),
            (with("model", json!({"type": "BPE", "dropout": 1.0, "vocab": {}, "merges": []})), "dropout 1"),
            (
                with("model", json!({"type": "Unigram", "unk_id": 0, "vocab": [["", 0.0], ["a", -1.0]]})),
                "an empty piece",
            ),
            (
                with(
                    "model",
                    json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                                  "max_input_chars_per_word": 1_000_000_000, "vocab": {"[UNK]": 0}}),
                ),
                "max_input_chars_per_word",
            ),
            (
                with("normalizer", replace(json!({"String": ""}), &"e".repeat(100_000))),
                "inserts 100000 bytes",
            ),
            (
                with("normalizer", sequence(vec![replace(json!({"Regex": "^|$"}), "aaaaaaaaaa"); 4])),
                "grows more than",
            ),
            (with("normalizer", sequence(vec![json!({"type": "ByteLevel"}); 20])), "grows more than"),
            (with("normalizer", sequence(vec![json!({"type": "NFC"}); 100])), "more than 64 steps"),
            (with("normalizer", nested), "nested more than 4 deep"),
            (
                with(
                    "pre_tokenizer",
                    json!({"type": "Split", "pattern": {"Regex": "(".repeat(50_000)}, "behavior": "Isolated", "invert": false}),
                ),
                "in the pattern",
            ),
            (with("post_processor", around(json!([special, text("B")]), vec![1])), "names a second one"),
            (with("post_processor", around(json!([text("A"), text("A")]), vec![1])), "names a second one"),
            (
                with("post_processor", around(json!([special, text("A")]), vec![1; 2000])),
                "2000 special tokens around",
            ),
            (
                with(
                    "post_processor",
                    json!({"type": "TemplateProcessing", "single": [special, text("A")], "pair": [], "special_tokens": {}}),
                ),
                "none of its special tokens",
            ),
            (with("added_tokens", json!([{"id": -1, "content": "x"}])), "an added token with the id -1"),
            (with("added_tokens", json!({"x": 1})), "not a list"),
        ] {
            let error = error(&file);
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        }
    }
}
