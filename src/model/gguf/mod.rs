//! Models in GGUF files: one file, or the parts of a split one.
//!
//! A path in; config, tokenizer, chat template and weights out, as the same model has them on the hub, with tensors under
//! the hub's names.

mod config;
mod delta_names;
mod families;
mod fields;
mod keys;
mod latent_names;
mod merges;
mod mixed_blocks;
mod names;
mod pre_tokenizers;
mod row_order;
pub(in crate::model) mod split;
mod tokenizer;

use std::path::{Path, PathBuf};

use super::chat::Chat;
use super::families::Config;
use super::weights::Weights;
use crate::artifact::GgufFile;
use crate::error::{Error, Result};
use split::Files;
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

/// Opens a file; of a split model, the path of any part.
///
/// # Errors
/// A file that isn't a complete GGUF file; a missing part; an unknown architecture or tokenizer.
pub fn open(path: &Path) -> Result<Parts> {
    let files = Files::open(path)?;
    let (config, names) = config::config(&files)?;
    let chat = chat(&files.first)?;
    let predicting = names.predicting.clone();
    let weights =
        Weights::translated(files.without_metadata(), Box::new(move |place| names.translate(place)))?;
    let weights = weights.without(|name| names::block(name).is_some_and(|block| predicting.contains(&block)));
    Ok(Parts { config, chat, weights })
}

/// The GGUF file of a path: the path itself, or the only model in GGUF in a folder without safetensors.
///
/// # Errors
/// A folder with several GGUF files that are not the parts of one model.
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
        [first, ..] if split::first_of_one(&names(&found)).is_some() => Ok(Some(first.clone())),
        [first, ..] => {
            let expected = format!("one, or the path of one, as {}", first.display());
            Err(Error::input(path.display(), format!("{} GGUF files", found.len()), expected))
        }
    }
}

/// The names of some files; a name that is no text is none of a part.
fn names(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default()).collect()
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
    Ok(chat.ending_with(vocabulary.ends()?).at(file.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::Dialogue;

    #[test]
    fn a_sentencepiece_vocabulary_cuts_text_as_sentencepiece_does() {
        #[derive(serde::Deserialize)]
        struct Case {
            text: String,
            ids: Vec<u32>,
        }
        // Of pieces with scores, and of letters with merges, as Gemma 4 has them.
        for name in ["pieces", "merged"] {
            let path = format!("tests/fixtures/gguf/{name}");
            let chat = chat(&GgufFile::open(Path::new(&format!("{path}.gguf"))).unwrap()).unwrap();
            let cases = std::fs::read(format!("{path}.json")).unwrap();
            for Case { text, ids } in serde_json::from_slice::<Vec<Case>>(&cases).unwrap() {
                let dialogue = Dialogue::prompt("0", &text);
                let found: Vec<u32> =
                    chat.tokens(&dialogue, 0, None).unwrap().into_iter().map(|token| token.id).collect();
                assert_eq!(found, ids, "{text:?}");
                assert_eq!(chat.decode(&ids, true).unwrap(), text);
            }
        }
    }

    const PIECES: [&str; 12] = [
        "<unk>",
        "<s>",
        "</s>",
        "<|user|>",
        "<|end|>",
        "<|assistant|>",
        "<0x0A>",
        "▁",
        "h",
        "i",
        "hi",
        "▁hi",
    ];

    /// A file of metadata alone: text, numbers, and lists of them.
    fn file(name: &str, pieces: [&str; 12]) -> tempfile::NamedTempFile {
        let mut bytes = Vec::new();
        let mut count = 0u64;
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        for (key, value) in
            [("general.architecture", "phi3"), ("general.name", name), ("tokenizer.ggml.model", "llama")]
        {
            text(&mut bytes, key);
            bytes.extend(8u32.to_le_bytes());
            text(&mut bytes, value);
            count += 1;
        }
        let kinds = [2, 3, 3, 3, 3, 3, 6, 1, 1, 1, 1, 1];
        let list = |bytes: &mut Vec<u8>, key: &str, kind: u32| {
            text(bytes, key);
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend((pieces.len() as u64).to_le_bytes());
        };
        list(&mut bytes, "tokenizer.ggml.tokens", 8);
        pieces.iter().for_each(|piece| text(&mut bytes, piece));
        list(&mut bytes, "tokenizer.ggml.token_type", 5);
        kinds.iter().for_each(|kind: &i32| bytes.extend(kind.to_le_bytes()));
        list(&mut bytes, "tokenizer.ggml.scores", 6);
        (0..pieces.len()).for_each(|at| bytes.extend((at as f32).to_le_bytes()));
        count += 3;
        let head = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &count.to_le_bytes()].concat();
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), [head, bytes].concat()).unwrap();
        file
    }

    /// llama.cpp reads Phi-3's special tokens with the space after them, by the model's name; of "Hello there" under its template it
    /// makes 32010 15043 727 32007 32001, without a token for a line feed.
    #[test]
    fn a_model_named_phi_3_takes_the_space_after_its_special_tokens() {
        let template =
            "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n";
        let ids = |name: &str| -> Vec<u32> {
            let file = file(name, PIECES);
            let chat = chat(&GgufFile::open(file.path()).unwrap()).unwrap();
            let chat = chat.with_template(template, "template").unwrap();
            chat.tokens(&Dialogue::prompt("0", "hi"), 0, None).unwrap().iter().map(|token| token.id).collect()
        };
        assert_eq!(ids("Phi-3 Mini 4k Instruct"), [3, 11, 4, 5]);
        assert_eq!(ids("phi3"), [3, 11, 4, 5]);
        // Elsewhere a space and a line feed follow each; Jinja leaves out the template's last line feed.
        assert_eq!(ids("another"), [3, 7, 6, 10, 4, 7, 6, 5]);
    }

    /// In llama.cpp too, `<|end|>` ends an answer elsewhere, and in gpt-oss a channel.
    #[test]
    fn an_answer_of_gpt_oss_goes_on_after_a_channel() {
        let ends = |pieces| {
            let file = file("model", pieces);
            Vocabulary::new(&GgufFile::open(file.path()).unwrap()).unwrap().ends().unwrap()
        };
        assert_eq!(ends(PIECES), [4]);
        let mut harmony = PIECES;
        (harmony[2], harmony[3]) = ("<|return|>", "<|call|>");
        assert_eq!(ends(harmony), [2, 3]);
    }

    /// `scripts/real_chat.sh` fetches the vocabularies and runs this: texts and their ids as llama.cpp publishes them.
    #[test]
    #[ignore = "needs a folder of vocabularies in PEARL_VOCABULARIES"]
    fn published_vocabularies_cut_text_as_llama_cpp_does() {
        let folder = std::env::var("PEARL_VOCABULARIES").unwrap();
        let mut wrong = Vec::new();
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "gguf")) {
            let beside = |end: &str| std::fs::read_to_string(format!("{}.{end}", path.display()));
            let chat = match GgufFile::open(path).and_then(|file| chat(&file)) {
                Ok(chat) => chat,
                Err(error) => {
                    println!("{}: refused: {error}", path.display());
                    continue;
                }
            };
            let (Ok(texts), Ok(ids)) = (beside("inp"), beside("out")) else {
                println!("{}: read, without texts", path.display());
                continue;
            };
            let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
            let lines: Vec<&str> = ids.lines().collect();
            // The models' own tokenizers compose letters with marks (NFC); llama.cpp does not.
            let is_mark = |letter: char| ('\u{300}'..'\u{370}').contains(&letter);
            let mut right = 0;
            for (text, line) in texts.iter().zip(&lines).filter(|(text, _)| !text.contains(is_mark)) {
                let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
                match chat.encode(text) {
                    Ok(found) if found == expected => right += 1,
                    found => wrong.push(format!("{}: {text:?}: {found:?}, not {expected:?}", path.display())),
                }
            }
            println!("{}: {right} of {}", path.display(), lines.len());
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
