//! Settings of tokenizer_config.json that change how text is cut.
//!
//! The tokenizer's class and its settings in, tokenizer.json changed as that class of transformers 5 changes it: `add_prefix_space`
//! and `legacy`, and for BERT `do_lower_case`, `strip_accents` and `tokenize_chinese_chars`. `add_bos_token` and
//! `add_eos_token` are not read there beside a tokenizer.json, and so not here.

use serde_json::{Map, Value, json};

/// Model types whose tokenizers are read from tokenizer.json as they are, whatever class the config declares.
const AS_IT_IS: [&str; 3] = ["mistral", "olmo2", "phi3"];

/// Classes of model types that declare none, or the wrong one.
fn registered(model_type: &str) -> Option<&'static str> {
    Some(match model_type {
        "bert" => "BertTokenizer",
        "gpt2" => "GPT2Tokenizer",
        "gpt_neox" => "GPTNeoXTokenizer",
        "qwen2" | "qwen3" | "qwen3_moe" => "Qwen2Tokenizer",
        _ => return None,
    })
}

/// Applies the settings of `config` (tokenizer_config.json) to a tokenizer.json of a model of this type.
pub(crate) fn apply(config: &Value, model_type: &str, file: &mut Map<String, Value>) {
    if AS_IT_IS.contains(&model_type) {
        return;
    }
    let declared = config["tokenizer_class"].as_str().map(|class| class.trim_end_matches("Fast"));
    let flag = |name: &str| config[name].as_bool();
    match declared.or(registered(model_type)) {
        Some("GPT2Tokenizer" | "GPTNeoXTokenizer" | "Qwen2Tokenizer") => {
            if let (Some(space), Some(part)) = (flag("add_prefix_space"), file.get_mut("pre_tokenizer")) {
                set(part, "ByteLevel", "add_prefix_space", Some(space.into()));
            }
        }
        Some("BertTokenizer") => {
            if let Some(part) = file.get_mut("normalizer") {
                set(part, "BertNormalizer", "lowercase", flag("do_lower_case").map(Value::from));
                set(part, "BertNormalizer", "strip_accents", flag("strip_accents").map(Value::from));
                set(
                    part,
                    "BertNormalizer",
                    "handle_chinese_chars",
                    flag("tokenize_chinese_chars").map(Value::from),
                );
            }
        }
        Some("LlamaTokenizer") => {
            sentencepiece(flag("add_prefix_space") != Some(false), flag("legacy") == Some(true), file)
        }
        _ => {}
    }
}

/// Sets a field of every step of a type, if there is a value for it.
fn set(part: &mut Value, kind: &str, name: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    if part["type"] == kind {
        part[name] = value.clone();
    }
    for list in ["pretokenizers", "normalizers"] {
        for step in part.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            // The library refuses deeper nesting.
            if step["type"] == kind {
                step[name] = value.clone();
            }
        }
    }
}

/// The parts that `LlamaTokenizer` builds around the vocabulary and the merges of a SentencePiece tokenizer. A space begins the
/// text, and in the older mode each text after a special token.
fn sentencepiece(space: bool, legacy: bool, file: &mut Map<String, Value>) {
    let is_byte_level = ["pre_tokenizer", "decoder"]
        .iter()
        .any(|part| file.get(*part).is_some_and(|part| part.to_string().contains("ByteLevel")));
    let Some(Value::Object(model)) =
        file.get_mut("model").filter(|model| !is_byte_level && model["type"] == "BPE")
    else {
        return;
    };
    model.insert("fuse_unk".into(), true.into());
    model.insert("byte_fallback".into(), true.into());
    let scheme = match (space, legacy) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    file.insert("normalizer".into(), Value::Null);
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    file.insert("pre_tokenizer".into(), metaspace);
    file.insert("decoder".into(), json!({"type": "Sequence", "decoders": decoders}));
}

#[cfg(test)]
mod tests {
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
        text: String,
        ids: Vec<u32>,
    }

    #[test]
    fn settings_of_the_tokenizers_class_are_those_of_transformers() {
        let cases: Vec<Case> = serde_json::from_str(&fixture("tokenizer_class.json")).unwrap();
        let mut wrong = Vec::new();
        for Case { base, model, config, text, ids } in cases {
            let shown = format!("{base} {model} {config}");
            let files = TokenFiles { config, model_type: model, ..TokenFiles::default() };
            let file = fixture(&format!("families/{base}.json"));
            let vocabulary = Vocabulary::new(file.as_bytes(), "tokenizer.json", &files).unwrap().0;
            let found: Vec<u32> =
                vocabulary.encode(&text, &[], false).unwrap().iter().map(|piece| piece.id).collect();
            if found != ids {
                wrong.push(format!("{shown}: {found:?}; expected {ids:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
