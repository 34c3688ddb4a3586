//! Tokenizer files of a checkpoint folder: tokenizer, chat template, names of special tokens, end-of-sequence ids.
//!
//! A folder in, file contents and their paths out, whichever version of transformers wrote the folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::added_tokens::TokenFiles;
use super::tokenizer_json::{MAX_BYTES, MAX_ID};
use crate::artifact::{check_values, refuse_lfs_pointer};
use crate::error::{Error, Result};

/// The largest template or config read, in bytes.
const MAX_SMALL_BYTES: u64 = 32 << 20;

/// Values of a small JSON file, at most.
const MOST_VALUES: usize = 1_000_000;

/// The longest JSON value that an error quotes, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// The bytes of `tokenizer.json`, and its path.
pub(crate) fn tokenizer(folder: &Path) -> Result<(Vec<u8>, String)> {
    let path = folder.join("tokenizer.json");
    if let Some(bytes) = read_bounded(&path, MAX_BYTES)? {
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
    let missing = || Error::input(&place, "No such file", "a chat template in Jinja, or in JSON");
    let text = read_bounded(path, MAX_SMALL_BYTES)?.ok_or_else(missing)?;
    let text = String::from_utf8(text)
        .map_err(|_| Error::input(&place, "bytes that are not UTF-8", "a chat template, as text"))?;
    if path.extension().is_some_and(|extension| extension == "json") {
        let json = json(path)?;
        let source = default_template(&json["chat_template"], &place)?;
        let missing = || Error::input(&place, "no chat_template", "one, as in tokenizer_config.json");
        return Ok((source.ok_or_else(missing)?.into(), place));
    }
    Ok((text, place))
}

/// The files that add tokens to tokenizer.json and name special ones.
pub(crate) fn token_files(folder: &Path) -> Result<TokenFiles> {
    let read = |name: &str| json(&folder.join(name));
    let model = read("config.json")?;
    let files = TokenFiles {
        config: read("tokenizer_config.json")?,
        special: read("special_tokens_map.json")?,
        added: read("added_tokens.json")?,
        model_type: model["model_type"].as_str().unwrap_or_default().into(),
        model_class: model["tokenizer_class"].as_str().map(str::to_owned),
    };
    if files.config["split_special_tokens"] == true {
        let place = folder.join("tokenizer_config.json");
        let expected = "false: special tokens are tokens here";
        return Err(Error::input(place.display(), "split_special_tokens = true", expected));
    }
    let wrong = |(name, found): (&str, String)| {
        let expected = format!("tokens with ids from 0 to {MAX_ID}");
        Error::input(folder.join(name).display(), found, expected)
    };
    files.check_ids(MAX_ID).map_err(wrong)?;
    Ok(files)
}

/// End-of-sequence ids of `generation_config.json`, else of `config.json`, and the path of the file; `None` where neither
/// names one.
///
/// # Errors
/// An entry that isn't an id or a list of ids.
pub(crate) fn eos(folder: &Path) -> Result<Option<(Vec<u32>, String)>> {
    for name in ["generation_config.json", "config.json"] {
        let path = folder.join(name);
        let config = json(&path)?;
        let ids = match &config["eos_token_id"] {
            Value::Null => &config["text_config"]["eos_token_id"],
            Value::Array(list) if list.is_empty() => &config["text_config"]["eos_token_id"],
            ids => ids,
        };
        let shown = || ids.to_string().chars().take(MAX_SHOWN_CHARS).collect::<String>();
        let wrong = || {
            Error::input(path.display(), format!("eos_token_id {}", shown()), "a token id, or a list of them")
        };
        let id = |one: &Value| one.as_u64().and_then(|id| u32::try_from(id).ok());
        let listed: Option<Vec<u32>> = match ids {
            Value::Null => Some(Vec::new()),
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        let ids = listed.ok_or_else(wrong)?;
        if !ids.is_empty() {
            return Ok(Some((ids, path.display().to_string())));
        }
    }
    Ok(None)
}

/// The bytes of a file that may be missing, at most `limit` of them, whatever its size claims (`/dev/zero` has none).
fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file(path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::file(path))?;
    match bytes.len() as u64 {
        length if length > limit => {
            Err(Error::input(path.display(), format!("more than {limit} bytes"), "a file of a usual size"))
        }
        _ => Ok(Some(bytes)),
    }
}

/// The text of a file that may be missing.
fn read_optional(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_bounded(path, MAX_SMALL_BYTES)? else { return Ok(None) };
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| Error::input(path.display(), "bytes that are not UTF-8", "text"))
}

/// The object of a JSON file that may be missing: then null.
fn json(path: &Path) -> Result<Value> {
    let Some(text) = read_optional(path)? else {
        return Ok(Value::Null);
    };
    check_values(text.as_bytes(), MOST_VALUES)
        .map_err(|found| Error::input(path.display(), found, "a file of a usual size"))?;
    let found = match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(object @ Value::Object(_)) => return Ok(object),
        Ok(Value::Array(_)) => "a list".to_owned(),
        Ok(Value::String(_)) => "a text".into(),
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Error::input(path.display(), found, "a JSON object {…}"))
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
    fn the_first_file_that_names_ends_counts() {
        let ids = |files: &[(&str, &str)]| eos(folder(files).path()).unwrap().map(|(ids, _)| ids);
        let config = ("config.json", r#"{"eos_token_id": 1, "text_config": {"eos_token_id": 9}}"#);
        assert_eq!(
            ids(&[config, ("generation_config.json", r#"{"eos_token_id": [3, 2]}"#)]),
            Some(vec![3, 2])
        );
        assert_eq!(ids(&[config, ("generation_config.json", r#"{"eos_token_id": null}"#)]), Some(vec![1]));
        assert_eq!(ids(&[("config.json", r#"{"text_config": {"eos_token_id": [9]}}"#)]), Some(vec![9]));
        assert_eq!(ids(&[]), None);
        let empty = [r#"{"eos_token_id": []}"#, "{}"];
        for text in empty {
            assert_eq!(ids(&[config, ("generation_config.json", text)]), Some(vec![1]));
        }
    }

    #[test]
    fn ends_that_are_not_token_ids_are_refused_by_file_and_value() {
        let good = ("config.json", r#"{"eos_token_id": 1}"#);
        for value in
            [r#""1""#, "-1", "1.0", "true", "false", "[[1]]", r#"[1,"2"]"#, "[1,null]", "{}", "4294967296"]
        {
            let text = format!(r#"{{"eos_token_id": {value}}}"#);
            let error =
                eos(folder(&[good, ("generation_config.json", &text)]).path()).unwrap_err().to_string();
            let named = format!("generation_config.json: eos_token_id {value}; expected");
            assert!(error.contains(&named) && error.lines().count() == 1, "{value}: {error}");
            let inner = format!(r#"{{"text_config": {text}}}"#);
            let error = eos(folder(&[("config.json", &inner)]).path()).unwrap_err().to_string();
            assert!(error.contains(&format!("config.json: eos_token_id {value};")), "{value}: {error}");
        }
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
