//! Tokenizer files of a checkpoint folder: tokenizer, chat template, names of special tokens, end-of-sequence ids.
//!
//! A folder in, file contents and their paths out, whichever version of transformers wrote the folder.

use std::path::Path;

use serde_json::Value;

use crate::artifact::refuse_lfs_pointer;
use crate::error::{Error, Result};

/// The bytes of `tokenizer.json`, and its path.
pub(crate) fn tokenizer(folder: &Path) -> Result<(Vec<u8>, String)> {
    let path = folder.join("tokenizer.json");
    if path.is_file() {
        let bytes = std::fs::read(&path).map_err(Error::file(&path))?;
        refuse_lfs_pointer(&path, &bytes)?;
        return Ok((bytes, path.display().to_string()));
    }
    let older =
        ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.tiktoken"];
    let present: Vec<&str> = older.into_iter().filter(|name| folder.join(name).is_file()).collect();
    let found = match present.is_empty() {
        true => "no such file".into(),
        false => format!("no such file, only {}", present.join(", ")),
    };
    let expected =
        "a tokenizer.json, as AutoTokenizer.from_pretrained(…).save_pretrained(…) of transformers writes it";
    Err(Error::input(path.display(), found, expected))
}

/// The chat template and its path; `None` if the folder has none. Looked for in `chat_template.jinja`,
/// `additional_chat_templates/default.jinja`, `chat_template.json`, then `tokenizer_config.json` (text, or a list of named
/// templates).
///
/// # Errors
/// Several templates, none of them named `default`.
pub(crate) fn template(folder: &Path) -> Result<Option<(String, String)>> {
    for name in ["chat_template.jinja", "additional_chat_templates/default.jinja"] {
        let path = folder.join(name);
        if let Some(source) = read_optional(&path)? {
            return Ok(Some((source, path.display().to_string())));
        }
    }
    for name in ["chat_template.json", "tokenizer_config.json"] {
        let path = folder.join(name);
        let place = path.display().to_string();
        if let Some(source) = default_template(&json(&path)?["chat_template"], &place)? {
            return Ok(Some((source.into(), place)));
        }
    }
    Ok(None)
}

/// A template from the file that `--chat-template` names, and its path: Jinja, or JSON as [`template`] reads it.
pub(crate) fn template_file(path: &Path) -> Result<(String, String)> {
    let place = path.display().to_string();
    let text = std::fs::read(path).map_err(Error::file(path))?;
    let text = String::from_utf8(text)
        .map_err(|_| Error::input(&place, "bytes that are not UTF-8", "a chat template, as text"))?;
    if path.extension().is_some_and(|extension| extension == "json") {
        let json: Value = serde_json::from_str(&text).map_err(|error| Error::input(&place, error, "JSON"))?;
        let source = default_template(&json["chat_template"], &place)?;
        let missing = || Error::input(&place, "no chat_template", "one, as in tokenizer_config.json");
        return Ok((source.ok_or_else(missing)?.into(), place));
    }
    Ok((text, place))
}

/// Names and text of special tokens: `"eos_token": "</s>"`, `"eos_token": {"content": "</s>", …}`, and those of
/// `extra_special_tokens`.
pub(crate) fn named_tokens(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut named: Vec<(String, String)> = Vec::new();
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let config = json(&folder.join(file))?;
        let entries =
            [&config, &config["extra_special_tokens"]].into_iter().filter_map(Value::as_object).flatten();
        for (name, entry) in entries.filter(|(name, _)| name.ends_with("_token")) {
            let text = entry.as_str().or_else(|| entry["content"].as_str());
            if let Some(text) = text.filter(|_| !named.iter().any(|(known, _)| known == name)) {
                named.push((name.clone(), text.into()));
            }
        }
    }
    Ok(named)
}

/// End-of-sequence ids from `generation_config.json` and `config.json`.
pub(crate) fn eos(folder: &Path) -> Result<Vec<u32>> {
    let mut eos = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        let config = json(&folder.join(name))?;
        let ids = match &config["eos_token_id"] {
            Value::Null => &config["text_config"]["eos_token_id"],
            ids => ids,
        };
        let ids = match ids {
            Value::Array(list) => list.iter().filter_map(Value::as_u64).collect(),
            one => Vec::from_iter(one.as_u64()),
        };
        eos.extend(ids.into_iter().filter_map(|id| u32::try_from(id).ok()));
    }
    Ok(eos)
}

/// The text of a file that may be missing.
fn read_optional(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path)(error)),
    }
}

/// The JSON of a file that may be missing: then null.
fn json(path: &Path) -> Result<Value> {
    let Some(text) = read_optional(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_str(&text).map_err(|error| Error::input(path.display(), error, "JSON"))
}

/// A `chat_template` entry: text, or a list of `{"name", "template"}` with one named `default`.
fn default_template<'a>(entry: &'a Value, place: &str) -> Result<Option<&'a str>> {
    let expected = "text, or a list of {name, template} with one named default; or --chat-template FILE";
    match entry {
        Value::Null => Ok(None),
        Value::String(source) => Ok(Some(source)),
        Value::Array(list) if list.is_empty() => Ok(None),
        Value::Array(list) => {
            let default = list.iter().find(|one| one["name"] == "default");
            let named = || list.iter().filter_map(|one| one["name"].as_str()).collect::<Vec<_>>().join(", ");
            let missing =
                || Error::input(place, format!("chat templates without a default ({})", named()), expected);
            default.and_then(|one| one["template"].as_str()).map(Some).ok_or_else(missing)
        }
        _ => Err(Error::input(place, "a chat_template that is not text or a list", expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn templates_are_found_in_every_layout() {
        let found =
            |files: &[(&str, &str)]| template(folder(files).path()).map(|found| found.map(|(text, _)| text));
        let of = |text: &str| Some(text.to_owned());
        let text = ("tokenizer_config.json", r#"{"chat_template": "a"}"#);
        let list = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "b"}]}"#;
        assert_eq!(found(&[]).unwrap(), None);
        assert_eq!(found(&[text]).unwrap(), of("a"));
        assert_eq!(found(&[("tokenizer_config.json", list)]).unwrap(), of("b"));
        assert_eq!(found(&[text, ("chat_template.json", r#"{"chat_template": "c"}"#)]).unwrap(), of("c"));
        let tool = ("additional_chat_templates/tool_use.jinja", "t");
        assert_eq!(found(&[text, tool, ("chat_template.jinja", "d")]).unwrap(), of("d"));
        let error =
            found(&[("tokenizer_config.json", &list.replace("default", "rag"))]).unwrap_err().to_string();
        assert!(error.contains("tool_use, rag") && error.contains("--chat-template FILE"), "{error}");
    }

    #[test]
    fn tokens_have_names_as_text_or_as_objects() {
        let config = r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null, "x": 1,
                         "extra_special_tokens": {"image_token": "<image>"}}"#;
        let map = r#"{"eos_token": "other", "pad_token": {"content": "<pad>"}}"#;
        let folder = folder(&[("tokenizer_config.json", config), ("special_tokens_map.json", map)]);
        let named = named_tokens(folder.path()).unwrap();
        let named: Vec<(&str, &str)> =
            named.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let expected =
            [("bos_token", "<s>"), ("eos_token", "</s>"), ("image_token", "<image>"), ("pad_token", "<pad>")];
        assert_eq!(named, expected);
    }

    #[test]
    fn a_folder_without_a_tokenizer_says_what_it_has() {
        let error =
            tokenizer(folder(&[("vocab.json", "{}"), ("merges.txt", "")]).path()).unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.json: no such file, only vocab.json, merges.txt; expected"),
            "{error}"
        );
    }
}
