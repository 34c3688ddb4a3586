//! Tokenizer classes of transformers, and what each makes of a tokenizer.json.
//!
//! The class that the configs declare, or that transformers registers for the model type, in; the special tokens that it names
//! by itself out, and tokenizer.json changed as transformers 5 changes it: most classes build the normalizer, the pre-tokenizer
//! and the decoder themselves, whatever the file says, with `add_prefix_space`, `legacy`, and for BERT `do_lower_case`,
//! `strip_accents` and `tokenize_chinese_chars`. `add_bos_token` and `add_eos_token` are not read there beside a
//! tokenizer.json, and so not here. The facts are those of `tokenizer_classes.json`, which `scripts/tokenizer_classes.py`
//! writes.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

/// What transformers knows of classes and model types.
fn facts() -> &'static Value {
    static FACTS: OnceLock<Value> = OnceLock::new();
    // The text is part of the program, and a test reads it.
    FACTS.get_or_init(|| serde_json::from_str(include_str!("tokenizer_classes.json")).unwrap_or_default())
}

/// A class of transformers that does more than read tokenizer.json.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenizerClass {
    pub name: &'static str,
    facts: &'static Map<String, Value>,
}

impl TokenizerClass {
    /// The class that `AutoTokenizer` takes; `None` for one that reads tokenizer.json as it is. `declared` is the class that
    /// tokenizer_config.json names, or config.json.
    pub fn of(declared: Option<&str>, model_type: &str, file: &Map<String, Value>) -> Option<TokenizerClass> {
        let declared = declared.map(|class| class.trim_end_matches("Fast"));
        let registered = facts()["model_types"].get(model_type).and_then(Value::as_str);
        let registered_counts = facts()["registered_class_counts"]
            .as_array()
            .is_some_and(|types| types.iter().any(|one| one == model_type));
        let name = match (declared, registered) {
            // Byte-level tokenizers under the class of SentencePiece ones.
            (Some("LlamaTokenizer"), _) if !registered_counts && is_byte_level(file) => return None,
            (Some(declared), Some(registered)) if declared != registered => match registered {
                "" => return None,
                _ if registered_counts => registered,
                _ => declared,
            },
            (declared, registered) => declared.or(registered)?,
        };
        let (name, facts) = facts()["classes"].as_object()?.get_key_value(name)?;
        Some(TokenizerClass { name, facts: facts.as_object()? })
    }

    /// The special tokens that it names where no file does: `eos_token` and others, with their text.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let named = self.facts.get("named").and_then(Value::as_object).into_iter().flatten();
        named.filter_map(|(name, text)| Some((name.as_str(), text.as_str()?)))
    }

    /// Its further special tokens.
    pub fn extra(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.facts.get("extra").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// The kind of model that it builds its parts around; `None` for a class that reads tokenizer.json as it is.
    pub fn builds(&self) -> Option<&'static str> {
        self.facts.get("model").and_then(Value::as_str)
    }

    /// Whether its named and further special tokens lose what the files say of them (`lstrip`, `rstrip` …).
    pub fn has_plain_tokens(&self) -> bool {
        self.facts.get("plain").is_some_and(|plain| *plain == true)
    }

    /// The special tokens before and after a text, by name or by their text, where the file's own don't count.
    pub fn around(&self) -> Option<[Vec<&'static str>; 2]> {
        let list = self.facts.get("around")?.as_array()?;
        let part = |place: usize| {
            list.get(place)?.as_array().map(|part| part.iter().filter_map(Value::as_str).collect())
        };
        Some([part(0)?, part(1)?])
    }

    /// Replaces the parts of a tokenizer.json by the class's own, with the settings of `config` (tokenizer_config.json).
    /// `unknown` is the text of the unknown token.
    ///
    /// # Errors
    /// A model of another kind than the class is for, as text.
    pub fn apply(
        &self,
        config: &Value,
        unknown: Option<&str>,
        file: &mut Map<String, Value>,
    ) -> Result<(), String> {
        let Some(kind) = self.builds() else { return Ok(()) };
        let charsmap = charsmap(file.get("normalizer"));
        let model = file.get_mut("model").and_then(Value::as_object_mut);
        let Some(model) = model.filter(|model| is_kind(model, kind)) else {
            let found = file["model"]["type"].as_str().unwrap_or("another type");
            return Err(format!(
                "a model of type {found}, and the class {}, which builds a {kind} from it",
                self.name
            ));
        };
        for (flag, value) in self.facts.get("flags").and_then(Value::as_object).into_iter().flatten() {
            let value = match value.as_str() {
                Some("unk_token") => unknown.map_or(Value::Null, Value::from),
                _ => value.clone(),
            };
            model.insert(flag.clone(), value);
        }
        if kind == "BPE" {
            model.insert("dropout".into(), Value::Null);
        }
        for part in ["normalizer", "pre_tokenizer", "decoder"] {
            file.insert(part.into(), self.facts.get(part).cloned().unwrap_or(Value::Null));
        }
        if let Some(map) = charsmap.filter(|_| kind == "Unigram") {
            file.insert("normalizer".into(), map);
        }
        if self.around().is_some() {
            file.insert("post_processor".into(), Value::Null);
        }
        self.set(config, file);
        Ok(())
    }

    /// The settings of tokenizer_config.json that the class reads.
    fn set(&self, config: &Value, file: &mut Map<String, Value>) {
        let flag = |name: &str| config[name].as_bool();
        let space = flag("add_prefix_space");
        if self.name == "LlamaTokenizer" {
            sentencepiece(space != Some(false), flag("legacy") == Some(true), file);
            return;
        }
        if let Some(part) = file.get_mut("pre_tokenizer") {
            set(part, "ByteLevel", "add_prefix_space", space.map(Value::from));
            let scheme = space.filter(|space| !space && self.name == "XLMRobertaTokenizer");
            set(part, "Metaspace", "prepend_scheme", scheme.map(|_| Value::from("never")));
        }
        if let Some(part) = file.get_mut("normalizer") {
            for (field, name) in [
                ("lowercase", "do_lower_case"),
                ("strip_accents", "strip_accents"),
                ("handle_chinese_chars", "tokenize_chinese_chars"),
            ] {
                set(part, "BertNormalizer", field, flag(name).map(Value::from));
            }
        }
    }
}

/// Whether some part cuts bytes.
fn is_byte_level(file: &Map<String, Value>) -> bool {
    let parts = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];
    parts.iter().any(|part| file.get(*part).is_some_and(|part| part.to_string().contains("\"ByteLevel\"")))
}

/// Whether a model is of this kind. Older files don't say.
fn is_kind(model: &Map<String, Value>, kind: &str) -> bool {
    match model.get("type").and_then(Value::as_str) {
        Some(found) => found == kind,
        None => {
            let has = match model.get("vocab") {
                Some(Value::Array(_)) => "Unigram",
                _ if model.contains_key("merges") => "BPE",
                _ => "WordPiece",
            };
            has == kind
        }
    }
}

/// The first precompiled character map among the steps of a normalizer.
fn charsmap(normalizer: Option<&Value>) -> Option<Value> {
    let normalizer = normalizer?;
    let steps = match normalizer["type"].as_str() {
        Some("Sequence") => normalizer["normalizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(normalizer),
    };
    steps.iter().find(|step| step["type"] == "Precompiled").cloned()
}

/// Sets a field of every step of a type, if there is a value for it.
fn set(part: &mut Value, kind: &str, name: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    if part["type"] == kind {
        part[name] = value.clone();
    }
    for list in ["pretokenizers", "normalizers"] {
        for step in part.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if step["type"] == kind {
                step[name] = value.clone();
            }
        }
    }
}

/// The parts of `LlamaTokenizer` that depend on its settings. A space begins the text, and in the older mode each text after a
/// special token.
fn sentencepiece(space: bool, legacy: bool, file: &mut Map<String, Value>) {
    let scheme = match (space, legacy) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    if let Some(part) = file.get_mut("pre_tokenizer") {
        set(part, "Metaspace", "prepend_scheme", Some(json!(scheme)));
    }
    let decoders = file.get_mut("decoder").and_then(|decoder| decoder.get_mut("decoders"));
    if let Some(Value::Array(decoders)) = decoders
        && !space
    {
        decoders.retain(|step| step["type"] != "Strip");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::added_tokens::TokenFiles;
    use super::super::tests::fixture;
    use super::super::tokenizer::Vocabulary;
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        base: String,
        model: String,
        config: Value,
        /// Parts of tokenizer.json in place of the base's.
        #[serde(default)]
        parts: Map<String, Value>,
        /// The class that config.json names.
        model_class: Option<String>,
        text: String,
        ids: Vec<u32>,
        /// With the special tokens around a text.
        alone: Vec<u32>,
        named: BTreeMap<String, String>,
    }

    #[derive(Deserialize)]
    struct Cases {
        /// A Unigram tokenizer.
        scores: Value,
        cases: Vec<Case>,
    }

    #[test]
    fn what_a_tokenizers_class_builds_and_names_is_that_of_transformers() {
        let Cases { scores, cases } = serde_json::from_str(&fixture("tokenizer_class.json")).unwrap();
        assert!(cases.len() > 100);
        let mut wrong = Vec::new();
        for Case { base, model, config, parts, model_class, text, ids, alone, named } in cases {
            let shown = format!("{base} {model} {config} {model_class:?} {}", json!(parts));
            let files = TokenFiles { config, model_type: model, model_class, ..TokenFiles::default() };
            let mut file = match base.as_str() {
                "scores" => scores.clone(),
                base => serde_json::from_str(&fixture(&format!("families/{base}.json"))).unwrap(),
            };
            file.as_object_mut().unwrap().extend(parts);
            let (vocabulary, found) =
                Vocabulary::new(file.to_string().as_bytes(), "tokenizer.json", &files).unwrap();
            let read = |add: bool| -> Vec<u32> {
                vocabulary.encode(&text, &[], add).unwrap().iter().map(|piece| piece.id).collect()
            };
            if (read(false), read(true)) != (ids.clone(), alone.clone()) {
                wrong.push(format!(
                    "{shown}: {:?} {:?}; expected {ids:?} {alone:?}",
                    read(false),
                    read(true)
                ));
            }
            let found: BTreeMap<String, String> = found.into_iter().collect();
            if found != named {
                wrong.push(format!("{shown}: {found:?}; expected {named:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_class_for_another_kind_of_model_is_refused_by_name() {
        let config = json!({"tokenizer_class": "BertTokenizerFast"});
        let files = TokenFiles { config, model_type: "bert".into(), ..TokenFiles::default() };
        let file = fixture("families/bytes.json");
        let error = Vocabulary::new(file.as_bytes(), "tokenizer.json", &files).err().unwrap().to_string();
        assert!(
            error.contains("a model of type BPE, and the class BertTokenizer, which builds a WordPiece"),
            "{error}"
        );
        let files = TokenFiles { model_type: "bert".into(), ..TokenFiles::default() };
        assert!(Vocabulary::new(file.as_bytes(), "tokenizer.json", &files).is_ok());
    }
}
