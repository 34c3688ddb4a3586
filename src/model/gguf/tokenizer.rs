//! GGUF tokenizer metadata as a `tokenizer.json`: `tokenizer.ggml.*` in, the tokenizer that the same model has on the hub
//! out.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::merges::{self, Piece};
use super::pre_tokenizers::{Splits, splits};
use crate::artifact::{GgufFile, GgufValue};
use crate::error::Result;

/// The vocabulary of a file.
pub(super) struct Vocabulary<'a> {
    file: &'a GgufFile,
    /// Text of each token, by id.
    pub tokens: Vec<&'a str>,
    /// Type of each token; all normal if the file has none.
    kinds: Vec<usize>,
}

/// `llama_token_type`.
const NORMAL: usize = 1;
const UNKNOWN: usize = 2;
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;
const UNUSED: usize = 5;
const BYTE: usize = 6;

/// SentencePiece's character for a space.
const SPACE: char = '▁';

/// Texts of end-of-generation tokens, besides those that the file names; llama.cpp's list.
const ENDS: [&str; 14] = [
    "<|eot_id|>",
    "<|return|>",
    "<|call|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<|eos|>",
];

impl<'a> Vocabulary<'a> {
    /// Reads the vocabulary.
    ///
    /// # Errors
    /// No tokens; another number of types than of tokens.
    pub fn new(file: &'a GgufFile) -> Result<Vocabulary<'a>> {
        let Some(list) = file.list("tokenizer.ggml.tokens")? else {
            return Err(file.wrong("no tokenizer.ggml.tokens", "a model with its tokenizer"));
        };
        let text = |token: &'a GgufValue| match token {
            GgufValue::Text(text) => Some(text.as_str()),
            _ => None,
        };
        let tokens: Option<Vec<&str>> = list.iter().map(text).collect();
        let tokens = tokens.ok_or_else(|| file.wrong("tokens that are not text", "a list of texts"))?;
        let vocabulary = Vocabulary { file, kinds: vec![NORMAL; tokens.len()], tokens };
        let kinds = vocabulary.per_token("tokenizer.ggml.token_type")?;
        let kinds = kinds.map(|kinds| kinds.iter().map(|kind| kind.count().unwrap_or(NORMAL)).collect());
        Ok(Vocabulary { kinds: kinds.unwrap_or_else(|| vocabulary.kinds.clone()), ..vocabulary })
    }

    /// A list that must have one entry for each token.
    fn per_token(&self, key: &str) -> Result<Option<&'a [GgufValue]>> {
        let list = self.file.list(key)?;
        match list.filter(|list| list.len() != self.tokens.len()) {
            Some(list) => {
                let found = format!("{key} of {} for {} tokens", list.len(), self.tokens.len());
                Err(self.file.wrong(found, "one for each token"))
            }
            None => Ok(list),
        }
    }

    /// The token id at `tokenizer.ggml.{key}`.
    pub fn named(&self, key: &str) -> Result<Option<usize>> {
        let key = format!("tokenizer.ggml.{key}");
        let Some(id) = self.file.value(&key) else { return Ok(None) };
        // Some files write the largest value of the type for none.
        let id = id.count().filter(|id| *id != u32::MAX as usize && *id != u16::MAX as usize);
        match id {
            Some(id) if id >= self.tokens.len() => {
                let found = format!("{key} is {id}, and there are {} tokens", self.tokens.len());
                Err(self.file.wrong(found, "the id of a token"))
            }
            id => Ok(id),
        }
    }

    /// End-of-generation tokens.
    pub fn ends(&self) -> Result<Vec<u32>> {
        let keys = ["eos_token_id", "eot_token_id", "eom_token_id"].map(|key| self.named(key));
        let named = keys.into_iter().collect::<Result<Vec<_>>>()?;
        let has = |text: &str| (0..self.tokens.len()).any(|id| self.is_added(id) && self.tokens[id] == text);
        // In harmony, the format of gpt-oss, this ends a channel, not the answer.
        let within = if has("<|return|>") && has("<|call|>") { "<|end|>" } else { "" };
        let ends = |id: usize| ENDS.contains(&self.tokens[id]) && self.tokens[id] != within;
        let known = (0..self.tokens.len()).filter(|&id| self.is_added(id) && ends(id));
        Ok(named.into_iter().flatten().chain(known).map(|id| id as u32).collect())
    }

    /// Whether the token is matched in the text before pre-tokenization.
    fn is_added(&self, id: usize) -> bool {
        matches!(self.kinds[id], CONTROL | USER_DEFINED) && !self.tokens[id].is_empty()
    }

    /// The `tokenizer.json`.
    ///
    /// # Errors
    /// An unknown tokenizer model or pre-tokenizer; merges of unknown tokens.
    pub fn json(&self) -> Result<Value> {
        match self.file.text("tokenizer.ggml.model")? {
            Some("gpt2") => self.byte_level(),
            Some("llama" | "gemma" | "gemma4") => self.sentencepiece(),
            other => {
                let found = format!("tokenizer.ggml.model {:?}", other.unwrap_or_default());
                Err(self.file.wrong(found, "gpt2, llama or gemma4"))
            }
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.file.flag(&format!("tokenizer.ggml.{key}"))?.unwrap_or(default))
    }

    /// Completes a tokenizer.json with added tokens and the post-processor.
    fn completed(&self, parts: Value, begins: bool) -> Result<Value> {
        let Value::Object(mut whole) = parts else { return Ok(parts) };
        let added = (0..self.tokens.len()).filter(|&id| self.is_added(id) || self.kinds[id] == UNKNOWN);
        let strips = self.strips()?;
        let added = added.map(|id| {
            let [lstrip, rstrip] = strips.of(self.tokens[id]);
            // The unknown token is special: it has no text.
            let special = self.kinds[id] != USER_DEFINED;
            json!({"id": id, "content": self.tokens[id], "special": special, "single_word": false,
                   "lstrip": lstrip, "rstrip": rstrip, "normalized": false})
        });
        whole.insert("added_tokens".into(), added.collect());
        for (key, value) in [("version", json!("1.0")), ("truncation", Value::Null), ("padding", Value::Null)]
        {
            whole.insert(key.into(), value);
        }
        whole.insert("post_processor".into(), self.post_processor(begins)?);
        Ok(Value::Object(whole))
    }

    /// Which added tokens take the space beside them. Files don't say it: llama.cpp goes by the names of models
    /// (`llama_vocab::impl::load` in llama-vocab.cpp).
    fn strips(&self) -> Result<Strips> {
        let text = |key: &str| Ok(self.file.text(key)?.unwrap_or_default().to_lowercase());
        let [name, pre, architecture]: [Result<String>; 3] =
            ["general.name", "tokenizer.ggml.pre", "general.architecture"].map(text);
        let (name, pre, architecture) = (name?, pre?, architecture?);
        let has = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let masks = has(&pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
            || has(&architecture, &["nomic-bert-moe", "jina-bert-v3"]);
        Ok(match masks {
            true => Strips::Left("<mask>"),
            false if has(&name, &["phi-3", "phi3"]) => Strips::RightBut(&["<unk>", "<s>", "<|endoftext|>"]),
            false if has(&name, &["modern-bert"]) => Strips::Left("[MASK]"),
            false => Strips::None,
        })
    }

    /// The post-processor: special tokens around a text.
    fn post_processor(&self, begins: bool) -> Result<Value> {
        let bos = self.named("bos_token_id")?.filter(|_| begins);
        let eos = self.named("eos_token_id")?;
        let eos = if self.flag("add_eos_token", false)? { eos } else { None };
        if bos.or(eos).is_none() {
            return Ok(Value::Null);
        }
        let special = |id: usize| json!({"SpecialToken": {"id": self.tokens[id], "type_id": 0}});
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let around = |name: &str| {
            let parts = [bos.map(special), Some(text(name)), eos.map(special)];
            parts.into_iter().flatten().collect::<Vec<_>>()
        };
        let tokens = [bos, eos].into_iter().flatten().map(|id| {
            let token = self.tokens[id];
            (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}))
        });
        Ok(json!({
            "type": "TemplateProcessing", "single": around("A"), "pair": ([around("A"), around("B")].concat()),
            "special_tokens": tokens.collect::<Map<_, _>>(),
        }))
    }

    /// Byte-level BPE (GPT-2 and most models since).
    fn byte_level(&self) -> Result<Value> {
        let name = self.file.text("tokenizer.ggml.pre")?.unwrap_or("default");
        let Some(splits) = splits(name) else {
            let found = format!("tokenizer.ggml.pre {name:?}");
            return Err(self.file.wrong(found, "a known pre-tokenizer, such as llama-bpe or qwen2"));
        };
        let Splits { normalizer, whole_words, begins, .. } = splits;
        let mut vocabulary = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if self.kinds[id] != UNUSED && !vocabulary.contains_key(*token) {
                vocabulary.insert((*token).into(), json!(id));
            }
        }
        let merges = self.listed_merges(&vocabulary)?;
        let parts = json!({
            "normalizer": normalizer.map(|kind| json!({"type": kind})),
            "pre_tokenizer": splits.json(),
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": whole_words, "vocab": vocabulary, "merges": merges,
            },
        });
        self.completed(parts, self.flag("add_bos_token", begins)?)
    }

    /// The merges that the file lists, of tokens of the vocabulary.
    fn listed_merges(&self, vocabulary: &Map<String, Value>) -> Result<Vec<(&'a str, &'a str)>> {
        let Some(list) = self.file.list("tokenizer.ggml.merges")? else {
            return Err(self.file.wrong("no tokenizer.ggml.merges", "a vocabulary with its merges"));
        };
        let wrong =
            || self.file.wrong("a merge that is not of two tokens", "two tokens separated by a space");
        let mut merges = Vec::with_capacity(list.len());
        for merge in list {
            let GgufValue::Text(merge) = merge else { return Err(wrong()) };
            // The separator is the first space after the first character: a part may itself be a space.
            let at = merge.char_indices().skip(1).find(|(_, letter)| *letter == ' ');
            let (left, right) = merge.split_at(at.ok_or_else(wrong)?.0);
            let (right, joined) = (&right[1..], format!("{left}{}", &right[1..]));
            if [left, right, &joined].iter().any(|part| !vocabulary.contains_key(*part)) {
                let found = format!("a merge of {left:?} and {right:?}, which are not tokens");
                return Err(self.file.wrong(found, "merges of tokens"));
            }
            merges.push((left, right));
        }
        Ok(merges)
    }

    /// SentencePiece BPE: pieces with scores, or with the merges themselves (Gemma 4), and byte tokens as a fallback.
    fn sentencepiece(&self) -> Result<Value> {
        let architecture = self.file.text("general.architecture")?.unwrap_or_default();
        let gemma = architecture.starts_with("gemma");
        let Some(scores) = self.per_token("tokenizer.ggml.scores")? else {
            return Err(self.file.wrong("no tokenizer.ggml.scores", "a vocabulary with its scores"));
        };
        // The file writes a run of spaces literally; the vocabulary spells it like other pieces with spaces.
        let spelled: Vec<String> =
            self.tokens.iter().enumerate().map(|(id, token)| self.spelled(id, token)).collect();
        let (mut vocabulary, mut seen, mut pieces) = (Map::new(), HashSet::new(), Vec::new());
        for (id, text) in spelled.iter().enumerate() {
            if !seen.insert(text) {
                continue;
            }
            vocabulary.insert(text.clone(), json!(id));
            // Gemma's merges follow the order of its tokens, not its scores.
            let score = if gemma { -(id as f64) } else { scores[id].number().unwrap_or(f64::MIN) };
            if self.kinds[id] == NORMAL || (self.kinds[id] == USER_DEFINED && is_space(text)) {
                pieces.push(Piece { text, id, score });
            }
        }
        let merges = match self.file.text("tokenizer.ggml.model")? {
            Some("gemma4") => self.listed_merges(&vocabulary)?,
            _ => merges::merges(&pieces),
        };
        let unknown = self.named("unknown_token_id")?.or(self.kinds.iter().position(|kind| *kind == UNKNOWN));
        let bytes = self.kinds.contains(&BYTE);
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE.to_string()});
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE.to_string()}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        // A space before the text, and after each control token, as in llama.cpp and in the models' original
        // tokenizer.json.
        let normalizer = match self.flag("add_space_prefix", !gemma)? {
            true => {
                decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
                let prepend = json!({"type": "Prepend", "prepend": SPACE.to_string()});
                json!({"type": "Sequence", "normalizers": [prepend, replace]})
            }
            false => replace,
        };
        let parts = json!({
            "normalizer": normalizer,
            "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| self.tokens[id]),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": bytes, "ignore_merges": false, "vocab": vocabulary,
                "merges": merges,
            },
        });
        self.completed(parts, self.flag("add_bos_token", true)?)
    }

    fn spelled(&self, id: usize, token: &str) -> String {
        match self.kinds[id] {
            NORMAL | USER_DEFINED if is_space(token) => token.replace(' ', &SPACE.to_string()),
            _ => token.into(),
        }
    }
}

/// Which added tokens take the space beside them.
enum Strips {
    None,
    /// One, on its left.
    Left(&'static str),
    /// All but some, on their right.
    RightBut(&'static [&'static str]),
}

impl Strips {
    /// Whether a token takes the space on its left, and on its right.
    fn of(&self, token: &str) -> [bool; 2] {
        match self {
            Strips::None => [false, false],
            Strips::Left(one) => [token == *one, false],
            Strips::RightBut(others) => [false, !others.contains(&token)],
        }
    }
}

/// Whether a token is only spaces, in either spelling.
fn is_space(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|letter| letter == ' ' || letter == SPACE)
}
