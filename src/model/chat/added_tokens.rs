//! Tokens that a checkpoint adds beside its tokenizer.json.
//!
//! `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` in; the added tokens and the names of special
//! tokens out, by the rules of transformers 5 (`PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend.__init__`). What
//! those files say of a token (`lstrip`, `rstrip`, `normalized`, `single_word`) counts over tokenizer.json.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::tokenizer_class::TokenizerClass;

/// The names of special tokens that every tokenizer has.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The contents of the three files; null where a file is missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenFiles {
    /// `tokenizer_config.json`.
    pub config: Value,
    /// `special_tokens_map.json`.
    pub special: Value,
    /// `added_tokens.json`.
    pub added: Value,
    /// The `model_type` of `config.json`, if any.
    pub model_type: String,
    /// The `tokenizer_class` of `config.json`, if any.
    pub model_class: Option<String>,
}

/// Added tokens in the order in which they get their ids, and special tokens by name.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub added: Vec<AddedToken>,
    pub named: Vec<(String, String)>,
}

/// A special token as a file gives it: text alone, or with its properties.
#[derive(Clone, Debug, PartialEq)]
enum Given {
    Text(String),
    Token(AddedToken),
}

impl Given {
    /// Text, or an object with `content`, which is special at least where `special` is set.
    fn read(value: &Value, special: bool) -> Option<Given> {
        match value {
            Value::String(text) => Some(Given::Text(text.clone())),
            Value::Object(fields) => token(fields, special).map(Given::Token),
            _ => None,
        }
    }

    fn text(&self) -> &str {
        match self {
            Given::Text(text) => text,
            Given::Token(token) => &token.content,
        }
    }
}

/// An added token of an object; without `normalized`, a special token is not normalised.
fn token(fields: &Map<String, Value>, special: bool) -> Option<AddedToken> {
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
    let special = special || flag("special").unwrap_or(false);
    Some(AddedToken {
        content: fields.get("content")?.as_str()?.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}

impl TokenFiles {
    /// The tokenizer's class, if it does more than read tokenizer.json; its parts replace those of the file.
    ///
    /// # Errors
    /// A class for another kind of model, as text.
    pub fn adjust(&self, file: &mut Map<String, Value>) -> Result<Option<TokenizerClass>, String> {
        let declared = self.config["tokenizer_class"].as_str();
        let class = TokenizerClass::of(declared.or(self.model_class.as_deref()), &self.model_type, file);
        let Some(class) = class else { return Ok(None) };
        let named = self.tokens(Vec::new(), Some(class)).named;
        let unknown = named.iter().find(|(name, _)| name == "unk_token").map(|(_, text)| text.as_str());
        match class.apply(&self.config, unknown, file) {
            Ok(()) => Ok(Some(class)),
            // A class that nobody declared: the file is a model of another kind under that model type's name.
            Err(_) if declared.is_none() && self.model_class.is_none() => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Refuses an added token whose id is no number from 0 to `largest`, or that has no text: the file's name, and what it has.
    pub fn check_ids(&self, largest: u64) -> Result<(), (&'static str, String)> {
        let is_id = |id: Option<u64>| id.is_some_and(|id| id <= largest);
        match self.config.get("added_tokens_decoder") {
            None => {
                let mut added = self.added.as_object().into_iter().flatten();
                added.find(|(_, id)| !is_id(id.as_u64())).map_or(Ok(()), |(text, id)| {
                    Err(("added_tokens.json", format!("the token {text:?} with the id {id}")))
                })
            }
            Some(Value::Null) => Ok(()),
            Some(Value::Object(tokens)) => tokens.iter().try_for_each(|(id, fields)| {
                let wrong = |found: String| Err(("tokenizer_config.json", found));
                match &fields["content"] {
                    _ if !is_id(id.parse().ok()) => wrong(format!("an added token with the id {id}")),
                    Value::String(_) => Ok(()),
                    _ => wrong(format!("an added token {id} without a text as its content")),
                }
            }),
            Some(_) => Err(("tokenizer_config.json", "added_tokens_decoder that is not an object".into())),
        }
    }

    /// The tokens to add after `own`, those of tokenizer.json with their ids; and the named ones. The class names what no file
    /// does.
    pub fn tokens(&self, own: Vec<(u64, AddedToken)>, class: Option<TokenizerClass>) -> Tokens {
        let none = Map::new();
        let config = self.config.as_object().unwrap_or(&none);
        let mut named: BTreeMap<String, Given> = BTreeMap::new();
        // Names that a file takes away.
        let mut none_named: HashSet<String> = HashSet::new();
        // Names beyond the seven, in the order of the file.
        let mut order: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        let mut seen: HashSet<String> = order.iter().cloned().collect();
        let mut extra: Vec<Given> = Vec::new();
        let old = "additional_special_tokens";
        let has_list = config.contains_key(old) || config.contains_key("extra_special_tokens");
        let mut read = |files: &Map<String, Value>, special: bool, extra: &mut Vec<Given>| {
            for (name, value) in files.iter().filter(|(name, _)| name.ends_with("_token")) {
                let Some(given) = Given::read(value, special) else {
                    // A null takes the name away.
                    if value.is_null() {
                        named.remove(name);
                        none_named.insert(name.clone());
                    }
                    continue;
                };
                none_named.remove(name);
                if seen.insert(name.clone()) {
                    order.push(name.clone());
                }
                named.insert(name.clone(), given);
            }
            let some = |key: &str| files.get(key).filter(|value| !is_empty(value));
            // The older name of the list counts in the second file only where the first has none.
            let older = if special && has_list { None } else { some(old) };
            match some("extra_special_tokens").or(older) {
                Some(Value::Array(list)) => {
                    extra.extend(list.iter().filter_map(|value| Given::read(value, true)));
                }
                Some(Value::Object(tokens)) => {
                    for (name, value) in tokens {
                        let Some(given) = Given::read(value, true) else { continue };
                        if seen.insert(name.clone()) {
                            order.push(name.clone());
                        }
                        named.insert(name.clone(), given);
                    }
                }
                _ => {}
            }
        };
        read(config, false, &mut extra);
        let mut by_id: BTreeMap<u64, AddedToken> = BTreeMap::new();
        if let Some(Value::Object(tokens)) = config.get("added_tokens_decoder") {
            for (id, fields) in tokens {
                let token = fields.as_object().and_then(|fields| token(fields, false));
                if let (Ok(id), Some(token)) = (id.parse(), token) {
                    by_id.insert(id, token);
                }
            }
        } else {
            if let Value::Object(special) = &self.special {
                read(special, true, &mut extra);
            }
            for (text, id) in self.added.as_object().into_iter().flatten() {
                let Some(id) = id.as_u64() else { continue };
                let special = extra.iter().any(|given| given.text() == text)
                    || NAMES.iter().any(|name| named.get(*name).is_some_and(|given| given.text() == text));
                let token =
                    AddedToken { special, normalized: !special, ..AddedToken::from(text.as_str(), special) };
                by_id.insert(id, token);
            }
            by_id.extend(own.iter().cloned());
        }
        for name in NAMES {
            if let Some(given) = named.get_mut(name)
                && let Some(token) = by_id.values().rfind(|token| token.content == given.text())
            {
                *given = Given::Token(token.clone());
            }
        }

        if let Some(class) = class {
            for (name, text) in class.named() {
                if named.contains_key(name) || none_named.contains(name) {
                    continue;
                }
                if !NAMES.contains(&name) {
                    order.push(name.into());
                }
                named.insert(name.into(), Given::Text(text.into()));
            }
            if !has_list {
                extra.extend(class.extra().map(|text| Given::Text(text.into())));
            }
        }

        let ordered: Vec<(&String, &Given)> =
            order.iter().filter_map(|name| Some((name, named.get(name)?))).collect();
        // A class that builds its parts takes vocabulary and merges alone from tokenizer.json.
        let builds = class.is_some_and(|class| class.builds().is_some());
        let own = own.into_iter().filter(|_| !builds);
        let mut added: Vec<AddedToken> = own.map(|(_, token)| token).collect();
        let mut tokens: Vec<Given> = by_id.into_values().map(Given::Token).collect();
        let mut known: HashSet<String> = added.iter().map(|token| token.content.clone()).collect();
        known.extend(tokens.iter().map(|given| given.text().to_owned()));
        let further = ordered.iter().map(|(_, given)| *given).chain(&extra);
        tokens.extend(further.filter(|given| !known.contains(given.text())).cloned());
        let texts: HashSet<&str> = ordered.iter().map(|(_, given)| given.text()).collect();
        let plain = class.is_some_and(|class| class.has_plain_tokens());
        let is_plain =
            |text: &str| plain && (texts.contains(text) || extra.iter().any(|one| one.text() == text));
        added.extend(tokens.into_iter().map(|given| match given {
            Given::Text(text) => AddedToken::from(text, true),
            Given::Token(token) if is_plain(&token.content) => AddedToken::from(token.content, true),
            Given::Token(token) => {
                let special = token.special || texts.contains(token.content.as_str());
                AddedToken { special, ..token }
            }
        }));
        let named =
            ordered.into_iter().map(|(name, given)| (name.clone(), given.text().to_owned())).collect();
        Tokens { added, named }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::tests::fixture;
    use super::super::tokenizer::Vocabulary;
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        /// Further added tokens of tokenizer.json.
        #[serde(default)]
        file: Vec<Value>,
        #[serde(default)]
        config: Value,
        #[serde(default)]
        special: Value,
        #[serde(default)]
        added: Value,
        ids: Vec<u32>,
        named: BTreeMap<String, String>,
    }

    #[derive(Deserialize)]
    struct Cases {
        text: String,
        cases: Vec<Case>,
    }

    #[test]
    fn tokens_beside_tokenizer_json_are_those_of_transformers() {
        let Cases { text, cases } = serde_json::from_str(&fixture("added_tokens.json")).unwrap();
        assert!(cases.len() > 20);
        let mut wrong = Vec::new();
        for Case { name, file, config, special, added, ids, named } in cases {
            let mut json: Value = serde_json::from_str(&fixture("tokenizer.json")).unwrap();
            json["added_tokens"].as_array_mut().unwrap().extend(file);
            let files = TokenFiles { config, special, added, ..TokenFiles::default() };
            let (vocabulary, found) =
                Vocabulary::new(json.to_string().as_bytes(), "tokenizer.json", &files).unwrap();
            let pieces = vocabulary.encode(&text, &[], false).unwrap();
            let pieces: Vec<u32> = pieces.iter().map(|piece| piece.id).collect();
            let found: BTreeMap<String, String> = found.into_iter().collect();
            if pieces != ids || found != named {
                wrong.push(format!("{name}: {pieces:?} {found:?}; expected {ids:?} {named:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
