//! Models in one GGUF file.
//!
//! A path in; config, tokenizer, chat template and weights out, as the same model has them on the hub, with tensors under
//! the hub's names.

mod config;
mod merges;
mod names;
mod pre_tokenizers;
mod tokenizer;

use std::path::{Path, PathBuf};

use super::chat::Chat;
use super::families::Config;
use super::weights::Weights;
use crate::artifact::GgufFile;
use crate::error::{Error, Result};
use tokenizer::Vocabulary;

/// Parts of a model.
pub struct Parts {
    /// The config that the hub has for this model.
    pub config: Config,
    /// Tokenizer and chat template.
    pub chat: Chat,
    /// Weights, under the hub's tensor names.
    pub weights: Weights,
}

/// Opens a file.
///
/// # Errors
/// A file that isn't a complete GGUF file; an unknown architecture or tokenizer.
pub fn open(path: &Path) -> Result<Parts> {
    let file = GgufFile::open(path)?;
    if let Some(parts) = file.count("split.count")?.filter(|parts| *parts > 1) {
        return Err(file.wrong(format!("one of {parts} parts"), "a whole model (llama-gguf-split --merge)"));
    }
    let (config, names) = config::config(&file)?;
    let chat = chat(&file)?;
    let weights =
        Weights::translated(file.without_metadata(), Box::new(move |place| names.translate(place)))?;
    Ok(Parts { config, chat, weights })
}

/// The GGUF file of a path: the path itself, or the only GGUF file in a folder without safetensors.
///
/// # Errors
/// A folder with several GGUF files.
pub fn find(path: &Path) -> Result<Option<PathBuf>> {
    let is_gguf =
        |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if path.is_file() {
        return Ok(is_gguf(path).then(|| path.to_owned()));
    }
    let safetensors = ["model.safetensors", "model.safetensors.index.json"];
    if !path.is_dir() || safetensors.iter().any(|name| path.join(name).is_file()) {
        return Ok(None);
    }
    let entries = std::fs::read_dir(path).map_err(Error::file(path))?;
    let mut found: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_gguf(path)).collect();
    found.sort();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, ..] => {
            let expected = format!("one, or the path of one, as {}", first.display());
            Err(Error::input(path.display(), format!("{} GGUF files", found.len()), expected))
        }
    }
}

fn chat(file: &GgufFile) -> Result<Chat> {
    let vocabulary = Vocabulary::new(file)?;
    let json = vocabulary.json()?.to_string();
    let keys = [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
        ("sep_token", "seperator_token_id"),
        ("cls_token", "cls_token_id"),
        ("mask_token", "mask_token_id"),
    ];
    let mut named = Vec::new();
    for (name, key) in keys {
        named.extend(vocabulary.named(key)?.map(|id| (name, vocabulary.tokens[id])));
    }
    let template = file.text("tokenizer.chat_template")?;
    let in_file = |error: Error| match error {
        Error::Input { place, found, expected } => {
            Error::input(format!("{}: {place}", file.name()), found, expected)
        }
        other => other,
    };
    let chat = Chat::from_bytes(json.as_bytes(), template, &named).map_err(in_file)?;
    Ok(chat.ending_with(vocabulary.ends()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::{Dialogue, Message, Role};

    #[test]
    fn a_sentencepiece_vocabulary_cuts_text_as_sentencepiece_does() {
        #[derive(serde::Deserialize)]
        struct Case {
            text: String,
            ids: Vec<u32>,
        }
        let chat = chat(&GgufFile::open(Path::new("tests/fixtures/gguf/pieces.gguf")).unwrap()).unwrap();
        let cases = std::fs::read("tests/fixtures/gguf/pieces.json").unwrap();
        for Case { text, ids } in serde_json::from_slice::<Vec<Case>>(&cases).unwrap() {
            let dialogue = Dialogue {
                id: "0".into(),
                messages: vec![Message::new(Role::User, &text)],
                labels: Default::default(),
            };
            let found: Vec<u32> =
                chat.tokens(&dialogue, 0, None).unwrap().into_iter().map(|token| token.id).collect();
            assert_eq!(found, ids, "{text:?}");
            assert_eq!(chat.decode(&ids, true).unwrap(), text);
        }
    }
}
